"""Attention weights as named outputs, of the same computation that gives the model's answer."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeattn.errors import UsageError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.lowering.masking import mask_arguments
from edgeattn_converters.lowering.replacement import all_layers, replaced_calls
from edgeattn_converters.lowering.rnn.cells import is_keras_class
from edgeattn_converters.tracing.softmax_search import NO_PRODUCT, called, softmaxes

PREFIX = "attention/"
KERAS_LAYERS = (
    "Attention",
    "AdditiveAttention",
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "GroupQueryAttention",
)


@dataclass(frozen=True)
class Map:
    """Attention weights of a traced graph: the batch axis first, the keys last.

    ``name`` is ``attention/LAYER``, with ``_1``, ``_2`` behind it where one layer has more than
    one. ``known`` are layers whose own word for it is taken; of a softmax that was found in the
    graph, ``doubt`` says why it may be no attention. ``inside`` are the layers around it.
    """

    name: str
    layer: str
    weights: Any
    known: bool = True
    doubt: str | None = None
    inside: tuple[str, ...] = ()


@contextlib.contextmanager
def maps_of(model: Any, lengths: Sequence[int]) -> Iterator[Callable[[], list[Map]]]:
    """Within it, after a call of ``model``, the function tells the maps that the call made.

    ``lengths`` are those of the model's sequences.
    """
    import tensorflow as tf

    noted: list[tuple[str, Any]] = []
    attention = [layer.name for layer in all_layers(model) if is_attention(layer)]

    def told() -> list[Map]:
        graph = tf.compat.v1.get_default_graph()
        others = softmaxes(graph, calls, attention, lengths)
        maps: list[Map] = []

        def add(layer: str, weights: Any, **more: Any) -> None:
            taken = {item.name for item in maps}
            name = base = f"{PREFIX}{layer}"
            count = 0
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            maps.append(Map(name, layer, weights, **more))

        for layer, weights in noted:
            add(layer, weights)
        for item in others:
            add(item.layer, item.keys_last(), known=False, doubt=item.doubt, inside=item.inside)
        return maps

    with (
        replaced_calls(
            model,
            lambda layer: _exposing(layer, lambda item, value: noted.append((item.name, value))),
        ),
        called(model) as calls,
    ):
        yield told


class Doubtful(NamedTuple):
    """A layer that may have a map which is not told, and whether naming it would tell it."""

    layer: str
    why: str
    can_be_told: bool


@dataclass(frozen=True)
class Asked:
    """The layers of ``model`` that a user names as attention: ``convert --attention LAYER``."""

    model: Any
    layers: Sequence[str] = field(default=())

    def choose(
        self,
        found: Sequence[tuple[Map, TensorSpec]],
        lost: Sequence[Map],
        strange: Collection[str],
    ) -> tuple[tuple[TensorSpec, ...], tuple[Doubtful, ...]]:
        """The maps that are told, and those that may be one and are not.

        ``lost`` are those inside of loops, ``strange`` the names of those whose first axis is not
        the batch's. :class:`UsageError` where a layer that was named has none.
        """
        chosen: list[TensorSpec] = []
        doubtful: list[Doubtful] = []
        for item, spec in found:
            doubt: str | None = None
            possible = False
            if None in spec.shape[1:] or len(spec.shape) < 2:
                # Only known at run time, it cannot be an output of a static graph.
                doubt = "the size of its map depends on the input's values"
            elif item.name in strange:
                doubt = "the first axis of its map is not the batch's: no sample has its own"
            elif not self._named(item):
                doubt, possible = item.doubt, True
            if doubt is None:
                chosen.append(spec)
            elif item.doubt != NO_PRODUCT:
                doubtful.append(Doubtful(item.layer, doubt, possible))
        doubtful += [
            Doubtful(item.layer, "it is inside a loop and cannot leave it", False)
            for item in lost
            if item.doubt != NO_PRODUCT
        ]
        self._check([item for item, _ in found], [item.layer for item in doubtful], chosen)
        return tuple(chosen), tuple(doubtful)

    def _named(self, item: Map) -> bool:
        return item.layer in self.layers or bool(set(item.inside) & set(self.layers))

    def _check(self, maps: list[Map], doubtful: list[str], chosen: list[TensorSpec]) -> None:
        candidates = list(dict.fromkeys([*(item.layer for item in maps), *doubtful]))
        there = (
            f"Layers with a softmax: {', '.join(candidates)}."
            if candidates
            else ("No layer of this model has a softmax.")
        )
        told = {spec.name for spec in chosen}
        for name in self.layers:
            if any(item.name in told and name in (item.layer, *item.inside) for item in maps):
                continue
            names = [layer.name for layer in all_layers(self.model)]
            if name in names or name in candidates:
                raise UsageError(
                    f"--attention {name}: this layer has no map that can be told.", hint=there
                )
            near = difflib.get_close_matches(name, [*candidates, *names], 1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"--attention {name}: the model has no layer of this name.{meant}", hint=there
            )


def is_attention(layer: Any) -> bool:
    """Whether the weights of ``layer`` can be told."""
    known = is_keras_class(layer, *KERAS_LAYERS) or _is_of_an_era(layer)
    return _is_ours(layer) or (
        known and "return_attention_scores" in inspect.signature(_keras_call(layer)).parameters
    )


def _is_of_an_era(layer: Any) -> bool:
    """MultiHeadAttention with the masks of an older Keras (edgeattn_converters.loading)."""
    kind = type(layer)
    return kind.__name__ == "LegacyMultiHeadAttention" and kind.__module__.startswith(
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
        if _is_ours(layer) or asked or not mask_arguments(kwargs):
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
