"""Operations with integers and truth values of every type, compared with TensorFlow.

The values are random ones of the whole range, most of which float32 does not have.
"""

from collections.abc import Callable, Mapping
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
from edgeattn_converters.lowering import wide_quotients
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "int64", "bool")
_Functions = Mapping[str, Callable[[Any], Any]]
# The third one is empty, and a row is in none.
SEGMENTS = (0, 3, 0, -1, 1, 3)
# Of a tensor of 6 x 4.
MOVES: _Functions = {
    "gathered": lambda x: tf.gather(x, [3, 0, 0], axis=1),
    "gathered_by_sample": lambda x: tf.gather(x, tf.constant([[0, 2]]), batch_dims=1),
    "repeated": lambda x: tf.broadcast_to(x[:, None], [1, 3, 6, 4]),
    "filled": lambda x: tf.fill([1, 3], x[0, 0, 0]),
    "updated": lambda x: tf.tensor_scatter_nd_update(x[0], [[0], [2]], x[0, 3:5])[None],
    "reversed": lambda x: tf.reverse_sequence(x, [3], seq_axis=1),
    "band": lambda x: ops.tril(x),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "slice": lambda x: tf.slice(x, [0, 1, 1], [1, 3, 2]),
    "split": lambda x: ops.split(x, 3, axis=1)[1],
    "split_by_sizes": lambda x: tf.split(x, [2, -1, 1], 1)[1],
    "unstacked": lambda x: tf.unstack(x, axis=-1)[2],
    "padded": lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2]], constant_values=tf.cast(1, x.dtype)),
    "mirrored": lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2]], "REFLECT"),
    "blocks": lambda x: tf.nn.space_to_depth(x[..., None], 2),
    "rows": lambda x: tf.nn.depth_to_space(tf.reshape(x, [-1, 2, 3, 4]), 2),
    "position": lambda x: tf.argmax(x, -1),
    "lowest_position": lambda x: tf.argmin(x, 1),
}
ARITHMETIC: _Functions = {
    "product": lambda x: tf.matmul(x, x, transpose_b=True),
    "pool": lambda x: tf.nn.max_pool2d(x[..., None], [2, 3], [2, 1], "VALID"),
    "pool_same": lambda x: tf.nn.max_pool2d(x[..., None], 3, 2, "SAME"),
    "larger": lambda x: ops.image.resize(x[..., None], (12, 5), interpolation="nearest"),
    "relu6": tf.nn.relu6,
    "sum_of_rows": lambda x: tf.tensor_scatter_nd_add(x[0], [[0], [2]], x[0, 3:5])[None],
    "difference_of_rows": lambda x: tf.tensor_scatter_nd_sub(x[0], [[0], [2]], x[0, 3:5])[None],
    "larger_rows": lambda x: tf.tensor_scatter_nd_max(x[0], [[0], [2]], x[0, 3:5])[None],
    "smaller_rows": lambda x: tf.tensor_scatter_nd_min(x[0], [[0], [2]], x[0, 3:5])[None],
    "sum_of_segment": lambda x: tf.math.unsorted_segment_sum(x[0], SEGMENTS, 4)[None],
    "largest_of_segment": lambda x: tf.math.unsorted_segment_max(x[0], SEGMENTS, 4)[None],
    "smallest_of_segment": lambda x: tf.math.unsorted_segment_min(x[0], SEGMENTS, 4)[None],
    "blocks_as_samples": lambda x: tf.reshape(
        tf.space_to_batch(x[..., None], [2, 3], [[0, 0], [1, 1]]), [-1, 12, 3]
    ),
    "samples_as_blocks": lambda x: tf.batch_to_space(
        tf.reshape(x, [4, 3, 2, 1]), [2, 2], [[1, 0], [0, 1]]
    )[..., 0],
}
SIGNED: _Functions = {"absolute": tf.abs, "sign": tf.sign, "cube": lambda x: x**3}
WIDE: _Functions = {
    "contraction": lambda x: tf.einsum("bij,bkj->bik", x, x),
    "product_with_constant": lambda x: tf.tensordot(x, tf.ones([4, 2], x.dtype), 1),
    "quotient": lambda x: x // 7,
    "quotients": lambda x: x // tf.bitwise.bitwise_or(x[:, ::-1], tf.ones_like(x)),
    "truncated": lambda x: tf.truncatediv(x, tf.constant(-(10**9), x.dtype)),
    "shift": lambda x: tf.bitwise.left_shift(x, _counts(x)),
    "shift_back": lambda x: tf.bitwise.right_shift(x, _counts(x)),
    "common_bits": lambda x: tf.bitwise.bitwise_and(x, x[:, ::-1]),
    "other_bits": lambda x: tf.bitwise.bitwise_xor(x, x[:, ::-1]),
}
IMAGES: _Functions = {
    "convolution": lambda x: tf.nn.conv2d(x[..., None], _kernel(3, 2, 1, 2), [2, 1], "SAME"),
    "dilated": lambda x: tf.nn.conv2d(
        x[:, None], _kernel(1, 2, 4, 3), 1, "VALID", dilations=[1, 4]
    ),
}


def _counts(x: Any) -> Any:
    """The numbers of bits to shift by, up to all but one."""
    return tf.constant(np.linspace(0, 8 * x.dtype.size - 1, 24, dtype=int).reshape(6, 4), x.dtype)


def _kernel(*shape: int) -> Any:
    return tf.constant(np.arange(np.prod(shape)).reshape(shape) - 3, tf.int32)


class Function(keras.layers.Layer):
    """All functions of a tensor."""

    def __init__(self, functions: _Functions) -> None:
        super().__init__()
        self.functions = functions

    def call(self, x: Any) -> Any:
        return {name: function(x) for name, function in self.functions.items()}


def _functions(dtype: str) -> _Functions:
    if dtype == "bool":
        return {name: f for name, f in MOVES.items() if name != "updated"}
    functions = {**MOVES, **ARITHMETIC}
    # TensorFlow has no maxima of windows of other narrow integers, nor their products.
    if dtype in ("int8", "uint8", "uint16"):
        functions.pop("product")
    return {
        **functions,
        **({} if dtype.startswith("u") else SIGNED),
        **(WIDE if dtype in ("int32", "int64") else {}),
        **(IMAGES if dtype == "int32" else {}),
    }


def _sample(dtype: str) -> np.ndarray:
    random = np.random.default_rng(2)
    if dtype == "bool":
        return random.random((1, 6, 4)) > 0.5
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, (1, 6, 4), dtype, endpoint=True)


def _check(dtype: str, format: str, path: Path) -> None:
    x, sample = keras.Input((6, 4), dtype=dtype, name="x"), _sample(dtype)
    model = keras.Model(x, Function(_functions(dtype))(x))
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": sample})
    for name, expected in model(sample).items():
        np.testing.assert_array_equal(actual[name], expected, err_msg=name)
        assert actual[name].dtype == expected.dtype.as_numpy_dtype, name


@pytest.mark.parametrize("dtype", only(DTYPES, "uint16"))
def test_integers_in_tflite(dtype: str, tmp_path: Path) -> None:
    _check(dtype, "tflite", tmp_path / "m.tflite")


@pytest.mark.parametrize("dtype", only(DTYPES, "int16"))
def test_integers_in_onnx(dtype: str, tmp_path: Path) -> None:
    _check(dtype, "onnx", tmp_path / "m.onnx")


def test_quotients_of_large_integers() -> None:
    """Python computes them exactly."""
    ends = [2**63 - 1, -(2**63 - 1), -(2**63), 2**62, 2**53 + 1, 2**32, -7, -1, 1, 3, 0]
    pairs = [(x, y) for x in ends for y in ends if y and (x, y) != (-(2**63), -1)]
    x, y = (tf.constant(values, tf.int64) for values in zip(*pairs, strict=True))
    expected = [x // y for x, y in pairs]
    np.testing.assert_array_equal(wide_quotients.floor_division(x, y), expected)
    expected = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in pairs]
    np.testing.assert_array_equal(wide_quotients.truncated_division(x, y), expected)
