"""Reciprocals of square roots in TFLite, whose RSQRT gives NaN at 0 where Keras has infinity.

The converter also writes RSQRT for a division by a root and for the power -1/2. Keras normalizes
with the minimum of the reciprocal and a limit; graph networks replace the infinity by 0.

The converter also takes a vector times the reciprocal root of its sum of squares and an epsilon for
L2_NORMALIZATION, whatever the epsilon (below 0.001) is, and also if the sum is over further axes
than the last. That operator normalizes along the last axis, and divides by 1e-6 at least.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

# Smaller numbers than this may round to 0.
_SMALLEST = 1e-30
_SUMS = ("Add", "AddV2")
# The square of the least number that L2_NORMALIZATION divides by.
_LEAST_SQUARE = np.float32(1e-12)
# Squares of vectors that integers store as zero, or with one or two steps.
_SMALL_SQUARE = 1e-6


def replacements(*, integers: bool = False) -> Mapping[str, Callable[..., Any]]:
    """Replacements by kind of operation.

    In files with ``integers``, L2_NORMALIZATION may have another small epsilon: it has an int8
    form, and quotients have none.
    """
    return {
        "Pow": partial(_power, integers),
        "RealDiv": partial(_division, integers),
        "Rsqrt": partial(_rsqrt, integers),
    }


def _rsqrt(integers: bool, x: Any) -> Any:
    """``1 / sqrt(x)``; None if RSQRT is right."""
    import tensorflow as tf

    if _may_have_rsqrt(x, integers):
        return None
    return _quotient(integers, tf.ones([], x.dtype), tf.sqrt(x))


def _power(integers: bool, x: Any, exponent: Any) -> Any:
    """The power of 0 is infinity, that of -0, too."""
    import tensorflow as tf

    value = tf.get_static_value(exponent)
    if value is None or not np.all(np.equal(value, -0.5)) or _may_have_rsqrt(x, integers):
        return None
    return 1 / tf.abs(tf.sqrt(x))


def _division(integers: bool, x: Any, y: Any) -> Any:
    is_root = getattr(getattr(y, "op", None), "type", "") == "Sqrt"
    if not is_root or _may_have_rsqrt(y.op.inputs[0], integers):
        return None
    return _quotient(integers, x, y)


def _quotient(integers: bool, x: Any, root: Any) -> Any:
    """``x / root``, whose divisor the converter does not recognize as a root.

    A root of -0 is -0. Integers have no such zero, and no operator for ``-x``.
    """
    import tensorflow as tf

    return x / tf.abs(root) if integers else -x / -root


def _may_have_rsqrt(x: Any, integers: bool) -> bool:
    """Whether ``x`` is not zero, and not what the converter takes for another norm."""
    return _is_positive(x) and not _is_other_norm(x, _SMALL_SQUARE if integers else 0.0)


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


def _is_other_norm(x: Any, small: float) -> bool:
    """Whether ``x`` is a limited sum, but not that of the squares of L2_NORMALIZATION.

    An epsilon up to ``small`` makes no difference.
    """
    import tensorflow as tf

    operation = getattr(x, "op", None)
    if operation is None or operation.type not in (*_SUMS, "Maximum"):
        return False
    sums = [operand.op for operand in operation.inputs if operand.op.type == "Sum"]
    limits = [tf.get_static_value(operand) for operand in operation.inputs]
    limit = max((float(np.max(value)) for value in limits if value is not None), default=np.inf)
    if not sums:
        return False
    values, axes = sums[0].inputs
    if np.ravel(tf.get_static_value(axes)).tolist() not in ([-1], [values.shape.rank - 1]):
        return True
    same = operation.type == "Maximum" and limit == _LEAST_SQUARE
    return not same and limit > small
