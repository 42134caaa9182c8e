"""Convolutions with several batch axes, compared with tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CASES = {
    "1d": ((4, 6, 3), "Conv1D(5, 3, strides=2)"),
    "causal": ((4, 6, 3), "Conv1D(5, 3, padding='causal', dilation_rate=2, activation='relu')"),
    "no bias": ((2, 4, 6, 3), "Conv1D(5, 3, padding='same', use_bias=False)"),
    "2d": ((2, 6, 6, 3), "Conv2D(5, 3, padding='same', strides=2)"),
    "3d": ((2, 4, 4, 4, 3), "Conv3D(5, 3, padding='same', dilation_rate=2)"),
    "free": ((None, 6, 3), "Conv1D(5, 3)"),
    # As before.
    "one": ((6, 3), "Conv1D(5, 3)"),
}
PROGRAM = """
class Own(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.{call}

    def call(self, x):
        return self.conv(x) * 2


def build():
    x = keras.Input({shape})
    layer = {created}
    return keras.Model(x, keras.layers.Dense(2)(layer(x)))
"""


def saved(text: str, path: Path, *, whole: bool) -> Any:
    names: dict[str, Any] = {"__name__": "own", "keras": tf_keras}
    exec(text, names)
    model = names["build"]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    (model.save if whole else model.save_weights)(path)
    return model


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("whole", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("1d", "2d") else pytest.param(name, marks=pytest.mark.long)
        for name in CASES
    ],
)
def test_each_part_is_convolved(name: str, whole: bool, own: bool, tmp_path: Path) -> None:
    shape, call = CASES[name]
    created = "Own()" if own else f"keras.layers.{call}"
    text = PROGRAM.format(call=call, shape=shape, created=created)
    path, script = tmp_path / "m.h5", tmp_path / "own.py"
    model = saved(text, path, whole=whole)
    script.write_text(f"from tensorflow import keras\n{text}")
    loaded = load_model(
        audit_file(path),
        custom_objects=script if whole and own else None,
        architecture=None if whole else f"{script}:build",
        time_steps=4 if name == "free" else None,
    )
    assert not loaded.is_graph
    x = np.random.default_rng(5).normal(size=(4, *(size or 4 for size in shape))).astype("float32")
    np.testing.assert_allclose(
        np.asarray(loaded.model(x)), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )
