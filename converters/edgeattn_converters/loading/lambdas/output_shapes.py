"""Shapes of the outputs of expressions, which TensorFlow infers only if the batch size is fixed.

With a free batch axis, the shape in ``tf.reshape(x, [tf.shape(x)[0], -1])`` is a tensor with
unknown values, and so is the number of frames in the nodes of ``tf.signal.stft``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Sizes of the batch axis, whose outputs differ in the axes that depend on it.
_SIZES = (2, 3)


def with_inferred_shapes(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, with the shapes of its outputs completed while a graph is traced.

    Axes whose length depends on the values of ``inputs`` stay free.
    """
    import tensorflow as tf

    outputs = function(inputs)
    values = tf.nest.flatten(outputs)
    incomplete = any(tf.is_tensor(value) and not _is_complete(value.shape) for value in values)
    tensors = tf.nest.flatten(inputs)
    if tf.executing_eagerly() or not incomplete or not _has_free_batch_only(tensors):
        return outputs

    def traced(size: int) -> list[Any]:
        with tf.Graph().as_default():
            fixed = [
                tf.compat.v1.placeholder(item.dtype, [size, *item.shape[1:]]) for item in tensors
            ]
            results = function(tf.nest.pack_sequence_as(inputs, fixed))
            return [getattr(value, "shape", None) for value in tf.nest.flatten(results)]

    try:
        shapes_by_size = [traced(size) for size in _SIZES]
    except (ValueError, TypeError, tf.errors.OpError):
        # A graph may contain the batch size that it was created for.
        return outputs
    for index, (value, *shapes) in enumerate(zip(values, *shapes_by_size, strict=True)):
        if not tf.is_tensor(value) or _is_complete(value.shape):
            continue
        if None not in [shape.rank for shape in shapes]:
            value.set_shape(_common(shapes))
        elif (rank := _rank_of_result(function, inputs, index)) is not None:
            value.set_shape([None] * rank)
    return outputs


def _is_complete(shape: Any) -> bool:
    return shape.rank is not None and None not in shape.as_list()[1:]


def _has_free_batch_only(tensors: Sequence[Any]) -> bool:
    """Whether the first axis of a tensor is free, and no other axis of any."""
    shapes = [tensor.shape for tensor in tensors]
    return all(_is_complete(shape) and shape.rank for shape in shapes) and any(
        shape[0] is None for shape in shapes
    )


def _common(shapes: Sequence[Any]) -> list[int | None]:
    """The axes with the same length in all shapes; the others are free."""
    first = shapes[0].as_list()
    if any(shape.rank != len(first) for shape in shapes):
        return [None] * len(first)
    return [
        lengths[0] if len(set(lengths)) == 1 else None
        for lengths in zip(*(shape.as_list() for shape in shapes), strict=True)
    ]


def _rank_of_result(function: Callable[[Any], Any], inputs: Any, index: int) -> int | None:
    """The rank of an output that operations without shape inference have; None if it is unknown."""
    import tensorflow as tf

    with tf.init_scope():
        zeros = tf.nest.map_structure(
            lambda item: tf.constant(np.zeros([1, *item.shape[1:]], item.dtype.as_numpy_dtype)),
            inputs,
        )
        try:
            result = tf.nest.flatten(function(zeros))[index]
        except (tf.errors.OpError, ValueError):
            return None
        rank: int | None = result.shape.rank
        return rank
