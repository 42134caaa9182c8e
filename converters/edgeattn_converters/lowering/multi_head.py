"""Lowerings of Keras 3's MultiHeadAttention and GroupedQueryAttention to a few products.

Keras has two code paths for these layers: one with the scores, used if they are requested or
dropped out, and one without them, for accelerators, which becomes shape arithmetic in a graph. Both
become the same two batched products here. The axis of the heads precedes that of the steps, so the
scores have the layout that the softmax needs, and no attention map is transposed. A query without
any real key keeps the result of its path in Keras: zero with the scores, the mean of the values
without them.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import with_attributes
from edgeattn_converters.lowering.masking import (
    Select,
    causal_mask,
    combine_masks,
    mask_arguments,
    mask_scores,
)

CLASSES = ("MultiHeadAttention", "GroupedQueryAttention")


def lower_multi_head_attention(layer: Any, select: Select) -> Callable[..., Any] | None:
    """The replacement of ``layer.call``, or None if this is another layer."""
    if not is_keras_class(layer, *CLASSES):
        return None
    if "return_attention_scores" not in inspect.signature(layer.call).parameters:
        return None
    original = layer.call
    attention = _projected_attention(layer, select)
    if attention is None:
        return _with_scores(original)
    grouped = type(layer).__name__ == "GroupedQueryAttention"

    @functools.wraps(original)  # callers read its signature to request the scores
    def call(*args: Any, **kwargs: Any) -> Any:
        replacements = {
            "_compute_attention": attention,
            "_compute_causal_mask": _causal_mask_method(layer),
        }
        with with_attributes(layer, replacements):
            if grouped:
                bound = inspect.signature(original).bind(*args, **kwargs)
                bound.apply_defaults()
                return _grouped_call(layer, attention, bound.arguments)
            return original(*args, **kwargs)

    return call


def _with_scores(original: Callable[..., Any]) -> Callable[..., Any]:
    """Always compute the scores, except with masks, for which the two paths of Keras differ."""

    def call(*args: Any, return_attention_scores: bool = False, **kwargs: Any) -> Any:
        if not return_attention_scores and mask_arguments(kwargs):
            return original(*args, **kwargs)
        result, scores = original(*args, return_attention_scores=True, **kwargs)
        return (result, scores) if return_attention_scores else result

    return call


def _projected_attention(layer: Any, select: Select) -> Callable[..., Any] | None:
    """A replacement of ``_compute_attention``, or None if this is not Keras 3's own layer."""
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
        """Attention of a query (batch, queries, heads, size) over keys (batch, keys, heads, size).

        Returns an output of the query's shape and the weights (batch, heads, queries, keys).
        """
        if len(query.shape) != 4:  # attention over more than one axis
            options = {"use_causal_mask": True} if use_causal_mask else {}
            return kind._compute_attention(
                layer,
                *(query, key, value, attention_mask, training, return_attention_scores),
                **options,
            )
        if use_causal_mask:
            attention_mask = combine_masks(attention_mask, layer._compute_causal_mask(query, key))
        mask = None if attention_mask is None else _with_head_axis(attention_mask)
        weights = _weights(query * scale, key, mask, select)
        if mask is not None and (return_attention_scores or dropout > 0):
            weights = select(mask, weights, 0.0)
        return _weighted_sum(weights, value), weights

    return attention


def _grouped_call(layer: Any, attention: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """``GroupedQueryAttention.call`` without repeating keys and values for each query head."""
    query, value, key = inputs["query"], inputs["value"], inputs["key"]
    names = ("query_mask", "value_mask", "key_mask", "attention_mask", "use_causal_mask")
    mask = layer._compute_attention_mask(query, value, **{name: inputs[name] for name in names})
    projected = (
        layer._query_dense(query),
        layer._key_dense(value if key is None else key),
        layer._value_dense(value),
    )
    with_scores = inputs["return_attention_scores"]
    sums, weights = attention(*projected, mask, inputs["training"], with_scores)
    if getattr(layer, "use_gate", False):
        sums = sums * layer._gate_dense(query)
    output = layer._output_dense(sums)
    return (output, weights) if with_scores else output


def _causal_mask_method(layer: Any) -> Callable[..., Any]:
    def mask(query: Any, value: Any = None) -> Any:
        lengths = query.shape[1], (query if value is None else value).shape[1]
        if None in lengths:
            return type(layer)._compute_causal_mask(layer, query, value)
        return causal_mask(*lengths)

    return mask


def _weights(query: Any, key: Any, mask: Any, select: Select) -> Any:
    """The weights (batch, heads, queries, keys) of scaled queries.

    Query heads that share a key are concatenated along the axis of the queries.
    """
    import tensorflow as tf

    _, queries, heads, size = _sizes(query)
    query = tf.transpose(query, (0, 2, 1, 3))
    key = tf.transpose(key, (0, 2, 1, 3))
    groups = heads // key.shape[1]
    if groups > 1:
        query = tf.reshape(query, (-1, heads // groups, groups * queries, size))
    scores = tf.matmul(query, key, transpose_b=True)
    if groups > 1:
        scores = tf.reshape(scores, (-1, heads, queries, _sizes(key)[2]))
    return tf.nn.softmax(scores if mask is None else mask_scores(scores, mask, select))


def _weighted_sum(weights: Any, value: Any) -> Any:
    """The weighted sum of the values, (batch, queries, heads, size)."""
    import tensorflow as tf

    _, heads, queries, keys = _sizes(weights)
    value = tf.transpose(value, (0, 2, 1, 3))
    groups = heads // value.shape[1]
    if groups > 1:
        weights = tf.reshape(weights, (-1, heads // groups, groups * queries, keys))
    sums = tf.matmul(weights, value)
    if groups > 1:
        sums = tf.reshape(sums, (-1, heads, queries, value.shape[3]))
    return tf.transpose(sums, (0, 2, 1, 3))


def _sizes(tensor: Any) -> list[Any]:
    """The sizes of the axes, as tensors if they are not fixed."""
    import tensorflow as tf

    sizes = tf.shape(tensor)
    return [sizes[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def _with_head_axis(mask: Any) -> Any:
    """Add the axis of the heads to a mask of (batch, queries, keys)."""
    import tensorflow as tf

    while len(mask.shape) < 4:
        mask = (
            np.expand_dims(mask, -3) if isinstance(mask, np.ndarray) else tf.expand_dims(mask, -3)
        )
    return mask
