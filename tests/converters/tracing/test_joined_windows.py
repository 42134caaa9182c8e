"""Attention in each window of a sample, whose windows are joined with the samples."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import layers

from edgeattn_converters.tracing.specs import with_free_batch
from edgeattn_converters.tracing.trace import interface_of

WINDOWS, STEPS, FEATURES = 4, 6, 3


class Windows(layers.Layer):  # type: ignore[misc]
    """Takes the sizes from the tensor, as programs for any number of features do."""

    def __init__(self, free: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.free, self.score = free, layers.Dense(FEATURES)

    def call(self, x: Any) -> Any:
        features = tf.shape(x)[-1] if self.free else FEATURES
        joined = tf.reshape(x, (-1, STEPS, features))
        query = tf.ensure_shape(
            self.score(tf.ensure_shape(joined, (None, None, FEATURES))), joined.shape
        )
        weights = tf.nn.softmax(tf.matmul(query, joined, transpose_b=True))
        return tf.reshape(tf.matmul(weights, joined), (-1, WINDOWS, STEPS * FEATURES))


@pytest.mark.parametrize("free", [True, False])
def test_the_first_axis_is_the_reason(free: bool) -> None:
    """Not the values of the inputs, on which no size depends."""
    x = keras.Input((WINDOWS, STEPS, FEATURES))
    interface = interface_of(keras.Model(x, layers.Dense(2)(Windows(free, name="own")(x))))
    assert not interface.attention
    [item] = interface.doubtful
    assert (item.layer, item.reason) == ("own", "the first axis of its map is not the batch axis")


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ((2, 5, 7), [None, 5, 7]),
        ((8, 5, 7), [None, 5, 7]),
        ((8, 2, 7), [None, None, 7]),  # another axis may be that of the samples
        ((2, 2, 7), [None, 2, 7]),
        ((None, 5, 7), [None, None, None]),
    ],
)
def test_sizes_of_two_samples(fixed: tuple[int | None, ...], expected: list[int | None]) -> None:
    shape = with_free_batch(tf.TensorShape([None] * 3), tf.TensorShape(fixed), 2)
    assert shape.as_list() == expected
