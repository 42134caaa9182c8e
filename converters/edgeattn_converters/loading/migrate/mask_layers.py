"""Layers whose treatment of masks has changed since they were trained, as they were then.

What a padded step gets matters wherever something later reads it: a Flatten, a maximum, an
attention that ignores masks. They are only used for models with masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from edgeattn_converters.loading.migrate.keras2 import IGNORE


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyMultiHeadAttention(keras.layers.MultiHeadAttention):
    """``MultiHeadAttention`` with the masks of its time.

    ``masks="ignore"``: before Keras 2.10 masks that came with its inputs did nothing.
    ``masks="add"``: until Keras 3.9 a masked score was lowered by 1e9, so that a query without
    any key looked at all of them alike; today it looks at none, or at all, depending on dropout.
    """

    def __init__(self, *args: Any, masks: str = "add", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.masks = masks
        self.supports_masking = True

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As of its parent; see the class. Keras passes masks to arguments of these names."""
        if self.masks == IGNORE:
            # Tensors of their own, to which no mask is attached.
            query, value = ops.stop_gradient(query), ops.stop_gradient(value)
            key = None if key is None else ops.stop_gradient(key)
            return super().call(query, value, key, **kwargs)
        return super().call(query, value, key, query_mask, value_mask, key_mask, **kwargs)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
        **_kwargs: Any,
    ) -> tuple[Any, Any]:
        scale = ops.cast(self._inverse_sqrt_key_dim, query.dtype)
        # (batch, heads, query, key)
        scores = ops.einsum(self._dot_product_equation, key, ops.multiply(query, scale))
        if attention_mask is not None:
            for _ in range(len(scores.shape) - len(attention_mask.shape)):
                attention_mask = ops.expand_dims(attention_mask, 1)
            low = -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e9
            scores = scores + (1.0 - ops.cast(attention_mask, scores.dtype)) * low
        weights = ops.softmax(scores, axis=-1)
        return ops.einsum(self._combine_equation, weights, value), weights

    def compute_mask(self, query: Any, value: Any, query_mask: Any = None, **_kwargs: Any) -> Any:
        """The query's, or none where masks end here."""
        return None if self.masks == IGNORE else query_mask

    def get_config(self) -> dict[str, Any]:
        """``masks`` beside the parent's."""
        return {**super().get_config(), "masks": self.masks}


_MERGES: Mapping[str, Any] = {
    "Add": ops.add, "Subtract": ops.subtract, "Multiply": ops.multiply, "Average": ops.add,
    "Maximum": ops.maximum, "Minimum": ops.minimum,
}  # fmt: skip


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyMerge(keras.layers.Layer):
    """Keras 2's Add, Subtract, Multiply, Average, Maximum and Minimum: blind to masks.

    A step of the result counts if it counts in every input. Keras 3 fills in where some inputs
    are masked, and a step counts if it counts in any.
    """

    def __init__(self, operation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The inputs, broadcast as Keras does: missing axes come right after the batch."""
        rank = max(len(one.shape) for one in inputs)
        whole, *others = (self._widened(one, rank) for one in inputs)
        for one in others:
            whole = _MERGES[self.operation](whole, one)
        return whole / len(inputs) if self.operation == "Average" else whole

    @staticmethod
    def _widened(one: Any, rank: int) -> Any:
        for _ in range(rank - len(one.shape)):
            one = ops.expand_dims(one, 1)
        return one

    def compute_mask(self, _inputs: Any, mask: Any = None) -> Any:
        """All of them together; none if one input has none."""
        return _together(mask)

    def get_config(self) -> dict[str, Any]:
        """``operation``."""
        return {**super().get_config(), "operation": self.operation}


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyConcatenate(keras.layers.Concatenate):
    """Keras 2's Concatenate along the features: a step counts if it counts in every input."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """All masks together; an input without one counts everywhere."""
        last = self.axis in (-1, len(inputs[0].shape) - 1)
        if not last or mask is None or all(one is None for one in mask):
            return super().compute_mask(inputs, mask)
        return _together([one for one in mask if one is not None])


def _together(masks: Any) -> Any:
    if masks is None or any(one is None for one in masks):
        return None
    whole, *others = masks
    for one in others:
        whole = ops.logical_and(whole, one)
    return whole
