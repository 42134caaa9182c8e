"""Functions of TensorFlow on integers, in files of tf_keras: results have the type of operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

ROW = [100, 3, 4, 5]
CALLS: Sequence[Callable[[Any, str], Any]] = (
    lambda n, _: tf.reduce_mean(n, 1),
    lambda n, _: tf.reduce_mean(n, [1, 2], keepdims=True),
    lambda n, _: tf.reduce_sum(n, 1),
    lambda n, _: tf.reduce_prod(n, 1),
    lambda n, _: tf.compat.v1.div(n, 4),
    lambda n, dtype: n + np.array(ROW, dtype),
    lambda n, dtype: tf.add(np.array(ROW, dtype), n),
    lambda n, dtype: tf.where(n > 2, np.array(ROW, dtype), n) * 3,
    lambda n, dtype: tf.maximum(n, np.array(ROW, dtype)) * 3,
)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8"])
def test_integers_keep_their_type(dtype: str, tmp_path: Path) -> None:
    """Keras divides integers into floats and sums small ones as larger ones, which do not wrap."""
    x = tf_keras.Input((3, 4), dtype=dtype)
    model = tf_keras.Model(x, [call(x, dtype) for call in CALLS])
    model.save(tmp_path / "model.h5")
    limits = np.iinfo(dtype)
    samples = np.random.default_rng(0).integers(max(limits.min, -120), 120, (4, 3, 4), dtype)
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    for actual, expected in zip(loaded(samples), model(samples), strict=True):
        assert keras.backend.standardize_dtype(actual.dtype) == expected.dtype.name == dtype
        np.testing.assert_array_equal(actual, expected)


def _divided_means(x: Any) -> Any:
    n = tf_keras.backend.cast(x, "int32")
    return tf_keras.backend.mean(n, axis=1)


def test_integers_of_a_lambda_layer_keep_their_type(tmp_path: Path) -> None:
    x = tf_keras.Input((2, 1))
    means = tf_keras.layers.Lambda(_divided_means)(x)
    model = tf_keras.Model(x, tf_keras.layers.Lambda(lambda n: n)(means))
    model.save(tmp_path / "model.h5")
    samples = np.array([[[3.0], [4.0]], [[-3.0], [-4.0]]], "float32")
    # The means are 3.5 and -3.5, without their fractions.
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    assert (
        np.asarray(loaded(samples)).tolist() == np.asarray(model(samples)).tolist() == [[3], [-3]]
    )
