"""Recurrent layers as graphs that edge runtimes run right.

While a model is traced for a target, the ``call`` of each layer that has a lowering is replaced;
everything else of the model, nested and shared layers among it, is traced as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgeattn_converters.lowering.rnn.layers import Recurrence, lower_layer

# For a layer, what takes the place of its ``call``; None where that stays.
Lowering = Callable[[Any], Callable[..., Any] | None]

_DRAWS = "_maybe_config_dropout_masks"


@contextlib.contextmanager
def lowered(model: Any, recurrence: Recurrence, others: Sequence[Lowering] = ()) -> Iterator[None]:
    """Within it, ``model`` computes its recurrences with ``recurrence``, and what the first of the
    ``others`` takes as that says."""

    def replacement(layer: Any) -> Callable[..., Any] | None:
        for lowering in (lambda layer: lower_layer(layer, recurrence), *others):
            if (call := lowering(layer)) is not None:
                return call
        return None

    with replaced_calls(model, replacement), _without_dropout_masks(model):
        yield


@contextlib.contextmanager
def _without_dropout_masks(model: Any) -> Iterator[None]:
    """Within it, recurrent layers that stay as they are draw no random masks.

    Keras draws them ahead of a sequence even where it only predicts, uses none, and writes down
    the state of its random numbers: a variable, which a frozen graph cannot have.
    """
    layers = [item for item in all_layers(model) if hasattr(item, _DRAWS)]
    try:
        for layer in layers:
            object.__setattr__(layer, _DRAWS, lambda *_: None)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop(_DRAWS, None)


@contextlib.contextmanager
def replaced_calls(
    model: Any, replacement: Callable[[Any], Callable[..., Any] | None]
) -> Iterator[None]:
    """Within it, each layer for which ``replacement`` gives a function has that as its ``call``."""
    replaced = []
    try:
        for layer in all_layers(model):
            call = replacement(layer)
            if call is not None:
                before = layer.__dict__.get("call")
                # Past Keras' own __setattr__, which would track the function as state.
                object.__setattr__(layer, "call", call)
                replaced.append((layer, before))
        yield
    finally:
        for layer, before in reversed(replaced):
            if before is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", before)


@contextlib.contextmanager
def with_attributes(layer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Within it, ``layer`` itself has these, whatever its class or Keras says."""
    before = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    try:
        for name, value in values.items():
            # Past Keras' own __setattr__, which would track them as state.
            object.__setattr__(layer, name, value)
        yield
    finally:
        for name in values:
            if name in before:
                object.__setattr__(layer, name, before[name])
            else:
                object.__delattr__(layer, name)


def all_layers(model: Any) -> list[Any]:
    """Every layer of a Keras 3 or tf_keras model, those inside of others too, each once."""
    seen: dict[int, Any] = {}
    for layer in model._flatten_layers(include_self=False, recursive=True):
        seen.setdefault(id(layer), layer)
    return list(seen.values())
