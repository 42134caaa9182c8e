"""Arithmetic of integers near the ends of their ranges, compared with TensorFlow.

Every operation is computed for all pairs of the lowest and highest values and some between.
"""

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
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
# Of any two integers, a divisor, and a number of bits.
_Function = Callable[[Any, Any, Any, Any], Any]
ANY: Mapping[str, _Function] = {
    "add": lambda x, y, d, s: x + y,
    "add_n": lambda x, y, d, s: tf.add_n([x, y, y]),
    "subtract": lambda x, y, d, s: x - y,
    "multiply": lambda x, y, d, s: x * y,
    "square": lambda x, y, d, s: tf.square(x),
    "mod": lambda x, y, d, s: x % d,
    "maximum": lambda x, y, d, s: tf.maximum(x, y),
    "less": lambda x, y, d, s: x < y,
    "greater": lambda x, y, d, s: x > y,
    "less_equal": lambda x, y, d, s: x <= y,
    "equal": lambda x, y, d, s: tf.equal(x, y),
    "sum": lambda x, y, d, s: tf.reduce_sum(x, 1),
    "cumsum": lambda x, y, d, s: tf.cumsum(x, 1),
    "largest": lambda x, y, d, s: tf.reduce_max(x, 1),
    "top": lambda x, y, d, s: tf.math.top_k(x, 5)[0],
    "cast": lambda x, y, d, s: tf.cast(x, tf.int32),
}
SIGNED: Mapping[str, _Function] = {
    "negative": lambda x, y, d, s: -x,
    "absolute": lambda x, y, d, s: tf.abs(x),
    "sign": lambda x, y, d, s: tf.sign(x),
}
# TFLite has no operators for these of 64 bits, which uint32 is computed in.
DIVISIONS: Mapping[str, _Function] = {
    "floor_divide": lambda x, y, d, s: x // d,
    "truncate_divide": lambda x, y, d, s: tf.truncatediv(x, d),
}
# TFLite has no parts of tensors of uint16.
REDUCTIONS: Mapping[str, _Function] = {
    "sum_outside": lambda x, y, d, s: tf.reduce_sum(y[:, -12:], 1),
    "product": lambda x, y, d, s: tf.reduce_prod(y[:, -12:], 1),
}
BITS: Mapping[str, _Function] = {
    "and": lambda x, y, d, s: tf.bitwise.bitwise_and(x, y),
    "or": lambda x, y, d, s: tf.bitwise.bitwise_or(x, y),
    "xor": lambda x, y, d, s: tf.bitwise.bitwise_xor(x, y),
    "invert": lambda x, y, d, s: tf.bitwise.invert(x),
    "left_shift": lambda x, y, d, s: tf.bitwise.left_shift(x, s),
    "right_shift": lambda x, y, d, s: tf.bitwise.right_shift(x, s),
}


def _functions(dtype: str, format: str) -> Mapping[str, _Function]:
    functions = dict(ANY)
    if format == "onnx" or dtype != "uint16":
        functions |= REDUCTIONS
    if dtype == "int32":
        functions["truncate_mod"] = lambda x, y, d, s: tf.raw_ops.TruncateMod(x=x, y=d)
    if format == "onnx" or dtype not in ("uint32", "int64"):
        functions |= DIVISIONS
        functions |= {} if dtype == "int64" else BITS
        functions |= {} if dtype.startswith("u") else SIGNED
    return functions


def _samples(dtype: str) -> dict[str, np.ndarray]:
    limits = np.iinfo(dtype)
    values = {limits.min, limits.min + 1, -7, -1, 0, 1, 3, 100, limits.max - 1, limits.max}
    values = np.array(sorted(v for v in values if v >= limits.min), dtype)
    x, y = (pair.reshape(1, -1) for pair in np.meshgrid(values, values))
    # The lowest integer by -1 is an error of the processor from 32 bits on.
    divisor = np.where(np.isin(y, [0, *([-1] if limits.min < 0 else [])]), np.array(3, dtype), y)
    bits = (np.arange(x.size).reshape(x.shape) % limits.bits).astype(dtype)
    return {"x": x, "y": y, "d": divisor, "s": bits}


class Arithmetic(keras.layers.Layer):
    """All functions of four tensors."""

    def __init__(self, functions: Mapping[str, _Function]) -> None:
        super().__init__()
        self.functions = functions

    def call(self, *inputs: Any) -> Any:
        return {name: function(*inputs) for name, function in self.functions.items()}


@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("dtype", only(DTYPES, "int8"))
def test_integers_wrap_around_as_in_tensorflow(dtype: str, format: str, tmp_path: Path) -> None:
    samples, path = _samples(dtype), tmp_path / "model"
    inputs = [keras.Input(v.shape[1:], dtype=dtype, name=k) for k, v in samples.items()]
    model = keras.Model(inputs, Arithmetic(_functions(dtype, format))(*inputs))
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run(samples)
    for name, expected in model(list(samples.values())).items():
        np.testing.assert_array_equal(actual[name], expected, err_msg=name)
        assert actual[name].dtype == expected.dtype.as_numpy_dtype


# Of 2^62 + 1, 2^53 + 1 and their likes in int32, worked out by hand.
REDUCED = {
    "int64": ([2**62 + 1, 2**62, 3, 2**53 + 1], -(2**63) + 2**53 + 5, 3 * 2**62),
    "int32": ([2**30 + 1, 2**30, 3, 2**24 + 1], -(2**31) + 2**24 + 5, 3 * 2**30),
}


@pytest.mark.parametrize("dtype", REDUCED)
def test_sums_and_products_of_large_integers_in_onnx(dtype: str, tmp_path: Path) -> None:
    """The product is ``(2^n + 1) 2^n 3 (2^k + 1)``, of which ``3 2^n`` remains."""
    values, total, product = REDUCED[dtype]
    x, path = keras.Input((2, 2), dtype=dtype, name="x"), tmp_path / "model"
    functions = {
        "sum": lambda x: tf.reduce_sum(x, [1, 2]),
        "kept": lambda x: tf.reduce_sum(x, [-1, -2], keepdims=True),
        "product": lambda x: tf.reduce_prod(x, [1, 2]),
        "mean": lambda x: tf.reduce_mean(x, [1, 2]),
        "trues": lambda x: tf.reduce_sum(tf.cast(x > 3, dtype), [1, 2]),
    }
    model = keras.Model(x, Arithmetic(functions)(x))
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), path)
    sample = np.array(values, dtype).reshape(1, 2, 2)
    actual = open_runner(path, "onnx", file.inputs, file.outputs).run({"x": sample})
    assert actual["sum"].tolist() == [total]
    assert actual["kept"].tolist() == [[[total]]]
    wrapped = (product + 2**63) % 2**64 - 2**63 if dtype == "int64" else product - 2**32
    assert actual["product"].tolist() == [wrapped]
    assert actual["mean"].tolist() == [-(-total // 4)]
    assert actual["trues"].tolist() == [3]
    # A count of truth values is exact as it is.
    assert file.achieved["operators"]["ReduceSum"] == 1


@pytest.mark.parametrize("format", CONVERTERS)
def test_negative_numbers_cast_to_unsigned_integers(format: str, tmp_path: Path) -> None:
    """By way of int32, because TensorFlow's own cast of floats depends on the position."""
    x = keras.Input((4,), name="x")
    casts = Arithmetic({t: lambda x, t=t: tf.cast(tf.cast(x, "int32"), t) for t in DTYPES[:4]})
    casts.functions["uint32"] = lambda x: tf.cast(x, "uint32")
    model, path = keras.Model(x, casts(x)), tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    sample = np.array([[-1.5, -129, 200, 255]], "float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": sample})
    by_hand = {
        "int8": [-1, 127, -56, -1],
        "uint8": [255, 127, 200, 255],
        "int16": [-1, -129, 200, 255],
        "uint16": [65535, 65407, 200, 255],
        "uint32": [4294967295, 4294967167, 200, 255],
    }
    for name, values in by_hand.items():
        np.testing.assert_array_equal(actual[name], [values], err_msg=name)
