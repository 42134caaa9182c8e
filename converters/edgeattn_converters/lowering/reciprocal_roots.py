"""Reciprocals of square roots in TFLite, whose RSQRT gives NaN at 0 where Keras has infinity.

The converter also writes RSQRT for a division by a root and for the power -1/2. Keras normalizes
with the minimum of the reciprocal and a limit; graph networks replace the infinity by 0.
"""

from typing import Any

import numpy as np

from edgeattn_converters.lowering.angles import without_negation

# Smaller numbers than this may round to 0.
_SMALLEST = 1e-30
_SUMS = ("Add", "AddV2")


def rsqrt(x: Any) -> Any:
    """``1 / |sqrt(x)|``; None if ``x`` cannot be 0, where RSQRT is right."""
    import tensorflow as tf

    # The converter leaves a division by a magnitude.
    return None if _is_positive(x) else 1 / tf.abs(tf.sqrt(x))


def power(x: Any, exponent: Any) -> Any:
    import tensorflow as tf

    value = tf.get_static_value(exponent)
    return rsqrt(x) if value is not None and np.all(np.equal(value, -0.5)) else None


def division(x: Any, y: Any) -> Any:
    import tensorflow as tf

    denominator = without_negation(y)
    if denominator is not y:
        return x / denominator
    if getattr(getattr(y, "op", None), "type", "") != "Sqrt" or _is_positive(y.op.inputs[0]):
        return None
    return x / tf.abs(y)


def _is_positive(x: Any) -> bool:
    """Whether ``x`` is at least a positive constant, or the sum of a square and an epsilon.

    Constants are computed by the converter, with TensorFlow's own operation.
    """
    import tensorflow as tf

    if tf.get_static_value(x) is not None:
        return True
    operation = getattr(x, "op", None)
    if operation is None or operation.type not in (*_SUMS, "Maximum"):
        return False
    values = [tf.get_static_value(operand) for operand in operation.inputs]
    least = max((float(np.min(value)) for value in values if value is not None), default=0.0)
    # A sum with a larger number may be that of something negative.
    return least >= _SMALLEST and (operation.type == "Maximum" or least < 1)
