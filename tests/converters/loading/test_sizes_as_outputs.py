"""Layers of the user that return sizes beside tensors, of axes whose length the files fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# A layer that returns sizes of the input (samples, steps, width, 3), and one that takes them.
RETURNED = {
    "tuple": ("x, ops.shape(x)[1]", "x, steps = Sizes()(x)"),
    "list": ("[x, ops.shape(x)[1]]", "x, steps = Sizes()(x)"),
    "dictionary": ("{'x': x, 'steps': ops.shape(x)[1]}", "d = Sizes()(x); x, steps = d.values()"),
    "nested": ("x, (ops.shape(x)[1], ops.shape(x)[1] + 1)", "x, (steps, more) = Sizes()(x)"),
    "product": ("x, ops.shape(x)[1] * 2 // 2", "x, steps = Sizes()(x)"),
    "unused": ("x, ops.shape(x)[1]", "x, _ = Sizes()(x); steps = 4"),
}
PROGRAM = """
import keras
from keras import layers, ops

@keras.saving.register_keras_serializable("sizes")
class Sizes(layers.Layer):
    def call(self, x):
        return RETURNED

@keras.saving.register_keras_serializable("sizes")
class Scaled(layers.Layer):
    def call(self, x, steps):
        flat = ops.reshape(x, (-1, steps * 5, 3))
        return flat / ops.cast(steps, "float32")

def build():
    inputs = x = keras.Input((None, 5, 3))
    TAKEN
    x = layers.GRU(4)(Scaled()(x, steps=steps))
    return keras.Model(inputs, layers.Dense(2)(x))
"""


@pytest.mark.long
@pytest.mark.parametrize("file", only([".keras", ".h5", ".weights.h5"], ".keras"))
@pytest.mark.parametrize("kind", only(RETURNED, "tuple", "nested"))
def test_sizes_of_axes_with_a_fixed_length(kind: str, file: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        PROGRAM.replace("RETURNED", RETURNED[kind][0]).replace("TAKEN", RETURNED[kind][1])
    )
    names: dict[str, Any] = {"__name__": "own"}
    exec(own.read_text(), names)
    model = names["build"]()
    x = np.random.default_rng(0).normal(size=(6, 4, 5, 3)).astype("float32")
    np.savez(tmp_path / "s.npz", x=x)
    expected = model.predict(x, verbose=0)
    if file == ".weights.h5":
        model.save_weights(tmp_path / f"m{file}")
        options: dict[str, Any] = {"architecture": f"{own}:build"}
    else:
        model.save(tmp_path / f"m{file}")
        options = {"custom_objects": own}
    loaded = load_model(audit_file(tmp_path / f"m{file}"), time_steps=4, **options)
    np.testing.assert_allclose(np.asarray(loaded.model(x)), expected, rtol=1e-5, atol=1e-6)
