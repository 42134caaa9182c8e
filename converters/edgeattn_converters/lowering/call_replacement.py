"""Tracing a model with some of its layers replaced.

While a model is traced for a target, the ``call`` of each layer that has a lowering is replaced.
Everything else, including nested and shared layers, is traced unchanged.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgeattn_converters.lowering.rnn.layers import lower_layer
from edgeattn_converters.lowering.rnn.recurrence import RecurrenceLowering

# Returns the replacement of a layer's ``call``, or None to leave it unchanged.
Lowering = Callable[[Any], Callable[..., Any] | None]

_DRAW_MASKS = "_maybe_config_dropout_masks"
_DRAW_TRANSFORMATION = "get_random_transformation"


@contextlib.contextmanager
def lowered(
    model: Any, recurrence: RecurrenceLowering, others: Sequence[Lowering] = ()
) -> Iterator[None]:
    """Within the context, recurrent layers are lowered by ``recurrence``, any other layer by the
    first of ``others`` that applies to it."""

    def replacement(layer: Any) -> Callable[..., Any] | None:
        for lowering in (lambda layer: lower_layer(layer, recurrence), *others):
            if (call := lowering(layer)) is not None:
                return call
        return None

    with replaced_calls(model, replacement), _without_random_numbers(model):
        yield


def _without_random_numbers(model: Any) -> contextlib.ExitStack:
    """A context in which layers of Keras draw no random numbers.

    Recurrent layers draw masks before a sequence, and some layers for images a transformation, even
    in inference, where they do not use them. Keras stores the state of its random generator in a
    variable, which a frozen graph cannot have.
    """
    stack = contextlib.ExitStack()
    for layer in all_layers(model):
        if hasattr(layer, _DRAW_MASKS):
            stack.enter_context(with_attributes(layer, {_DRAW_MASKS: lambda *_: None}))
        if hasattr(layer, _DRAW_TRANSFORMATION) and _is_random(layer):
            no_transformation = {_DRAW_TRANSFORMATION: lambda *_, **__: None}
            stack.enter_context(with_attributes(layer, no_transformation))
    return stack


def _is_random(layer: Any) -> bool:
    """Whether the layer, of Keras itself, draws random numbers."""
    return type(layer).__module__.startswith("keras.") and hasattr(layer, "generator")


@contextlib.contextmanager
def replaced_calls(model: Any, replacement: Lowering) -> Iterator[None]:
    """Within the context, layers have the ``call`` that ``replacement`` returns, if any."""
    with contextlib.ExitStack() as stack:
        for layer in all_layers(model):
            call = replacement(layer)
            if call is not None:
                stack.enter_context(with_attributes(layer, {"call": call}))
        yield


@contextlib.contextmanager
def with_attributes(layer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Within the context, ``layer`` has these instance attributes.

    They are set without Keras' own ``__setattr__``, which would track them as state.
    """
    previous = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    try:
        for name, value in values.items():
            object.__setattr__(layer, name, value)
        yield
    finally:
        for name in values:
            if name in previous:
                object.__setattr__(layer, name, previous[name])
            else:
                object.__delattr__(layer, name)


def all_layers(model: Any) -> list[Any]:
    """All layers of a Keras 3 or tf_keras model, including nested ones, each once."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    return list({id(layer): layer for layer in layers}.values())
