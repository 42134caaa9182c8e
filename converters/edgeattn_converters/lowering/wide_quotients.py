"""Quotients, shifts and bits of int64, of which TFLite has sums, products and remainders, and ONNX
also quotients.
"""

from collections.abc import Callable
from typing import Any

_HALF = 2**32
_BITS = 64
# Quotients of float32 numbers are off by less than a part of 2^21, so that the third correction of
# one of 63 bits is exact.
_CORRECTIONS = 3
# 2^63 is no int64.
_ROUNDED_DOWN = 1 - 2.0**-20


def floor_division(x: Any, y: Any) -> Any:
    """``x // y``; None for other types."""
    import tensorflow as tf

    if x.dtype != tf.int64:
        return None
    divisor = tf.cast(y, tf.float32)
    # The rest has the sign of x, or is at most half of y, and so is not out of range.
    result = tf.cast(tf.cast(x, tf.float32) / divisor * _ROUNDED_DOWN, tf.int64)
    for _ in range(_CORRECTIONS):
        rest = x - result * y
        result += tf.cast(tf.round(tf.cast(rest, tf.float32) / divisor), tf.int64)
    rest = x - result * y
    differ = tf.logical_and(tf.not_equal(rest, 0), tf.not_equal(rest < 0, y < 0))
    return result - tf.cast(differ, tf.int64)


def truncated_division(x: Any, y: Any) -> Any:
    """The quotient without its fraction."""
    import tensorflow as tf

    quotient = floor_division(x, y)
    if quotient is None:
        return None
    differ = tf.logical_and(tf.not_equal(quotient * y, x), tf.not_equal(x < 0, y < 0))
    return quotient + tf.cast(differ, tf.int64)


def left_shift(x: Any, count: Any) -> Any:
    """``x * 2**count``."""
    import tensorflow as tf

    if x.dtype != tf.int64:
        return None
    return x * _power_of_two(tf.clip_by_value(count, 0, _BITS - 1))


def right_shift(x: Any, count: Any) -> Any:
    """``x // 2**count``; only the sign is left of a shift by 63 bits."""
    import tensorflow as tf

    if x.dtype != tf.int64:
        return None
    quotient = x // _power_of_two(tf.clip_by_value(count, 0, _BITS - 2))
    return tf.where(count >= _BITS - 1, -tf.cast(x < 0, tf.int64), quotient)


def _power_of_two(count: Any) -> Any:
    import tensorflow as tf

    powers = tf.constant([*(2**k for k in range(_BITS - 1)), -(2 ** (_BITS - 1))], tf.int64)
    return tf.gather(powers, tf.cast(count, tf.int32))


def by_halves(operation: str) -> Callable[[Any, Any], Any]:
    """An operation of ``tf.bitwise``, of the two halves of the bits as uint32."""

    def of_halves(x: Any, y: Any) -> Any:
        import tensorflow as tf

        if x.dtype != tf.int64:
            return None
        function = getattr(tf.bitwise, operation)
        high, low = (function(*parts) for parts in zip(_halves(x), _halves(y), strict=True))
        return tf.cast(high, tf.int64) * _HALF + tf.cast(low, tf.int64)

    return of_halves


def _halves(x: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    low = tf.math.floormod(x, _HALF)
    high = tf.math.floormod(floor_division(x, tf.constant(_HALF, tf.int64)), _HALF)
    return tf.cast(high, tf.uint32), tf.cast(low, tf.uint32)
