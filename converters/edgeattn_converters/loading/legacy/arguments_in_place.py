"""Arguments in place as in Keras 2: values that are no tensors, and the mask of an attention layer.

Keras 3 takes only tensors in place: ``layer(x, False, mask)`` is an error, and so is
``layer(x, None)`` if it finds a mask for the place of None. A ``mask`` in place does not become
that of the result. The fourth argument of its ``MultiHeadAttention`` is ``query_mask``; that of
Keras 2 is ``attention_mask``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from edgeattn_converters.loading.own_code.own_classes import is_own_class

# The arguments of MultiHeadAttention in Keras 2, in their order.
_OF_ATTENTION: tuple[str, ...] = (
    "query",
    "value",
    "key",
    "attention_mask",
    "return_attention_scores",
    "training",
    "use_causal_mask",
)
# Those that have the same places in Keras 3.
_SAME_PLACES = 3


def by_name(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, by name from the first that Keras 3 treats otherwise."""
    if _is_attention(layer):
        names, end = _OF_ATTENTION, _SAME_PLACES
    else:
        parameters = inspect.signature(layer.call).parameters.values()
        if any(item.kind is item.VAR_POSITIONAL for item in parameters):
            return args, kwargs
        names = tuple(item.name for item in parameters)
        end = names.index("mask") if "mask" in names else len(args)
    others = (place for place, value in enumerate(args) if place and not _is_accepted(value))
    end = min(end, next(others, end))
    named = dict(zip(names[end:], args[end:], strict=False))
    if len(names) < len(args) or named.keys() & kwargs.keys():
        return args, kwargs  # which Keras reports
    return args[:end], {**named, **kwargs}


def has_mask_of_attention(layer: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a call has the argument that is another mask in Keras 2."""
    in_place = args[_SAME_PLACES] if len(args) > _SAME_PLACES else None
    return in_place is not None and _is_attention(layer)


def _is_attention(layer: Any) -> bool:
    import keras

    defining = next(cls for cls in type(layer).__mro__ if "call" in vars(cls))
    # Also that of older versions, which has the order of Keras 3.
    return issubclass(defining, keras.layers.MultiHeadAttention) and not is_own_class(defining)


def attention_call(of_keras: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``MultiHeadAttention.call`` with the places of Keras 2, for ``super().call(...)``."""

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        named = dict(zip(_OF_ATTENTION[_SAME_PLACES:], args[_SAME_PLACES:], strict=False))
        return of_keras(layer, *args[:_SAME_PLACES], **named, **kwargs)

    return call


def _is_accepted(value: Any) -> bool:
    """Whether Keras 3 takes a value in place as Keras 2: a tensor or an array, or several."""
    import keras

    numbers = bool | int | float | str
    return value is not None and not any(
        isinstance(item, numbers) for item in keras.tree.flatten(value)
    )
