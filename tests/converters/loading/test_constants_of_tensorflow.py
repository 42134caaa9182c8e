"""Functions of TensorFlow with constants or lists as first arguments, saved by tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model


def _samples(x: Any) -> Any:
    return tf.shape(x)[0]


ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def _positions(x: Any) -> Any:
    """A slice that ends at a tensor, which is saved as a call of ``tf.strided_slice``."""
    return tf.constant([[[float(i + j) for j in range(4)] for i in range(9)]])[:, : tf.shape(x)[1]]


def _ids(x: Any) -> Any:
    return tf.cast(x > 0, "int32")


CALLS: Mapping[str, Callable[[Any], Any]] = {
    "tile": lambda x: tf.tile([[-1.0, 0.0, 1.0]], [_samples(x), 1]),
    "tile of three axes": lambda x: tf.tile([[[-1.0, 0.0]]], [_samples(x), tf.shape(x)[1], 1]),
    "tile by keyword": lambda x: tf.tile(input=[[5.0, 6.0]], multiples=[_samples(x), 1]),
    "tile by stacked sizes": lambda x: tf.tile([[1.0, 2.0]], tf.stack([_samples(x), 2])),
    "tile and concat": lambda x: tf.concat(
        [tf.tile([[-1.0, 0.0, 1.0]], [_samples(x), 1]), x[:, 0]], 1
    ),
    "repeat": lambda x: tf.repeat([[1.0, 2.0]], _samples(x), axis=0),
    "pad": lambda x: tf.pad([[1.0, 2.0]], [[0, _samples(x) - 1], [0, 1]]),
    "slice": lambda x: (
        x + tf.slice([[[float(i)] for i in range(7)]], [0, 0, 0], [1, tf.shape(x)[1], 1])
    ),
    "matmul": lambda x: tf.matmul([[1.0, 0.0, 2.0, 0.0, 0.0, 1.0]], x),
    "searchsorted": lambda x: tf.searchsorted(
        tf.tile([[-1.0, 0.0, 1.0]], [_samples(x), 1]), x[:, 0]
    ),
    "stack of lists": lambda x: tf.stack([[x[:, 0], x[:, 1]]], 0),
    "sum of one tensor": lambda x: tf.reduce_sum([x], 0),
    "gather of two rows": lambda x: tf.gather([[1.0, 2.0], [3.0, 4.0]], _ids(x)),
    "part of a constant": lambda x: x + _positions(x),
    "parts of two constants": lambda x: (
        x * _positions(x) + tf.constant(ROWS)[:, tf.newaxis][: _samples(x), :, :1]
    ),
    "element of a constant": lambda x: tf.constant(ROWS)[_samples(x) - 1],
    "sum with a column": lambda x: x[:, :4] + np.array([[1.0], [2.0], [3.0], [4.0]], "float32"),
    "sum with a row": lambda x: tf.add(x[:, :4, :1], np.array([1.0, 2.0, 3.0, 4.0], "float32")),
    "concat of lists": lambda x: tf.concat([[x[0, 0, 0]], [1.0, 2.0]], 0),
    "stack of lists and rows": lambda x: tf.stack(
        [[[1.0, x[0, 0, 0]], [1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], 1
    ),
    "tensor of a list": lambda x: tf.convert_to_tensor([[x[0, 0, 0], 1.0], [0.0, 1.0]]),
    "tensor of a list of a dtype": lambda x: tf.convert_to_tensor(
        [x[:, 0], x[:, 1]], dtype=tf.float32
    ),
    "tensor of a value by name": lambda x: tf.convert_to_tensor(value=x, dtype_hint=tf.int32),
    "stack of one": lambda x: tf.stack([x], 1),
    "add_n of one": lambda x: tf.add_n([x]),
    "global norm of one": lambda x: tf.linalg.global_norm([x]),
    "identity_n of one": lambda x: tf.identity_n([x])[0],
    "transpose of one": lambda x: tf.transpose([x]),
    "expand_dims of one": lambda x: tf.expand_dims([x], 0),
    "table as array": lambda x: tf.nn.embedding_lookup(np.array(ROWS, "float32"), _ids(x)),
    "table as tensor": lambda x: tf.nn.embedding_lookup(tf.constant(ROWS), _ids(x), max_norm=2.0),
    "list of one table": lambda x: tf.nn.embedding_lookup([ROWS], _ids(x)),
    "list of one tensor": lambda x: tf.nn.embedding_lookup(params=[tf.constant(ROWS)], ids=_ids(x)),
    "table in a Lambda": tf_keras.layers.Lambda(
        lambda x: tf.nn.embedding_lookup(
            tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.cast(x > 0, tf.int32)
        )
    ),
}


def _saved(call: Callable[[Any], Any], folder: Path) -> tuple[Any, Path]:
    inputs = tf_keras.Input((6, 4))
    model = tf_keras.Model(inputs, call(inputs))
    path = folder / "model.h5"
    model.save(path)
    return model, path


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_constants_keep_their_axes(call: Callable[[Any], Any], tmp_path: Path) -> None:
    model, path = _saved(call, tmp_path)
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    expected = np.asarray(model(x))
    actual = np.asarray(load_model(audit_file(path)).model(x))
    assert actual.dtype == expected.dtype
    # assert_allclose alone would accept results that broadcast.
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


TABLES: Mapping[str, Callable[[Any], Any]] = {
    "list": lambda x: tf.nn.embedding_lookup(ROWS, _ids(x)),
    "tuple": lambda x: tf.nn.embedding_lookup(tuple(map(tuple, ROWS)), _ids(x)),
    "list by keyword": lambda x: tf.nn.embedding_lookup(params=ROWS, ids=_ids(x), max_norm=1.0),
    "list of tensors": lambda x: tf.nn.embedding_lookup([x[0], x[1]], _ids(x)),
    "list in a Lambda": tf_keras.layers.Lambda(
        lambda x: tf.nn.embedding_lookup([[1.0, 2.0], [3.0, 4.0]], tf.cast(x > 0, tf.int32))
    ),
}


@pytest.mark.parametrize("call", TABLES.values(), ids=list(TABLES))
def test_several_tables_are_refused(call: Callable[[Any], Any], tmp_path: Path) -> None:
    """TensorFlow takes a list as several tables and a tuple as one, and their files are equal."""
    _, path = _saved(call, tmp_path)
    with pytest.raises((UnsafeModelError, UnsupportedModelError), match="a list or a tuple"):
        load_model(audit_file(path))


def test_a_grid_of_which_the_file_has_one_tensor_is_refused(tmp_path: Path) -> None:
    """tf_keras loads the file and computes a grid of one axis."""
    model, path = _saved(lambda x: tf.meshgrid(x[0, 0], x[0, :, 0])[0], tmp_path)
    assert model.output_shape == (6, 4)
    assert tf_keras.models.load_model(path).output_shape == (4,)
    with pytest.raises(UnsupportedModelError, match="only the first of its tensors"):
        load_model(audit_file(path))


def test_files_of_lists_and_tuples_are_equal() -> None:
    configs, shapes = [], []
    for name in ("list", "tuple"):
        inputs = tf_keras.Input((6, 4), name="x")
        model = tf_keras.Model(inputs, TABLES[name](inputs))
        [*_, lookup] = model.get_config()["layers"]
        configs.append([_constants(lookup["inbound_nodes"])])
        shapes.append(model.output_shape)
    assert configs[0] == configs[1]
    assert shapes == [(None, 6, 4), (None, 6, 4, 2)]
    assert configs[0] == [[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]]


def _constants(node: Any) -> Any:
    """The values of the constants of a stored call, as lists."""
    is_constant = isinstance(node[0], str)
    return node[2] if is_constant else [_constants(part) for part in node]
