"""Cumulative products and sums of exponentials, in as many steps as the logarithm of the length."""

import math
from collections.abc import Callable, Mapping
from typing import Any

_Attributes = Mapping[str, Any]


def cumulative_product(x: Any, axis: Any, *, attributes: _Attributes) -> Any:
    return _cumulated(x, axis, attributes, lambda one, other: one * other, 1.0)


def cumulative_logsumexp(x: Any, axis: Any, *, attributes: _Attributes) -> Any:
    """Logarithms of sums of exponentials; that of no value is -infinity."""
    return _cumulated(x, axis, attributes, _log_of_sum, -math.inf)


def _log_of_sum(one: Any, other: Any) -> Any:
    """``log(exp(one) + exp(other))``; two infinities, whose difference is NaN, are kept."""
    import tensorflow as tf

    largest, least = tf.maximum(one, other), tf.minimum(one, other)
    total = largest + tf.math.log1p(tf.exp(least - largest))
    return tf.where(tf.math.is_inf(largest), largest, total)


def _cumulated(
    x: Any, axis: Any, attributes: _Attributes, combine: Callable[[Any, Any], Any], neutral: float
) -> Any:
    """Results for 2, 4, 8 ... neighbours."""
    import tensorflow as tf

    position = int(tf.get_static_value(axis)) % x.shape.rank
    length = x.shape[position]

    def shifted(values: Any, steps: int) -> Any:
        before = [slice(None)] * position
        kept = values[(*before, slice(None, length - steps))]
        first = values[(*before, slice(None, steps))]
        return tf.concat([tf.fill(tf.shape(first), tf.cast(neutral, x.dtype)), kept], position)

    if attributes["reverse"].b:
        x = tf.reverse(x, [position])
    if attributes["exclusive"].b:
        x = shifted(x, 1)
    steps = 1
    while steps < length:
        x = combine(x, shifted(x, steps))
        steps *= 2
    return tf.reverse(x, [position]) if attributes["reverse"].b else x
