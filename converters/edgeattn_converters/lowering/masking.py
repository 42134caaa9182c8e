"""Masked scores, in operators that XNNPACK supports and with a fill value that suits integers.

A masked score becomes the minimum of its row minus 30. That is at least 30 below every real score,
so a thousand masked keys add 1e-10 of the largest term to the softmax's sum; in float32, whose next
number after 1 is 1.2e-7 away, that adds nothing. The range of the scores grows by 30 only, whereas
Keras' fill value of -1e9 would leave a single int8 step for all real scores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn.tensors import Array

MASK_OFFSET = 30.0

# ``(mask, yes, no)``: ``yes`` if the boolean mask, a tensor or an array, is True, otherwise ``no``.
Select = Callable[[Any, Any, Any], Any]


def select_by_arithmetic(mask: Any, yes: Any, no: Any) -> Any:
    """Select by multiplication, which XNNPACK supports: exact for finite numbers."""
    import tensorflow as tf

    # A constant mask stays constant.
    constant = isinstance(mask, np.ndarray)
    real = mask.astype(np.float32) if constant else tf.cast(mask, tf.float32)
    if isinstance(no, float) and no == 0:
        return yes * real
    return yes * real + no * (1.0 - real)


def select_by_where(mask: Any, yes: Any, no: Any) -> Any:
    """Select with one operator, for runtimes in which it is fast."""
    import tensorflow as tf

    return tf.where(mask, yes, no)


def mask_scores(scores: Any, mask: Any, select: Select) -> Any:
    """``scores`` (..., keys) with the masked ones far below all others.

    ``mask`` is True for real keys and broadcasts to the scores. A row without a real key gets equal
    scores.
    """
    import tensorflow as tf

    return select(mask, scores, tf.reduce_min(scores, axis=-1, keepdims=True) - MASK_OFFSET)


def causal_mask(queries: int, keys: int) -> Array:
    """(1, queries, keys): True if the key is not after the query."""
    return np.tril(np.ones((1, queries, keys), bool))


def combine_masks(first: Any, second: Any) -> Any:
    """The logical and of two masks; None is True everywhere."""
    import tensorflow as tf

    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first & second
    return tf.logical_and(tf.cast(first, tf.bool), tf.cast(second, tf.bool))


def mask_arguments(arguments: Mapping[str, Any]) -> list[Any]:
    """The masks among a layer's arguments, those of a list one by one."""
    values = [v for name, v in arguments.items() if name == "mask" or name.endswith("_mask")]
    return [
        item
        for value in values
        if not isinstance(value, bool)  # use_causal_mask
        for item in (value if isinstance(value, list | tuple) else [value])
        if item is not None
    ]
