"""Arithmetic with constant arrays, which Keras 3 adds as a bias, compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

CONVERTERS = {"tflite": tflite, "onnx": onnx}
# By the number of axes, with that of the samples; sizes are different primes.
SHAPES: Mapping[int, tuple[int, ...]] = {1: (), 2: (3,), 3: (3, 5), 4: (2, 3, 5), 5: (2, 7, 3, 5)}
OPERATIONS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "add": (lambda x, c: x + c, np.add),
    "subtract": (lambda x, c: x - c, np.subtract),
    "multiply": (lambda x, c: x * c, np.multiply),
    "maximum": (keras.ops.maximum, np.maximum),
    "minimum": (keras.ops.minimum, np.minimum),
    "constant_first": (lambda x, c: keras.ops.add(c, x), np.add),
}


def constants(shape: tuple[int, ...], dtype: str) -> dict[str, np.ndarray]:
    """Arrays with the shape of a bias, of a sample and others."""
    shapes = {"whole": shape, "last": shape[-1:], "batch": (1, *shape), "number": ()}
    if len(shape) > 1:
        shapes |= {"second": (shape[0], *[1] * (len(shape) - 1)), "rows": (*shape[:-1], 1)}
    generator = np.random.default_rng(5)
    return {name: generator.integers(-9, 9, size).astype(dtype) for name, size in shapes.items()}


def outputs_of(
    model: Any, format: str, inputs: Mapping[str, np.ndarray], folder: Path
) -> Mapping[str, np.ndarray]:
    path = folder / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    return open_runner(path, format, file.inputs, file.outputs).run(inputs)


@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("rank", only(SHAPES, 1, 5))
@pytest.mark.parametrize("dtype", only(["int32", "int64", "int16", "uint8", "float32"], "int32"))
def test_arithmetic_with_constant_arrays(
    dtype: str, rank: int, format: str, tmp_path: Path
) -> None:
    """Integers had no TFLite file ("no operator for BiasAdd"), and neither had columns of floats
    ("x should be of the same rank with y")."""
    shape = SHAPES[rank]
    arrays = constants(shape, dtype)
    x = keras.Input(shape, dtype=dtype, name="x")
    results, expected = {}, {}
    values = np.random.default_rng(6).integers(0, 20, (1, *shape)).astype(dtype)
    for name, array in arrays.items():
        for operation, (of_keras, of_numpy) in OPERATIONS.items():
            results[f"{name}_{operation}"] = of_keras(x, array)
            expected[f"{name}_{operation}"] = of_numpy(values, array)
    actual = outputs_of(keras.Model(x, results), format, {"x": values}, tmp_path)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
        assert actual[name].dtype == value.dtype


class Biased(keras.layers.Layer):
    """A bias for each of the channels, which are the last or the second axis."""

    def __init__(self, bias: np.ndarray, data_format: str) -> None:
        super().__init__()
        self.bias, self.data_format = bias, data_format

    def call(self, x: Any) -> Any:
        return tf.nn.bias_add(x, self.bias, data_format=self.data_format)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("dtype", only(["int32", "int64", "float32"], "int32"))
@pytest.mark.parametrize("data_format", ["N..C", "NC.."])
def test_biases_of_channels(data_format: str, dtype: str, format: str, tmp_path: Path) -> None:
    inputs, outputs, samples, expected = [], {}, {}, {}
    for rank, shape in list(SHAPES.items())[2:]:
        size = shape[-1] if data_format == "N..C" else shape[0]
        bias = (np.arange(size) - 3).astype(dtype)
        x = keras.Input(shape, dtype=dtype, name=f"x{rank}")
        inputs.append(x)
        outputs[f"y{rank}"] = Biased(bias, data_format)(x)
        values = np.random.default_rng(rank).integers(0, 20, (1, *shape)).astype(dtype)
        samples[x.name] = values
        axes = 0 if data_format == "N..C" else len(shape) - 1
        expected[f"y{rank}"] = values + bias.reshape(-1, *[1] * axes)
    actual = outputs_of(keras.Model(inputs, outputs), format, samples, tmp_path)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
