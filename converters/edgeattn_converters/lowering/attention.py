"""Lowerings of ``edgeattn.layers.Attention`` and of Keras' Attention and AdditiveAttention.

The Luong score ``h_T · (W h_s)`` is computed as ``(h_T W') · h_s``, with W transposed: one product
of the query instead of one per state, features² multiplications instead of time · features².
"""

import functools
from collections.abc import Callable
from typing import Any

from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import with_attributes
from edgeattn_converters.lowering.masking import Select, causal_mask, combine_masks, mask_scores


def lower_attention(layer: Any, select: Select) -> Callable[..., Any] | None:
    """The replacement of ``layer.call`` for :class:`edgeattn.layers.Attention`, otherwise None."""
    kind = type(layer)
    if kind.__name__ != "Attention" or not kind.__module__.startswith("edgeattn.layers"):
        return None
    if layer.compute_dtype != "float32":
        return None

    def call(inputs: Any, mask: Any = None, return_attention_weights: bool | None = None) -> Any:
        import tensorflow as tf

        mask = layer._check_mask(mask)
        if mask is None:
            last = (inputs.shape[1] or tf.shape(inputs)[1]) - 1
            query = tf.gather(inputs, last, axis=1)  # (batch, features)
        else:
            inputs = tf.where(tf.expand_dims(mask, 2), inputs, 0.0)
            query = _last_real(inputs, mask)  # (batch, features)
        if layer.score == "luong":
            scores = _luong(layer, query, inputs)
        else:
            energy = tf.expand_dims(layer.bahdanau_w1(query), 1) + layer.bahdanau_w2(inputs)
            scores = layer.bahdanau_v(tf.tanh(energy))  # (batch, time, 1)
        weights = _softmax(tf.squeeze(scores, axis=2), mask, select)  # (batch, time)
        context = tf.matmul(tf.expand_dims(weights, 1), inputs)  # (batch, 1, features)
        vector = layer.w_c(tf.concat([tf.squeeze(context, axis=1), query], axis=-1))
        if layer._returns_weights(return_attention_weights):
            return vector, weights
        return vector  # (batch, units)

    return call


def _luong(layer: Any, query: Any, states: Any) -> Any:
    """(batch, time, 1): ``h_T · (W h_s)`` as ``(h_T W') · h_s``."""
    import tensorflow as tf

    projected = tf.matmul(query, layer.luong_w.kernel, transpose_b=True)  # (batch, features)
    return tf.matmul(states, tf.expand_dims(projected, 2))


def _last_real(states: Any, mask: Any) -> Any:
    """The last real state of every row, (batch, features); zero for a row without one."""
    import tensorflow as tf

    # A real step is the last one if no real step follows it.
    after = tf.cumsum(tf.cast(mask, tf.float32), axis=1, exclusive=True, reverse=True)
    last = tf.cast(tf.logical_and(mask, tf.less(after, 0.5)), tf.float32)  # (batch, time), one 1
    return tf.squeeze(tf.matmul(tf.expand_dims(last, 1), states), axis=1)


def _softmax(scores: Any, mask: Any, select: Select) -> Any:
    """Softmax over the real steps, (batch, time); all zeros for a row without a real step."""
    import tensorflow as tf

    if mask is None:
        return tf.nn.softmax(scores)
    return select(mask, tf.nn.softmax(mask_scores(scores, mask, select)), 0.0)


def lower_keras_attention(layer: Any, select: Select) -> Callable[..., Any] | None:
    """The replacement of ``layer.call`` for Keras 3's Attention and AdditiveAttention.

    None for any other layer. Masks are applied as in :mod:`edgeattn_converters.lowering.masking`.
    """
    if not is_keras_class(layer, "Attention", "AdditiveAttention"):
        return None
    names = ("_apply_scores", "_calculate_score_mask")
    plain = type(layer).__module__.startswith("keras.") and layer.compute_dtype == "float32"
    if not plain or not all(hasattr(layer, name) for name in names):
        return None
    original = layer.call

    def apply_scores(scores: Any, value: Any, scores_mask: Any = None, training: Any = None) -> Any:
        import tensorflow as tf

        if scores_mask is not None:
            if len(scores_mask.shape) == 2:
                scores_mask = tf.expand_dims(scores_mask, 1)  # (batch, 1, keys)
            scores = mask_scores(scores, scores_mask, select)
        weights = tf.nn.softmax(scores)
        return tf.matmul(weights, value), weights

    def score_mask(scores: Any, v_mask: Any, use_causal_mask: bool) -> Any:
        import tensorflow as tf

        if not use_causal_mask:
            return v_mask
        if None in scores.shape[-2:]:  # of a sequence of any length
            return type(layer)._calculate_score_mask(layer, scores, v_mask, use_causal_mask)
        visible = causal_mask(*scores.shape[-2:])
        return visible if v_mask is None else combine_masks(tf.expand_dims(v_mask, 1), visible)

    @functools.wraps(original)  # callers read its signature to request the scores
    def call(*args: Any, **kwargs: Any) -> Any:
        replacements = dict(zip(names, (apply_scores, score_mask), strict=True))
        with with_attributes(layer, replacements):
            return original(*args, **kwargs)

    return call
