"""Layers whose treatment of masks has changed, computing as in the Keras that trained them.

The outputs of padded steps matter if a later layer reads them: a Flatten, a maximum, an attention
that ignores masks. These layers are only used in models with masks.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import keras
from keras import ops

from edgeattn_converters.loading.keras_tensors import kept_masks, without_mask
from edgeattn_converters.loading.migrate.replaced_layers import IGNORE_MASKS, KEEP_MASKS
from edgeattn_converters.loading.own_code.own_classes import is_of_library


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyMultiHeadAttention(keras.layers.MultiHeadAttention):
    """``MultiHeadAttention`` with the masks of older Keras versions.

    ``masks="ignore"`` (before Keras 2.10): masks of the inputs have no effect.
    ``masks="add"`` (before Keras 3.10): masked scores are lowered by 1e9, so that a query without
    any unmasked key attends to all keys equally. Today it attends to none or to all, depending on
    dropout.
    ``masks="keep"`` (Keras 2.10 to 2.x): as "add", and the inputs keep their masks for other
    layers. Keras 3 deletes them.
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
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call the layer; Keras passes the masks by the names of these arguments.

        All tensors are named: Keras refuses them in ``kwargs`` beside numbers.
        """
        kwargs["attention_mask"] = attention_mask
        if self.masks == IGNORE_MASKS:
            # stop_gradient returns new tensors, which have no mask attached.
            query, value = ops.stop_gradient(query), ops.stop_gradient(value)
            key = None if key is None else ops.stop_gradient(key)
            return super().call(query, value, key, **kwargs)
        masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask}
        inputs = [tensor for tensor in (query, value, key) if tensor is not None]
        with kept_masks(inputs if self.masks == KEEP_MASKS else ()):
            return super().call(query, value, key, **masks, **kwargs)

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
            # Before the axes of the queries and keys: a mask may have no axis of the samples.
            axis = -2 * len(self._attention_axes) - 1
            for _ in range(len(scores.shape) - len(attention_mask.shape)):
                attention_mask = ops.expand_dims(attention_mask, axis)
            fill = _fill_of(scores)
            scores = scores + (1.0 - ops.cast(attention_mask, scores.dtype)) * fill
        weights = ops.softmax(scores, axis=-1)
        return ops.einsum(self._combine_equation, weights, value), weights

    def compute_mask(self, query: Any, value: Any, query_mask: Any = None, **_kwargs: Any) -> Any:
        """Return the mask of the query, or None if masks are ignored."""
        return None if self.masks == IGNORE_MASKS else query_mask

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``masks``."""
        return {**super().get_config(), "masks": self.masks}


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacySoftmax(keras.layers.Softmax):
    """``Softmax`` with the masks of Keras before 3.10, which lowers masked scores by 1e9.

    A row without any unmasked value has equal weights; over several axes, each of them is 1,
    because the logarithm of their number is lost beside 1e9. Today it has none.
    """

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the weights; ``mask`` is True or 1 for values to keep."""
        if mask is not None:
            inputs = inputs + (1.0 - ops.cast(mask, inputs.dtype)) * _fill_of(inputs)
        if isinstance(self.axis, int):
            return ops.softmax(inputs, axis=self.axis)
        if len(self.axis) == 1:
            return ops.softmax(inputs, axis=self.axis[0])
        return ops.exp(inputs - ops.logsumexp(inputs, axis=tuple(self.axis), keepdims=True))


def _fill_of(scores: Any) -> float:
    """What Keras adds to masked scores."""
    return -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e9


_OPERATIONS: Mapping[str, Any] = {
    "Add": ops.add, "Subtract": ops.subtract, "Multiply": ops.multiply, "Average": ops.add,
    "Maximum": ops.maximum, "Minimum": ops.minimum,
}  # fmt: skip


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyMerge(keras.layers.Layer):
    """Add, Subtract, Multiply, Average, Maximum and Minimum of Keras 2, which ignore masks.

    A step of the output is valid if it is valid in every input. In Keras 3 masked steps take the
    value of the other inputs, and a step is valid if it is valid in any input.
    """

    def __init__(self, operation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Combine the inputs; missing axes are inserted after the batch axis, as in Keras."""
        rank = max(len(tensor.shape) for tensor in inputs)
        result, *others = (self._expanded(tensor, rank) for tensor in inputs)
        for tensor in others:
            result = _OPERATIONS[self.operation](result, tensor)
        return result / len(inputs) if self.operation == "Average" else result

    @staticmethod
    def _expanded(tensor: Any, rank: int) -> Any:
        for _ in range(rank - len(tensor.shape)):
            tensor = ops.expand_dims(tensor, 1)
        return tensor

    def compute_mask(self, _inputs: Any, mask: Any = None) -> Any:
        """Return the conjunction of the masks; an input without one is valid everywhere."""
        return _all_of(mask)

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``operation``."""
        return {**super().get_config(), "operation": self.operation}


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyConcatenate(keras.layers.Concatenate):
    """Concatenate of Keras 2: along the features, a step is valid if valid in every input."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the conjunction of all masks; an input without a mask is valid everywhere."""
        return _concatenated_mask(self, inputs, mask)


_mask_in_keras_3 = keras.layers.Concatenate.compute_mask


def _concatenated_mask(layer: Any, inputs: Any, mask: Any = None) -> Any:
    last = layer.axis in (-1, len(inputs[0].shape) - 1)
    if not last or mask is None or all(item is None for item in mask):
        return _mask_in_keras_3(layer, inputs, mask)
    return _all_of(mask)


@contextlib.contextmanager
def of_keras_2() -> Iterator[None]:
    """Within the context, layers of Keras use masks as in Keras 2, and their results have those.

    For layers that cannot be replaced, because a ``call`` of the user creates them. Keras 3 stores
    the masks of results in the calls of the layers behind them.
    """
    changed: list[tuple[Any, str, Any]] = [
        (keras.layers.Concatenate, "compute_mask", _concatenated_mask),
        (keras.layers.Softmax, "call", LegacySoftmax.call),
    ]
    for name in _OPERATIONS:
        changed.append((getattr(keras.layers, name), "compute_mask", LegacyMerge.compute_mask))
    for name in ("Multiply", "Maximum", "Minimum"):
        merged = functools.partialmethod(_merged, _OPERATIONS[name])
        changed.append((getattr(keras.layers, name), "_merge_function", merged))
    changed.append((keras.layers.Identity, "call", _copied))
    for name in ("Identity", "Rescaling"):
        changed.append((getattr(keras.layers, name), "compute_mask", _no_mask))
    with contextlib.ExitStack() as stack:
        for cls, name, value in changed:
            stack.enter_context(mock.patch.object(cls, name, value))
        yield


def _merged(_layer: Any, operation: Any, inputs: Any) -> Any:
    return functools.reduce(operation, inputs)


def _copied(_layer: Any, inputs: Any) -> Any:
    return keras.tree.map_structure(without_mask, inputs)


def _no_mask(_layer: Any, *_args: Any, **_kwargs: Any) -> None:
    """The mask of a result of a layer at which masks end."""


def join_masks(cls: Any) -> None:
    """Give a class of the user that merges inputs, and has the masks of a layer of Keras, those of
    Keras 2. It lasts."""
    merge = keras.layers.Add.__mro__[1]
    if not issubclass(cls, merge) or issubclass(cls, keras.layers.Dot):
        return
    if is_of_library(cls.compute_mask.__module__ or ""):
        joined = issubclass(cls, keras.layers.Concatenate)
        cls.compute_mask = _concatenated_mask if joined else LegacyMerge.compute_mask


@keras.saving.register_keras_serializable(package="edgeattn")
class StepMask(keras.layers.Layer):
    """The mask of a sequence, ``(batch, steps)``, as a tensor: see :mod:`.state_masks`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, sequence: Any, mask: Any = None) -> Any:
        """Return the mask; without one, all steps are valid."""
        if mask is not None:
            return ops.cast(mask, "bool")
        return ops.ones(ops.shape(sequence)[:2], dtype="bool")

    def compute_mask(self, _sequence: Any, _mask: Any = None) -> None:
        """Return None: the result is no sequence."""


def _all_of(masks: Any) -> Any:
    result = None
    for mask in masks or ():
        if mask is not None:
            result = mask if result is None else ops.logical_and(result, mask)
    return result
