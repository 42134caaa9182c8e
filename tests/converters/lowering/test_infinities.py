"""Infinite constants, and quotients by zeros of both signs, compared with Keras."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
INFINITY = float("inf")
VALUES = np.array([[0.0, -0.0, 1, -1, 2.5, -3, 1e30, np.inf, -np.inf]], "float32")
FUNCTIONS = {
    "quotient": lambda x: x / 0.0,
    "masked": lambda x: ops.where(x > 0, x, -INFINITY),
    "largest_of_nothing": lambda x: ops.max(ops.where(x > x, x, -INFINITY), -1, keepdims=True),
    "log_of_nothing": lambda x: ops.logsumexp(ops.where(x > x, x, -INFINITY), -1, keepdims=True),
    "sum": lambda x: x + INFINITY,
    "product": lambda x: x * INFINITY,
    "is_finite": lambda x: ops.isfinite(ops.where(x > 0, 0.0, -INFINITY)),
    "is_infinity": lambda x: ops.equal(x, INFINITY),
    "minimum": lambda x: ops.minimum(x, INFINITY),
    "without_infinities": ops.nan_to_num,
    "padded": lambda x: tf.pad(x, [[0, 0], [1, 2]], constant_values=-INFINITY),
    "reciprocal_of_negated": lambda x: 1.0 / -x,
    "quotient_by_negated": lambda x: (x + 2.0) / -x,
    "reciprocals": lambda x: ops.reciprocal(-x),
    "reciprocal_of_moved": lambda x: 1.0 / ops.reshape(ops.stack([-x, x], -1)[..., 0], (-1, 3, 3)),
    "reciprocal_of_product": lambda x: ops.reciprocal(x * x * -x),
    "reciprocal_of_tanh": lambda x: 1.0 / ops.tanh(-x),
    "reciprocal_root": lambda x: ops.rsqrt(-ops.abs(x)),
    "power": lambda x: tf.pow(-ops.minimum(ops.abs(x), 9.0), -0.5),
    "quotient_by_root": lambda x: (x + 2.0) / ops.sqrt(-ops.abs(x)),
    "odd_power_of_negated": lambda x: tf.pow(-x, -1.0),
    "sign_of_negated": lambda x: ops.signbit(-x),
}


class Functions(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return {name: function(x) for name, function in FUNCTIONS.items()}


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_infinities_are_those_of_keras(format: str, tmp_path: Path) -> None:
    x = keras.Input(VALUES.shape[1:], name="x")
    model, path = keras.Model(x, Functions()(x)), tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": VALUES})
    for name, value in model(VALUES).items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6, atol=0, err_msg=name)
