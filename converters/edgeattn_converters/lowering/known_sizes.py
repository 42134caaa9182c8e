"""Sizes that a model computes from the shape of its data, as constants if they are known.

With a free batch axis, TensorFlow does not know that the sizes of the other axes are constant, nor
which branch of a condition about them is computed. ``tf.image.ssim_multiscale`` pads images of an
odd size, and no others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def part_of_shape(
    shape: Any, begin: Any, end: Any, strides: Any, *, attributes: Mapping[str, Any]
) -> Any:
    """Sizes of a shape with other sizes that are free; None if one of them is not known."""
    import tensorflow as tf

    bounds = [tf.get_static_value(tensor) for tensor in (begin, end, strides)]
    if not hasattr(shape, "op") or any(bound is None for bound in bounds):
        return None
    source = shape
    while source.op.type in ("Identity", "IdentityN"):
        source = source.op.inputs[source.value_index]
    if source.op.type != "Shape":
        return None
    sizes = source.op.inputs[0].shape
    if sizes.rank is None or attributes["ellipsis_mask"].i or attributes["new_axis_mask"].i:
        return None
    index = _index([int(bound[0]) for bound in bounds if bound is not None], attributes)
    selected = np.array([-1 if size is None else size for size in sizes])[index]
    if np.any(selected < 0) or not np.size(selected):
        return None
    return tf.constant(selected, shape.dtype)


def _index(bounds: Sequence[int], attributes: Mapping[str, Any]) -> int | slice:
    begin, end, stride = bounds
    if attributes["shrink_axis_mask"].i:
        return begin
    first = None if attributes["begin_mask"].i else begin
    return slice(first, None if attributes["end_mask"].i else end, stride)


def total(x: Any, y: Any) -> Any:
    """AddV2 of two constant integers, such as a rank and an axis; None for other operands."""
    import tensorflow as tf

    if not x.dtype.is_integer or x.shape.rank != 0 or y.shape.rank != 0:
        return None
    values = [tf.get_static_value(tensor) for tensor in (x, y)]
    if any(value is None for value in values):
        return None
    return tf.constant(values[0] + values[1], x.dtype)


def remainder(x: Any, y: Any) -> Any:
    """FloorMod of constant sizes; None for other operands."""
    import tensorflow as tf

    values = [tf.get_static_value(tensor) for tensor in (x, y)]
    if not x.dtype.is_integer or any(value is None for value in values) or np.any(values[1] == 0):
        return None
    return tf.constant(np.mod(*values), x.dtype)


def any_true(values: Any, axes: Any, *, attributes: Mapping[str, Any]) -> Any:
    """Any of constants; None if one is not constant."""
    import tensorflow as tf

    known, axis = tf.get_static_value(values), tf.get_static_value(axes)
    if known is None or axis is None:
        return None
    axis = tuple(np.ravel(axis).tolist())
    return tf.constant(np.any(known, axis=axis, keepdims=attributes["keep_dims"].b))
