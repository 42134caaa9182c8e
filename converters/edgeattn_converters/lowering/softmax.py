"""Lowering of Keras' Softmax layer over several axes to one softmax.

Keras computes ``exp(x - logsumexp(x))``, which loses more in integers than a softmax, and which no
converter fuses to a softmax. MultiHeadAttention over several attention axes contains such a layer.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.masking import Select, mask_scores


def lower_softmax(layer: Any, select: Select) -> Callable[..., Any] | None:
    """The replacement of ``layer.call``, or None if this is another layer or has one axis."""
    if not is_keras_class(layer, "Softmax") or layer.compute_dtype != "float32":
        return None
    if not isinstance(layer.axis, tuple | list) or len(layer.axis) < 2:
        return None
    original = layer.call
    fills_with_zeros = type(layer).__module__.startswith("keras.")

    @functools.wraps(original)  # callers read its signature to pass a mask
    def call(inputs: Any, mask: Any = None) -> Any:
        rank = len(inputs.shape)
        axes = sorted(axis % rank for axis in layer.axis)
        # tf_keras does not define a row without a real key: its weights are 1 each.
        undefined = mask is not None and not fills_with_zeros
        if undefined or 0 in axes or None in inputs.shape[1:]:
            return original(inputs, mask=mask)
        return _softmax(inputs, mask, axes, select)

    return call


def _softmax(scores: Any, mask: Any, axes: list[int], select: Select) -> Any:
    """The softmax of ``scores`` over all of ``axes`` together, zero where ``mask`` is False."""
    import tensorflow as tf

    others = [axis for axis in range(len(scores.shape)) if axis not in axes]
    order = [*others, *axes]
    moved = _transposed(scores, order)
    sizes = list(moved.shape)
    flat = [-1, *sizes[1 : len(others)], math.prod(sizes[len(others) :])]
    rows = tf.reshape(moved, flat)
    if mask is None:
        weights = tf.nn.softmax(rows)
    else:
        real = mask if mask.dtype == tf.bool else mask > 0.5
        real = tf.broadcast_to(real, tf.shape(scores))
        real = tf.reshape(_transposed(real, order), flat)
        weights = select(real, tf.nn.softmax(mask_scores(rows, real, select)), 0.0)
    weights = tf.reshape(weights, [-1, *sizes[1:]])
    return _transposed(weights, [order.index(axis) for axis in range(len(order))])


def _transposed(tensor: Any, order: list[int]) -> Any:
    import tensorflow as tf

    return tensor if order == sorted(order) else tf.transpose(tensor, order)
