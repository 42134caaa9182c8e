"""Functions of TensorFlow with constants as first arguments, saved by tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model


def _samples(x: Any) -> Any:
    return tf.shape(x)[0]


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
    "gather of two rows": lambda x: tf.gather([[1.0, 2.0], [3.0, 4.0]], tf.cast(x > 0, "int32")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_constants_keep_their_axes(call: Callable[[Any], Any], tmp_path: Path) -> None:
    inputs = tf_keras.Input((6, 4))
    model = tf_keras.Model(inputs, call(inputs))
    path = tmp_path / "model.h5"
    model.save(path)
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    expected = np.asarray(model(x))
    actual = np.asarray(load_model(audit_file(path)).model(x))
    assert actual.dtype == expected.dtype
    # assert_allclose alone would accept results that broadcast.
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
