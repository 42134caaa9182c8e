"""Attention weights as named outputs, of the same computation that gives the model's answer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from edgeattn_converters.lowering import replaced_calls
from edgeattn_converters.lowering.attention import masks_in
from edgeattn_converters.lowering.cells import is_keras_class

PREFIX = "attention/"
KERAS_LAYERS = (
    "Attention",
    "AdditiveAttention",
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "GroupQueryAttention",
)

Found = list[tuple[str, Any]]


@contextlib.contextmanager
def exposed(model: Any) -> Iterator[Found]:
    """Within it, a call of ``model`` adds ``(name, weights)`` of every attention layer to the list.

    A name is ``attention/LAYER``, with ``_1``, ``_2`` behind it where one layer is called more than
    once. Weights have the batch axis first and the keys last.
    """
    found: Found = []

    def note(layer: Any, weights: Any) -> None:
        taken = {name for name, _ in found}
        name = base = f"{PREFIX}{layer.name}"
        count = 0
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        found.append((name, weights))

    with replaced_calls(model, lambda layer: _exposing(layer, note)):
        yield found


def is_attention(layer: Any) -> bool:
    """Whether the weights of ``layer`` can be told."""
    known = is_keras_class(layer, *KERAS_LAYERS) or _is_of_an_era(layer)
    return _is_ours(layer) or (
        known and "return_attention_scores" in inspect.signature(_keras_call(layer)).parameters
    )


def _is_of_an_era(layer: Any) -> bool:
    """MultiHeadAttention with the masks of an older Keras (edgeattn_converters.sources)."""
    kind = type(layer)
    return kind.__name__ == "EraMultiHeadAttention" and kind.__module__.startswith(
        "edgeattn_converters."
    )


def _keras_call(layer: Any) -> Any:
    # An era's own call passes on what its parent takes.
    return vars(type(layer).__mro__[1])["call"] if _is_of_an_era(layer) else layer.call


def _is_ours(layer: Any) -> bool:
    kind = type(layer)
    return kind.__name__ == "Attention" and kind.__module__.startswith("edgeattn.layers")


def _exposing(layer: Any, note: Callable[[Any, Any], None]) -> Callable[..., Any] | None:
    if not is_attention(layer):
        return None
    original = layer.call
    if _is_ours(layer):
        option, asked_by_default = "return_attention_weights", layer.return_attention_weights
    else:
        option, asked_by_default = "return_attention_scores", False

    def call(*args: Any, **kwargs: Any) -> Any:
        asked = kwargs.pop(option, None)
        asked = asked_by_default if asked is None else asked
        if _is_ours(layer) or asked or not masks_in(kwargs):
            result, weights = original(*args, **{**kwargs, option: True})
            note(layer, weights)
            return (result, weights) if asked else result
        # Keras' two ways through a layer, with scores and without, differ where a query is padding
        # itself: the model's answer goes the way it always went, and the scores beside it. A call
        # takes the masks off its arguments, so they are put back in between.
        tensors = [value for value in (*args, *kwargs.values()) if hasattr(value, "_keras_mask")]
        worn = [tensor._keras_mask for tensor in tensors]
        result = original(*args, **kwargs)
        for tensor, mask in zip(tensors, worn, strict=True):
            tensor._keras_mask = mask
        note(layer, original(*args, **{**kwargs, option: True})[1])
        return result

    return call
