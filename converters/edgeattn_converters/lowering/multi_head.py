"""MultiHeadAttention and GroupedQueryAttention of Keras 3 as few products.

Keras takes one of two ways through these layers: with the scores, where they are asked for or
dropped out, and without them, by a path for accelerators that becomes shape arithmetic here. Both
are written as the same two batched products, with the heads' axis in front of the steps': the
scores come out as the softmax takes them, and no map is transposed. What the two ways make of a
query without any key, each keeps: nothing with the scores, the mean of the values without them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn_converters.lowering.masking import (
    Select,
    causal_mask,
    combine_masks,
    mask_arguments,
    mask_scores,
)
from edgeattn_converters.lowering.replacement import with_attributes
from edgeattn_converters.lowering.rnn.cells import is_keras_class

CLASSES = ("MultiHeadAttention", "GroupedQueryAttention")


def lower_multi_head_attention(layer: Any, select: Select) -> Callable[..., Any] | None:
    """What takes the place of ``layer.call``, or None where this is no such layer."""
    if not is_keras_class(layer, *CLASSES):
        return None
    if "return_attention_scores" not in inspect.signature(layer.call).parameters:
        return None
    original = layer.call
    heads = _heads(layer, select)
    if heads is None:
        return _by_scores(original)
    grouped = type(layer).__name__ == "GroupedQueryAttention"

    @functools.wraps(original)  # its signature says whether scores can be asked for
    def call(*args: Any, **kwargs: Any) -> Any:
        with with_attributes(
            layer, {"_compute_attention": heads, "_compute_causal_mask": _causal_mask(layer)}
        ):
            return _grouped(layer, heads, *args, **kwargs) if grouped else original(*args, **kwargs)

    return call


def _by_scores(original: Callable[..., Any]) -> Callable[..., Any]:
    """By the way that gives the scores. With masks, where the two differ, a layer keeps its own."""

    def call(*args: Any, return_attention_scores: bool = False, **kwargs: Any) -> Any:
        if not return_attention_scores and mask_arguments(kwargs):
            return original(*args, **kwargs)
        result, scores = original(*args, return_attention_scores=True, **kwargs)
        return (result, scores) if return_attention_scores else result

    return call


def _heads(layer: Any, select: Select) -> Callable[..., Any] | None:
    """What computes attention of projected heads; None where this is not Keras 3's plain layer."""
    kind = type(layer)
    scale = getattr(layer, "_inverse_sqrt_key_dim", getattr(layer, "_inverse_sqrt_head_dim", None))
    dropout: Any = getattr(layer, "_dropout", getattr(layer, "dropout", None))
    plain = (
        kind.__module__.startswith("keras.")
        and layer.compute_dtype == "float32"
        and isinstance(scale, float)
        and isinstance(dropout, float | int)
        and hasattr(kind, "_compute_attention")
        and hasattr(kind, "_compute_causal_mask")
    )
    if not plain:
        return None

    def attention(
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """(batch, queries, heads, size) and (batch, keys, heads, size) -> as the query, weights."""
        if len(query.shape) != 4:  # attention over more than one axis
            options = {"use_causal_mask": True} if use_causal_mask else {}
            return kind._compute_attention(
                layer,
                *(query, key, value, attention_mask, training, return_attention_scores),
                **options,
            )
        if use_causal_mask:
            attention_mask = combine_masks(attention_mask, layer._compute_causal_mask(query, key))
        mask = None if attention_mask is None else _for_heads(attention_mask)
        weights = _weights(query * scale, key, mask, select)
        if mask is not None and (return_attention_scores or dropout > 0):
            weights = select(mask, weights, 0.0)
        return _sums(weights, value), weights

    return attention


def _grouped(
    layer: Any,
    heads: Callable[..., Any],
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    training: Any = None,
    use_causal_mask: bool = False,
) -> Any:
    """The call of GroupedQueryAttention, keys and values not repeated for each head of queries."""
    mask = layer._compute_attention_mask(
        query,
        value,
        query_mask=query_mask,
        value_mask=value_mask,
        key_mask=key_mask,
        attention_mask=attention_mask,
        use_causal_mask=use_causal_mask,
    )
    projected = (
        layer._query_dense(query),
        layer._key_dense(value if key is None else key),
        layer._value_dense(value),
    )
    sums, weights = heads(*projected, mask, training, return_attention_scores)
    if getattr(layer, "use_gate", False):
        sums = sums * layer._gate_dense(query)
    output = layer._output_dense(sums)
    return (output, weights) if return_attention_scores else output


def _causal_mask(layer: Any) -> Callable[..., Any]:
    def mask(query: Any, value: Any = None) -> Any:
        lengths = query.shape[1], (query if value is None else value).shape[1]
        if None in lengths:
            return type(layer)._compute_causal_mask(layer, query, value)
        return causal_mask(*lengths)

    return mask


def _weights(query: Any, key: Any, mask: Any, select: Select) -> Any:
    """(batch, heads, queries, keys), of queries that are scaled.

    Where several heads of queries share a key, they lie behind each other as one long query.
    """
    import tensorflow as tf

    _, queries, heads, size = query.shape
    query = tf.transpose(query, (0, 2, 1, 3))
    key = tf.transpose(key, (0, 2, 1, 3))
    groups = heads // key.shape[1]
    if groups > 1:
        query = tf.reshape(query, (-1, heads // groups, groups * queries, size))
    scores = tf.matmul(query, key, transpose_b=True)
    if groups > 1:
        scores = tf.reshape(scores, (-1, heads, queries, key.shape[2]))
    return tf.nn.softmax(scores if mask is None else mask_scores(scores, mask, select))


def _sums(weights: Any, value: Any) -> Any:
    """(batch, queries, heads, size): values, weighed."""
    import tensorflow as tf

    _, heads, queries, keys = weights.shape
    value = tf.transpose(value, (0, 2, 1, 3))
    groups = heads // value.shape[1]
    if groups > 1:
        weights = tf.reshape(weights, (-1, heads // groups, groups * queries, keys))
    sums = tf.matmul(weights, value)
    if groups > 1:
        sums = tf.reshape(sums, (-1, heads, queries, value.shape[3]))
    return tf.transpose(sums, (0, 2, 1, 3))


def _for_heads(mask: Any) -> Any:
    """A mask of (batch, queries, keys) for scores with an axis of heads."""
    import tensorflow as tf

    while len(mask.shape) < 4:
        mask = (
            np.expand_dims(mask, -3) if isinstance(mask, np.ndarray) else tf.expand_dims(mask, -3)
        )
    return mask
