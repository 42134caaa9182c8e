"""Sizes that follow from a shape of which others are free, for which TensorFlow infers none.

Graphs compute the lengths of lists and the shapes of results from them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Operations with which graphs compute sizes from others.
_ARITHMETIC = frozenset({"StridedSlice", "AddV2", "Sub", "Mul", "Maximum", "Minimum", "FloorDiv"})
# Before 2.13, TensorFlow compared a position with the length of a list, to make the list longer.
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"})


def folded_sizes(operation: Any, inputs: Sequence[Any]) -> Any:
    """The result of arithmetic or a comparison of sizes as a constant, None for anything else."""
    import tensorflow as tf

    compares = operation.type in _COMPARISONS and inputs[0].dtype.is_integer
    computes = operation.type in _ARITHMETIC and operation.outputs[0].dtype.is_integer
    if not compares and not computes:
        return None
    values = [tf.get_static_value(tensor) for tensor in inputs]
    if values[0] is None and inputs[0].op.type == "Shape" and operation.type == "StridedSlice":
        # One size of a shape with other sizes that are free.
        sizes, first = inputs[0].op.inputs[0].shape, values[1]
        if sizes.rank is None or first is None or operation.get_attr("shrink_axis_mask") != 1:
            return None
        size = sizes[int(first[0])]
        return None if size is None else tf.constant(size, operation.outputs[0].dtype)
    if any(value is None for value in values):
        return None
    definition = operation.op_def
    arguments = dict(zip([item.name for item in definition.input_arg], values, strict=True))
    options = {
        item.name: operation.get_attr(item.name) for item in definition.attr if item.type != "type"
    }
    with tf.init_scope():
        result = getattr(tf.raw_ops, operation.type)(**arguments, **options).numpy()
    return tf.constant(result)


def shape_after_reshape(values: Any, shape: Any) -> list[int | None] | None:
    """The shape of ``values`` after a reshape that keeps their free first axis, if it is known.

    TensorFlow computes no size for -1 if another one is free.
    """
    import tensorflow as tf

    if shape.op.type != "Pack" or values.shape.rank is None or None in values.shape[1:]:
        return None
    first, *others = shape.op.inputs
    sizes = [tf.get_static_value(size) for size in others]
    if first.op.type != "StridedSlice" or None in sizes or sizes.count(-1) != 1:
        return None
    source, *positions = first.op.inputs
    start = tf.get_static_value(positions[0])
    if source.op.type != "Shape" or source.op.inputs[0] is not values or start.tolist() != [0]:
        return None
    known = math.prod(int(size) for size in sizes if size != -1)
    rest = math.prod(values.shape[1:]) // max(1, known)
    return [None, *(rest if size == -1 else int(size) for size in sizes)]


def selected_sizes(operation: Any, inputs: Sequence[Any]) -> Any:
    """The sizes that an operation selects from a shape, known ones as constants; None if none are.

    TensorFlow infers nothing about a result of ``gather``, with which ``tensordot`` selects the
    axes that remain.
    """
    import tensorflow as tf

    if operation.type != "GatherV2" or inputs[0].op.type != "Shape":
        return None
    positions, sizes = tf.get_static_value(inputs[1]), inputs[0].op.inputs[0].shape
    if positions is None or sizes.rank is None or positions.ndim != 1 or not len(positions):
        return None
    dtype = inputs[0].dtype
    return tf.stack(
        [
            inputs[0][position] if sizes[position] is None else tf.constant(sizes[position], dtype)
            for position in positions.tolist()
        ]
    )


def static_sizes(tensor: Any) -> tuple[int | None, ...] | None:
    """The values of a constant, ``None`` for negative ones; ``None`` if it is not constant."""
    import tensorflow as tf

    value = tf.get_static_value(tensor)
    if value is None:
        return None
    return tuple(None if number < 0 else int(number) for number in np.reshape(value, -1))
