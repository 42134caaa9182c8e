"""Sums, products and means of integers in ONNX, which wrap around as in TensorFlow.

onnxruntime's ReduceSum, ReduceProd and ReduceMean compute in float64: an int64 above 2^53 is
rounded, and a result outside the range becomes the largest or lowest integer. CumSum, Add and Mul
are exact.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn_converters.lowering.constant_operands import is_constant
from edgeattn_converters.lowering.resampling import constant_value

_Attributes = Mapping[str, Any]
# Larger results may be outside the range of int32.
_SMALL = 2**31


def exact_sum(x: Any, axes: Any, *, attributes: _Attributes) -> Any:
    """Sum, as the last of cumulative sums; None for floats, and if ReduceSum is exact."""
    return _reduced(_sum_along, x, axes, attributes, lambda largest, count: largest * count)


def exact_product(x: Any, axes: Any, *, attributes: _Attributes) -> Any:
    """Prod, as products of the two halves; None for floats, and if ReduceProd is exact."""
    return _reduced(_product_along, x, axes, attributes, lambda largest, count: largest**count)


def exact_mean(x: Any, axes: Any, *, attributes: _Attributes) -> Any:
    """Mean, the sum by the number of elements without its fraction."""
    import tensorflow as tf

    total = exact_sum(x, axes, attributes=attributes)
    if total is None:
        return None
    sizes = [x.shape[int(axis)] for axis in np.ravel(constant_value(axes))]
    if None in sizes:
        return None
    return tf.truncatediv(total, tf.constant(np.prod(sizes), x.dtype))


def _reduced(
    along: Callable[[Any, int], Any],
    x: Any,
    axes: Any,
    attributes: _Attributes,
    limit: Callable[[int, int], int],
) -> Any:
    import tensorflow as tf

    positions = constant_value(axes)
    if not x.dtype.is_integer or x.shape.rank is None or positions is None:
        return None
    reduced = sorted({int(axis) % x.shape.rank for axis in np.ravel(positions)})
    sizes = [x.shape[axis] for axis in reduced]
    largest = _largest(x)
    # No tensor has that many truth values, also along an axis of unknown length.
    is_small = largest == 1 or (
        largest is not None and None not in sizes and limit(largest, int(np.prod(sizes))) < _SMALL
    )
    if is_small or 0 in sizes or (along is _product_along and None in sizes):
        return None
    # Sizes of tensors are small.
    if is_constant(x, set()):
        return None
    for axis in reduced:
        x = along(x, axis)
    return x if attributes["keep_dims"].b else tf.squeeze(x, reduced)


def _largest(x: Any) -> int | None:
    """The largest magnitude of an element, if the type that it was cast from limits it."""
    import tensorflow as tf

    if x.op.type != "Cast":
        return None
    source = x.op.inputs[0].dtype
    if source == tf.bool:
        return 1
    return max(-source.min, source.max) if source.is_integer and source.size <= 2 else None


def _sum_along(x: Any, axis: int) -> Any:
    import tensorflow as tf

    return tf.cumsum(x, axis)[(*[slice(None)] * axis, slice(-1, None))]


def _product_along(x: Any, axis: int) -> Any:
    import tensorflow as tf

    before = [slice(None)] * axis
    while x.shape[axis] > 1:
        half = x.shape[axis] // 2
        first, second, rest = (
            x[(*before, part)]
            for part in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        x = first * second
        if rest.shape[axis]:
            x = tf.concat([x, rest], axis)
    return x
