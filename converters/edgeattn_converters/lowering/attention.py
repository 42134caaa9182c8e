"""Attention layers on their cheap paths.

Ours: the Luong score computed the cheap way round.

``h_T · (W h_s)`` is ``(h_T W') · h_s`` with W transposed: one product of the query instead of one
of every state, features² instead of time · features² multiplications.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgeattn_converters.lowering.cells import is_keras_class

# As in edgeattn.layers: next to nothing below the highest score, and near enough to be quantized.
FILL = -100.0


def lower_attention(layer: Any) -> Callable[..., Any] | None:
    """What takes the place of ``layer.call``, or None where this is not our layer."""
    kind = type(layer)
    if kind.__name__ != "Attention" or not kind.__module__.startswith("edgeattn.layers"):
        return None
    if layer.compute_dtype != "float32":
        return None

    def call(inputs: Any, mask: Any = None, return_attention_weights: bool | None = None) -> Any:
        import tensorflow as tf

        mask = layer._check_mask(mask)
        if mask is None:
            query = tf.gather(inputs, inputs.shape[1] - 1, axis=1)  # (batch, features)
        else:
            inputs = tf.where(tf.expand_dims(mask, 2), inputs, 0.0)
            query = _last_real(inputs, mask)  # (batch, features)
        scores = _luong(layer, query, inputs) if layer.score == "luong" else None
        if scores is None:
            energy = tf.expand_dims(layer.bahdanau_w1(query), 1) + layer.bahdanau_w2(inputs)
            scores = layer.bahdanau_v(tf.tanh(energy))  # (batch, time, 1)
        weights = _softmax(tf.squeeze(scores, axis=2), mask)  # (batch, time)
        context = tf.matmul(tf.expand_dims(weights, 1), inputs)  # (batch, 1, features)
        both = tf.concat([tf.squeeze(context, axis=1), query], axis=-1)
        vector = layer.w_c(both)  # (batch, units)
        asked = layer._returns_weights(return_attention_weights)
        return (vector, weights) if asked else vector

    return call


def _luong(layer: Any, query: Any, states: Any) -> Any:
    """(batch, time, 1): ``h_T · (W h_s)`` as ``(h_T W') · h_s``."""
    import tensorflow as tf

    turned = tf.matmul(query, layer.luong_w.kernel, transpose_b=True)  # (batch, features)
    return tf.matmul(states, tf.expand_dims(turned, 2))


def _last_real(states: Any, mask: Any) -> Any:
    """The last real state of every row, (batch, features); zero where there is none."""
    import tensorflow as tf

    # The steps after the last real one are those without a real step at or after them.
    after = tf.cumsum(tf.cast(mask, tf.float32), axis=1, exclusive=True, reverse=True)
    last = tf.cast(tf.logical_and(mask, tf.less(after, 0.5)), tf.float32)  # (batch, time), one 1
    return tf.squeeze(tf.matmul(tf.expand_dims(last, 1), states), axis=1)


def _softmax(scores: Any, mask: Any) -> Any:
    """Softmax over the real steps, (batch, time), as the layer defines it."""
    import tensorflow as tf

    if mask is None:
        return tf.nn.softmax(scores)
    lowest = tf.reduce_min(scores, axis=-1, keepdims=True)  # (batch, 1)
    top = tf.reduce_max(tf.where(mask, scores, lowest), axis=-1, keepdims=True)  # (batch, 1)
    weights = tf.nn.softmax(tf.where(mask, scores, top + FILL))
    return tf.where(mask, weights, 0.0)  # a row without a real step: all zeros


def lower_heads(layer: Any) -> Callable[..., Any] | None:
    """MultiHeadAttention and GroupedQueryAttention by the path that gives the scores.

    Without them Keras 3 takes another one, for accelerators, that becomes shape arithmetic. Where
    a query is padding itself the two give different answers: with masks a layer keeps its own way.
    """
    if not is_keras_class(layer, "MultiHeadAttention", "GroupedQueryAttention"):
        return None
    if "return_attention_scores" not in inspect.signature(layer.call).parameters:
        return None
    original = layer.call

    def call(*args: Any, return_attention_scores: bool = False, **kwargs: Any) -> Any:
        if not return_attention_scores and masks_in(kwargs):
            return original(*args, **kwargs)
        result, scores = original(*args, return_attention_scores=True, **kwargs)
        return (result, scores) if return_attention_scores else result

    return call


def masks_in(arguments: Mapping[str, Any]) -> list[Any]:
    """The masks among a layer's arguments; of a list of them, each."""
    found = [v for name, v in arguments.items() if name == "mask" or name.endswith("_mask")]
    return [
        item
        for value in found
        if not isinstance(value, bool)  # use_causal_mask
        for item in (value if isinstance(value, list | tuple) else [value])
        if item is not None
    ]
