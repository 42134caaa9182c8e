"""Angles of points, as NumPy computes them for every sign, also that of a zero.

The angle of ``(-1, 0)`` is pi, that of ``(-1, -0)`` is -pi.
"""

import math
from typing import Any

import numpy as np


def atan2_of_quotient(y: Any, x: Any) -> Any:
    """The angle of ``(|x|, |y|)``, mirrored according to the signs."""
    import tensorflow as tf

    height, width = tf.abs(y), tf.abs(x)
    # Quotients of two zeros and of two infinities are not defined.
    equal = tf.where(width > 0, math.pi / 4, 0.0)
    angle = tf.where(tf.equal(height, width), equal, tf.atan(height / width))
    angle = tf.where(_is_negative(x), math.pi - angle, angle)
    # A selection by onnxruntime loses the sign of a zero.
    return tf.where(_is_negative(y), -1.0, 1.0) * angle


def atan2_for_tflite(y: Any, x: Any) -> Any:
    """TFLite's own operator does not broadcast; None if it is right as it is."""
    import tensorflow as tf

    if any(map(_has_negative_zero, (y, x))):
        return atan2_of_quotient(y, x)
    shape = tf.broadcast_static_shape(y.shape, x.shape)
    if y.shape != x.shape and shape.is_fully_defined():
        return tf.atan2(tf.broadcast_to(y, shape), tf.broadcast_to(x, shape))
    return None


def _is_negative(x: Any) -> Any:
    """Whether the sign bit is set. That of a constant is read here, because files do not store the
    sign of a constant zero."""
    import tensorflow as tf

    value = tf.get_static_value(x)
    if value is not None:
        return tf.constant(np.signbit(value))
    return tf.logical_or(x < 0, 1 / x < 0)


def _has_negative_zero(x: Any) -> bool:
    import tensorflow as tf

    value = tf.get_static_value(x)
    return value is not None and bool(np.any(np.signbit(value) & (value == 0)))
