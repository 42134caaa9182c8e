"""Scores under a mask, in operators that XNNPACK takes and with a fill that integers can hold.

A masked score becomes the lowest of its row, less 30. That is at least 30 below every score that
counts, so of a thousand masked keys the softmax's sum gains 1e-10 of its largest term: nothing, in
float32, whose next number after 1 is 1.2e-7 away. And the range of the scores grows by 30 only,
where Keras' fill of -1e9 would leave an int8 one step for all that is real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn.tensors import Array

MASK_OFFSET = 30.0

# ``(mask, yes, no)``: ``yes`` where the boolean mask, a tensor or an array, says so, else ``no``.
Select = Callable[[Any, Any, Any], Any]


def select_by_arithmetic(mask: Any, yes: Any, no: Any) -> Any:
    """A selection in operators that XNNPACK takes; exact with 0 and 1, of finite numbers."""
    import tensorflow as tf

    # A constant mask stays one.
    constant = isinstance(mask, np.ndarray)
    real = mask.astype(np.float32) if constant else tf.cast(mask, tf.float32)
    if isinstance(no, float) and no == 0:
        return yes * real
    return yes * real + no * (1.0 - real)


def select_by_where(mask: Any, yes: Any, no: Any) -> Any:
    """A selection in one operator, where the runtime has a quick one."""
    import tensorflow as tf

    return tf.where(mask, yes, no)


def mask_scores(scores: Any, mask: Any, select: Select) -> Any:
    """``scores`` (..., keys), far below all others where ``mask`` says no.

    The mask broadcasts to them. A row without any key that counts is filled evenly.
    """
    import tensorflow as tf

    return select(mask, scores, tf.reduce_min(scores, axis=-1, keepdims=True) - MASK_OFFSET)


def causal_mask(queries: int, keys: int) -> Array:
    """(1, queries, keys): whether a query may look at a key."""
    return np.tril(np.ones((1, queries, keys), bool))


def combine_masks(first: Any, second: Any) -> Any:
    """Where both of two masks say yes; None says it everywhere."""
    import tensorflow as tf

    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first & second
    return tf.logical_and(tf.cast(first, tf.bool), tf.cast(second, tf.bool))


def mask_arguments(arguments: Mapping[str, Any]) -> list[Any]:
    """The masks among a layer's arguments; of a list of them, each."""
    found = [v for name, v in arguments.items() if name == "mask" or name.endswith("_mask")]
    return [
        item
        for value in found
        if not isinstance(value, bool)  # use_causal_mask
        for item in (value if isinstance(value, list | tuple) else [value])
        if item is not None
    ]
