"""Rounding to numbers of 8 bits, as graphs of models that Keras has quantized to float8 contain it.

The formats have no such numbers. They have 4 significant bits, the smallest step is ``2**-9``, and
the largest number is 448.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_SMALLEST_STEP, _LEAST_NORMAL = 2.0**-9, 2.0**-6
# From here on, numbers are rounded to more than the largest one, which is not a number.
_OVERFLOW = 464.0


def cast_back(x: Any, *, attributes: Mapping[str, Any]) -> Any:
    """A float32 number that was cast to float8 and back; None for other casts."""
    import tensorflow as tf
    from tensorflow.python.framework.smart_cond import smart_constant_value

    float8 = tf.dtypes.experimental.float8_e4m3fn
    if x.dtype != float8 or x.op.type != "Cast":
        return None
    number = x.op.inputs[0]
    if number.dtype != tf.float32 or attributes["DstT"].type != tf.float32.as_datatype_enum:
        return None
    constant = smart_constant_value(number)
    if constant is not None:
        stored = np.asarray(constant).astype(float8.as_numpy_dtype)
        return tf.constant(stored.astype(np.float32))
    return rounded(number)


def rounded(x: Any) -> Any:
    """The nearest float8 number, the even one of two. Every step is exact in float32."""
    import tensorflow as tf

    size = tf.maximum(tf.abs(x), _LEAST_NORMAL)
    # The power of two that is not above the size, by its bits.
    rest = size / _LEAST_NORMAL
    for bits in (8, 4, 2, 1):
        rest *= tf.where(rest >= 2.0**bits, 2.0**-bits, 1.0)
    step = size / rest * (_SMALLEST_STEP / _LEAST_NORMAL)
    result = tf.round(x / step) * step
    return tf.where(tf.abs(x) > _OVERFLOW, np.float32(np.nan), result)
