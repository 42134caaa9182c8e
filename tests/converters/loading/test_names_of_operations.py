"""Classes of the user that have the name of an operation of Keras in the same model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CLASSES = """
import keras
from keras import ops

class Flip(keras.layers.Layer):
    def call(self, x):
        return ops.flip(x, axis=1)

class Mean(keras.layers.Layer):
    def __init__(self, axis=2, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x):
        return x - ops.mean(x, axis=self.axis, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}

class Roll(keras.layers.Layer):
    def call(self, x, mask=None):
        return ops.roll(x, 1, axis=1)

    def compute_mask(self, x, mask=None):
        return None if mask is None else ops.roll(mask, 1, axis=1)
"""


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("name", only(("Flip", "Mean", "Roll"), "Flip"))
def test_operations_beside_such_classes(name: str, suffix: str, tmp_path: Path) -> None:
    classes: dict[str, Any] = {"__name__": "own"}
    exec(CLASSES, classes)
    x = inputs = keras.Input((5, 4))
    if name == "Roll":
        x = keras.layers.Masking()(x)
    x = classes[name](name="own")(x)
    operation = {
        "Flip": lambda x: ops.flip(x, axis=2),
        "Mean": lambda x: x * ops.mean(x, axis=1, keepdims=True),
        "Roll": lambda x: ops.roll(x, 2, axis=2),
    }[name]
    # An operation has no mask: that of the class belongs to the recurrent layer.
    model = keras.Model(inputs, [keras.layers.GRU(3)(x), operation(x)])
    model.save(tmp_path / f"m{suffix}")
    (tmp_path / "own.py").write_text(CLASSES)
    values = np.random.default_rng(2).normal(size=(3, 5, 4)).astype("float32")
    values[1, 3:] = 0
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=tmp_path / "own.py")
    for actual, expected in zip(loaded.model(values), model(values), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
