"""Rounding to the integers of a range, compared with TensorFlow's own operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FORMATS = {"tflite": tflite, "onnx": onnx}
quantization = tf.quantization
ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    # The integer of 0 is between two: 127.5.
    "symmetric": lambda x: quantization.fake_quant_with_min_max_args(x, -2, 2),
    "narrow": lambda x: quantization.fake_quant_with_min_max_args(x, -6, 6, narrow_range=True),
    "four_bits": lambda x: quantization.fake_quant_with_min_max_args(x, -1.3, 2.1, num_bits=4),
    "sixteen_bits": lambda x: quantization.fake_quant_with_min_max_args(x, -4, 3, num_bits=16),
    "positive": lambda x: quantization.fake_quant_with_min_max_args(x, 0.5, 3.0),
    "negative": lambda x: quantization.fake_quant_with_min_max_vars(x, -3.0, -1.0),
    "tensors": lambda x: quantization.fake_quant_with_min_max_vars(x, -1.0, 2.5),
    "channels": lambda x: quantization.fake_quant_with_min_max_vars_per_channel(
        x, [-1.0, -2.0, -0.1], [1.0, 2.5, 3.0], narrow_range=True
    ),
}


@pytest.mark.parametrize("format", only(FORMATS, "tflite"))
def test_values_are_rounded_to_the_same_integers(format: str, tmp_path: Path) -> None:
    x = keras.Input((400, 3), name="x")
    layers = {name: keras.layers.Lambda(call, name=name)(x) for name, call in ROUNDINGS.items()}
    model = keras.Model(x, layers)
    path = tmp_path / "model"
    file = FORMATS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    values = np.random.default_rng(0).normal(0, 2, (1, 400, 3)).astype("float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": values})
    for name, call in ROUNDINGS.items():
        np.testing.assert_array_equal(actual[name], call(values), err_msg=name)
