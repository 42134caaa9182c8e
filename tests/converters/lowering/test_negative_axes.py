"""Axes that count from the end, in every operation that has an axis, compared with TensorFlow.

All operations of a group are in one model. The sizes of axes differ, so that no two can be
exchanged unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

Functions = Mapping[str, Callable[..., Any]]
CONVERTERS = {"tflite": tflite, "onnx": onnx}
ROWS, SIZES = 2, (3, 4, 5)
GENERATOR = np.random.default_rng(6)
# Numbers, positions among five of them for each vector, and positions for each sample.
INPUTS = {
    "x": GENERATOR.normal(size=(ROWS, *SIZES)).astype("float32"),
    "n": GENERATOR.integers(0, 5, (ROWS, 3, 4, 2)).astype("int32"),
    "m": GENERATOR.integers(1, 3, (ROWS, 6)).astype("int32"),
}
TABLE = np.arange(60, dtype="float32").reshape(3, 4, 5)


def _in_loop(x: Any, n: Any, m: Any) -> Any:
    def step(k: Any, total: Any) -> Any:
        return k + 1, total + tf.gather(x, n, axis=-1, batch_dims=-1)

    start = 0, tf.zeros_like(n, tf.float32)
    return tf.while_loop(lambda k, _: k < 3, step, start)[1]


def _of_each_sample(mapped: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda x, n, m: mapped(
        lambda item: tf.gather(item[0], item[1], axis=-1, batch_dims=-1), (x, n), **options
    )


GATHERS: Functions = {
    "last": lambda x, n, m: tf.gather(x, n, axis=-1, batch_dims=-1),
    "axis_3": lambda x, n, m: tf.gather(x, n, axis=3, batch_dims=-1),
    "batch_3": lambda x, n, m: tf.gather(x, n, axis=-1, batch_dims=3),
    "batch_2": lambda x, n, m: tf.gather(x, n, axis=-1, batch_dims=-2),
    "batch_2_axis_2": lambda x, n, m: tf.gather(x, n % 4, axis=-2, batch_dims=-2),
    "two_axes_of_indices": lambda x, n, m: tf.gather(x, n[:, :, 0] % 3, axis=-3, batch_dims=-2),
    **{
        f"of_samples_{batch}_{axis}".replace("-", "m"): (
            lambda x, n, m, batch=batch, axis=axis: tf.gather(x, m, axis=axis, batch_dims=batch)
        )
        for batch in (1, -1)
        for axis in (1, 2, 3, -1, -2, -3)
    },
    "axis_of_batch": lambda x, n, m: tf.gather(x, m, batch_dims=-1),
    "no_batch": lambda x, n, m: tf.gather(x, [[1, 0], [2, 2]], axis=-2, batch_dims=-2),
    "number": lambda x, n, m: tf.gather(x, 2, axis=-1),
    "of_integers": lambda x, n, m: tf.gather(n, n % 2, axis=-1, batch_dims=-1),
    "of_conditions": lambda x, n, m: tf.gather(x > 0, n, axis=-1, batch_dims=-1),
    "of_constant": lambda x, n, m: tf.gather(
        tf.tile(TABLE[None], [tf.shape(n)[0], 1, 1, 1]), n, axis=-1, batch_dims=-1
    ),
    "at_constant": lambda x, n, m: tf.gather(
        x, tf.tile([[[2, 0]]], [tf.shape(x)[0], 3, 1]), axis=-1, batch_dims=-1
    ),
    "in_loop": _in_loop,
    "in_map": _of_each_sample(tf.map_fn, fn_output_signature=tf.float32),
    "in_vectorized_map": _of_each_sample(tf.vectorized_map),
    "batch_gather": lambda x, n, m: tf.compat.v1.batch_gather(x, n),
    "gather_nd": lambda x, n, m: tf.gather_nd(x, n % 3, batch_dims=2),
    "along_last": lambda x, n, m: ops.take_along_axis(x, n, axis=-1),
    "along_middle": lambda x, n, m: ops.take_along_axis(x, n[..., :1] % 4, axis=-2),
    "along_first": lambda x, n, m: ops.take_along_axis(x, n[..., :1] % 3, axis=-3),
    "along_of_numpy": lambda x, n, m: tf.experimental.numpy.take_along_axis(
        x, n[..., :1] % 4, axis=-2
    ),
    "take": lambda x, n, m: ops.take(x, [2, 0, -1], axis=-2),
}
ORDERS: Functions = {
    "reverse_last": lambda x, n, m: tf.reverse(x, [-1]),
    "reverse_two": lambda x, n, m: tf.reverse(x, [-1, -3]),
    "reverse_integers": lambda x, n, m: tf.reverse(n, [-3, 3]),
    "reverse_none": lambda x, n, m: tf.reverse(x, []),
    "reverse_three": lambda x, n, m: tf.reverse(x, [-1, 1, -2]) * x,
    "flip": lambda x, n, m: ops.flip(x, axis=(-2, -1)),
    "rotated": lambda x, n, m: ops.rot90(x, k=-1, axes=(-2, -1)),
    "sequences_first": lambda x, n, m: tf.reverse_sequence(x, m[:, 0], 1, 0),
    "sequences_middle": lambda x, n, m: tf.reverse_sequence(x, m[:, 0], 2, 0),
    "sequences_last": lambda x, n, m: tf.reverse_sequence(x, m[:, 0] + 2, 3, 0),
    "sequences_of_rows": lambda x, n, m: tf.reverse_sequence(x, tf.range(1, 4), 3, 1),
    "transposed": lambda x, n, m: tf.transpose(x, [0, -1, -2, 1]),
    "transposed_by_keras": lambda x, n, m: ops.transpose(x, (0, -1, -3, 2)),
    "moved": lambda x, n, m: ops.moveaxis(x, (-1, -2), (1, -1)),
    "swapped": lambda x, n, m: ops.swapaxes(x, -1, -3),
    "rolled": lambda x, n, m: tf.roll(x, [-1, 2], [-2, -1]),
    "rolled_back": lambda x, n, m: ops.roll(x, -1, axis=-3),
    "shifted": lambda x, n, m: tf.signal.fftshift(x, axes=[-1, -2]),
    "sorted": lambda x, n, m: tf.sort(x, axis=-2),
    "sorted_down": lambda x, n, m: tf.argsort(x, axis=-3, direction="DESCENDING"),
    "argsort": lambda x, n, m: ops.argsort(x, axis=-2),
    "top": lambda x, n, m: tf.math.top_k(x, 2)[1],
    "argmax": lambda x, n, m: tf.argmax(x, axis=-2),
    "argmin": lambda x, n, m: ops.argmin(x, axis=-3, keepdims=True),
    "median": lambda x, n, m: ops.median(x, axis=-2),
    "one_hot": lambda x, n, m: tf.one_hot(n, 5, axis=-1),
}
PARTS: Functions = {
    "concatenated": lambda x, n, m: tf.concat([x, x * 2, x[:, :, :1]], -2),
    "concatenated_first": lambda x, n, m: tf.concat([x, x * 2], -3),
    "stacked": lambda x, n, m: tf.stack([x, x * 2], -1),
    "stacked_first": lambda x, n, m: tf.stack([x, x * 2], -4),
    "unstacked": lambda x, n, m: tf.unstack(x, axis=-2)[1],
    "split": lambda x, n, m: tf.split(x, 2, -2)[1],
    "split_by_sizes": lambda x, n, m: tf.split(x, [1, 2, -1], -1)[2],
    "split_at": lambda x, n, m: ops.split(x, [1, 3], axis=-1)[1],
    "array_split": lambda x, n, m: ops.array_split(x, 2, axis=-1)[1],
    "repeated": lambda x, n, m: tf.repeat(x, [1, 0, 2, 1], axis=-2),
    "repeated_equally": lambda x, n, m: ops.repeat(x, 3, axis=-3),
    "squeezed": lambda x, n, m: tf.squeeze(x[:, :1, :, :1], [-1, -3]),
    "expanded": lambda x, n, m: tf.expand_dims(x, -4),
    "expanded_twice": lambda x, n, m: ops.expand_dims(x, (-1, -3)),
    "sliced": lambda x, n, m: x[:, -2:, ..., -4:-1],
    "sliced_backwards": lambda x, n, m: x[:, ::-1, -1::-2, -4::2],
    "sliced_outside": lambda x, n, m: x[:, -9:, -9:2, -1:-9:-1],
    "sliced_by_numbers": lambda x, n, m: tf.strided_slice(
        x, [0, -1, -1, -1], [9, -4, -9, 0], [1, -1, -2, -1]
    ),
    "elements": lambda x, n, m: x[:, -1, -3] * x[..., 0, -1, -1:],
    "frames": lambda x, n, m: tf.signal.frame(x, 2, 1, axis=-2),
}
SUMS: Functions = {
    "cumulative": lambda x, n, m: tf.cumsum(x, axis=-2, exclusive=True),
    "cumulative_back": lambda x, n, m: tf.cumsum(x, axis=-3, reverse=True),
    "products": lambda x, n, m: tf.math.cumprod(x, axis=-3, reverse=True, exclusive=True),
    "exponentials": lambda x, n, m: tf.math.cumulative_logsumexp(x, axis=-2),
    "differences": lambda x, n, m: ops.diff(x, axis=-2),
    "sum": lambda x, n, m: tf.reduce_sum(x, [-1, -3]),
    "mean": lambda x, n, m: tf.reduce_mean(x, [-2, 1], keepdims=True),
    "max_min": lambda x, n, m: tf.reduce_max(x, -2) - tf.reduce_min(x, -2),
    "product": lambda x, n, m: tf.reduce_prod(x, [-1, -3]),
    "any": lambda x, n, m: tf.reduce_any(x > 0.7, [-2]),
    "all": lambda x, n, m: tf.reduce_all(x > -1, -2),
    "logsumexp": lambda x, n, m: tf.reduce_logsumexp(x, -2),
    "deviation": lambda x, n, m: tf.math.reduce_std(x, [-1, -3]),
    "norm": lambda x, n, m: tf.norm(x, ord=np.inf, axis=[-2, -1]),
    "norm_of_keras": lambda x, n, m: ops.norm(x, axis=-2, keepdims=True),
    "unit": lambda x, n, m: tf.math.l2_normalize(x, axis=-2),
    "softmax": lambda x, n, m: tf.nn.softmax(x, axis=-2),
    "log_softmax": lambda x, n, m: tf.nn.log_softmax(x, axis=-3),
    "softmax_layer": lambda x, n, m: layers.Softmax(axis=(-2, -1))(x),
    "dot_layer": lambda x, n, m: layers.Dot((-1, -2))([x[:, 0], ops.swapaxes(x[:, 1], -1, -2)]),
    "integers": lambda x, n, m: tf.reduce_sum(n, [-1, -3]),
    "tensordot": lambda x, n, m: tf.tensordot(x, TABLE, [[-1, -2], [-1, -2]]),
    "cross": lambda x, n, m: ops.cross(x, ops.flip(x, 1), axis=-3),
    "diagonal": lambda x, n, m: ops.diagonal(x, offset=-1, axis1=-2, axis2=-1),
    "trace": lambda x, n, m: ops.trace(x, axis1=-2, axis2=-1),
    "diagonal_matrix": lambda x, n, m: tf.linalg.diag(x[:, 0, :, 0], k=-1),
    "band": lambda x, n, m: tf.linalg.band_part(x, 1, -1),
}
GROUPS = {"gathers": GATHERS, "orders": ORDERS, "parts": PARTS, "sums": SUMS}


class Several(keras.layers.Layer):
    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    def call(self, x: Any, n: Any, m: Any) -> Any:
        return {name: function(x, n, m) for name, function in self.functions.items()}


def _model(functions: Functions) -> Any:
    inputs = [
        keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in INPUTS.items()
    ]
    return keras.Model(inputs, Several(functions)(*inputs))


def _compare(model: Any, expected: Mapping[str, Any], format: str, path: Path) -> None:
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run(INPUTS)
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        assert actual[name].dtype == value.dtype.as_numpy_dtype, name
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("group", GROUPS)
def test_results_as_in_tensorflow(group: str, format: str, tmp_path: Path) -> None:
    model = _model(GROUPS[group])
    _compare(model, model(list(INPUTS.values())), format, tmp_path / "model")


def test_gathers_of_a_folder(tmp_path: Path) -> None:
    model = _model({name: GATHERS[name] for name in ("last", "batch_2", "of_samples_1_m1")})
    model.export(tmp_path / "folder", verbose=False)
    loaded = load_model(audit_file(tmp_path / "folder")).model
    _compare(loaded, model(list(INPUTS.values())), "onnx", tmp_path / "model")
