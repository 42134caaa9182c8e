"""Exports attention weights as outputs of the same computation that gives the model's outputs."""

import contextlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeattn_converters.graphs.scopes import recorded_scopes
from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import all_layers, replaced_calls
from edgeattn_converters.lowering.masking import mask_arguments
from edgeattn_converters.lowering.plain_layers import lower_signature
from edgeattn_converters.tracing.dataflow import find_weighted_sums
from edgeattn_converters.tracing.origins import needed_for
from edgeattn_converters.tracing.softmax_search import (
    Softmax,
    is_of_mask,
    record_calls,
    softmaxes,
)

PREFIX = "attention/"
_CONVOLUTIONS = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
KERAS_LAYERS = (
    "Attention",
    "AdditiveAttention",
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "GroupQueryAttention",
)


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights in a traced graph, of shape (batch, ..., keys).

    ``name`` is ``attention/LAYER``, with a suffix ``_1``, ``_2`` if a layer has several. ``layer``
    is the innermost layer that computes the weights, ``inside`` are the layers around it, from the
    innermost. In the graph of a SavedModel, ``layer`` is the rest of ``name``, the scope of the
    softmax, or ``signature`` if it has none. Unless the map is ``known`` to be
    that of an attention layer, it is a softmax that was detected in the graph, and ``doubt`` says
    why it may not be attention. ``data`` are the
    tensors whose positions the weights are for, and ``query`` is that of the layer; both are empty
    if they are unknown.
    """

    name: str
    layer: str
    weights: Any
    known: bool = True
    doubt: str | None = None
    inside: tuple[str, ...] = ()
    data: tuple[Any, ...] = ()
    query: Any = None


# The maps, from the sequence lengths of a model's inputs, and its outputs.
CollectMaps = Callable[[Sequence[int], Sequence[Any]], list[AttentionMap]]


@contextlib.contextmanager
def maps_of(model: Any, multiplying: Collection[str] = ()) -> Iterator[CollectMaps]:
    """A context whose function returns the maps of the last call of ``model`` within it.

    ``multiplying`` names maps that are known to multiply data. While the number of samples is
    fixed, data that depends on nothing else of the inputs is a constant.
    """
    import tensorflow as tf

    recorded: list[tuple[str, _Weights, Any, Any]] = []
    excluded = [layer.name for layer in all_layers(model) if is_attention(layer)]
    # Their softmaxes are activations, also in loops.
    excluded += [
        layer.cell.name for layer in all_layers(model) if is_keras_class(layer, *_CONVOLUTIONS)
    ]

    def record(layer: Any, weights: _Weights, query: Any, result: Any) -> None:
        if not (hasattr(weights.tensor, "op") and is_of_mask(weights.tensor.op)):
            recorded.append((layer.name, weights, query, result))

    def collect(lengths: Sequence[int], outputs: Sequence[Any]) -> list[AttentionMap]:
        graph = tf.compat.v1.get_default_graph()
        needed = needed_for([tensor for tensor in outputs if hasattr(tensor, "op")])
        # The first step of a loop that Keras computes outside it for its shapes has no map.
        used = [
            item
            for item in recorded
            if any(_is_needed(tensor, graph, needed) for tensor in (item[1].tensor, item[3]))
        ]
        layers = [layer for layer, *_ in used]
        search = partial(softmaxes, graph, calls, excluded, lengths, needed, scopes)
        names, detected = _by_name(layers, search())
        certain = {*names, *(name for name, item in detected.items() if item.doubt is None)}
        if not certain.issuperset(multiplying):
            _, others = _by_name(layers, search(constants=True))
            detected |= {name: item for name, item in others.items() if name in multiplying}
        known = [
            AttentionMap(
                name,
                layer,
                weights.joined(),
                data=_weighted_data(weights, lengths),
                query=query,
            )
            for name, (layer, weights, query, _) in zip(names, used, strict=True)
        ]
        return known + [_detected(name, item) for name, item in detected.items()]

    def exposing(layer: Any) -> Callable[..., Any] | None:
        # The graph of a SavedModel is otherwise a function, which is not searched.
        if (signature := lower_signature(layer)) is not None:
            return signature
        return _exposing(layer, record)

    with (
        replaced_calls(model, exposing),
        record_calls(model) as calls,
        recorded_scopes() as scopes,
    ):
        yield collect


def _by_name(
    layers: Sequence[str], detected: Sequence[Softmax]
) -> tuple[list[str], dict[str, Softmax]]:
    """The names of the maps of ``layers``, and softmaxes by the names of their maps."""
    scopes = [item.scope or item.layer for item in detected]
    names = unique([f"{PREFIX}{layer}" for layer in (*layers, *scopes)])
    count = len(layers)
    return names[:count], dict(zip(names[count:], detected, strict=True))


def _detected(name: str, item: Softmax) -> AttentionMap:
    """The map of a softmax. In the graph of a SavedModel, which has no layers, its own name selects
    it."""
    layer, inside = item.layer, item.inside
    if item.scope is not None:
        layer, inside = name.removeprefix(PREFIX), ()
    data = () if item.weighted_sum is None else item.weighted_sum.data
    return AttentionMap(name, layer, item.keys_last(), False, item.doubt, inside, data)


@dataclass(frozen=True)
class _Weights:
    """The weights of an attention layer, ``tensor``, whose last ``axes`` axes are those of the
    keys, and as many before them those of the queries."""

    tensor: Any
    axes: int

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of the keys."""
        rank = self.tensor.shape.rank
        return tuple(range(rank - self.axes, rank))

    def joined(self) -> Any:
        """The weights as a map, (batch, ..., queries, keys).

        The softmax is over all axes of the keys together, so that only together they are one
        distribution.
        """
        import tensorflow as tf

        if self.axes == 1:
            return self.tensor
        sizes = list(self.tensor.shape)[1:]
        if None in sizes:
            known = tf.unstack(tf.shape(self.tensor))[1:]
            sizes = [k if size is None else size for size, k in zip(sizes, known, strict=True)]
        others = sizes[: -2 * self.axes]
        queries = math.prod(sizes[-2 * self.axes : -self.axes])
        return tf.reshape(self.tensor, [-1, *others, queries, math.prod(sizes[-self.axes :])])


def _is_needed(tensor: Any, graph: Any, needed: Collection[str]) -> bool:
    """Whether outputs depend on a tensor; true for those of other graphs, as in loops."""
    return not hasattr(tensor, "op") or tensor.graph is not graph or tensor.op.name in needed


def _weighted_data(weights: _Weights, lengths: Sequence[int]) -> tuple[Any, ...]:
    """The tensors that the weights of an attention layer multiply."""
    tensor = weights.tensor
    if not hasattr(tensor, "op") or tensor.shape.rank is None:
        return ()
    found = find_weighted_sums(tensor, [weights.positions], lengths)
    return tuple({tensor.name: tensor for item in found for tensor in item.data}.values())


def unique(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """``names``, with a numeric suffix for those that repeat or are taken.

    Such a suffix gives none of them the name of another one: that of a layer stays its own.
    """
    result: list[str] = []
    for name in names:
        free, count = name, 0
        while free in result or free in taken or (count and free in names):
            count += 1
            free = f"{name}_{count}"
        result.append(free)
    return result


def is_attention(layer: Any) -> bool:
    """Whether ``layer`` is an attention layer that can return its weights."""
    known = is_keras_class(layer, *KERAS_LAYERS) or _has_legacy_masks(layer)
    return _is_ours(layer) or (
        known and "return_attention_scores" in inspect.signature(_keras_call(layer)).parameters
    )


def _has_legacy_masks(layer: Any) -> bool:
    """Whether it is the MultiHeadAttention with the masks of an older Keras."""
    from edgeattn_converters.loading.migrate.legacy_mask_layers import LegacyMultiHeadAttention

    return type(layer) is LegacyMultiHeadAttention


def _keras_call(layer: Any) -> Any:
    # The subclass passes all arguments on, so that only its parent's signature names them.
    return vars(type(layer).__mro__[1])["call"] if _has_legacy_masks(layer) else layer.call


def _is_ours(layer: Any) -> bool:
    kind = type(layer)
    return kind.__name__ == "Attention" and kind.__module__.startswith("edgeattn.layers")


def _exposing(layer: Any, record: Callable[..., None]) -> Callable[..., Any] | None:
    """A call that passes the layer's weights and query to ``record``; its result is unchanged."""
    if not is_attention(layer):
        return None
    original = layer.call
    if _is_ours(layer):
        option, default = "return_attention_weights", layer.return_attention_weights
    else:
        option, default = "return_attention_scores", False

    def call(*args: Any, **kwargs: Any) -> Any:
        requested = kwargs.pop(option, None)
        requested = default if requested is None else requested
        if _is_ours(layer) or requested or not mask_arguments(kwargs):
            result, weights = original(*args, **{**kwargs, option: True})
            record(layer, _weights(layer, weights), _query(layer, args, kwargs), result)
            return (result, weights) if requested else result
        # Keras computes different outputs with scores and without if a query is padding, so the
        # output is computed without and the scores separately. A call removes the masks from its
        # arguments, so they are restored in between.
        tensors = [value for value in (*args, *kwargs.values()) if hasattr(value, "_keras_mask")]
        masks = [tensor._keras_mask for tensor in tensors]
        result = original(*args, **kwargs)
        for tensor, mask in zip(tensors, masks, strict=True):
            tensor._keras_mask = mask
        weights = original(*args, **{**kwargs, option: True})[1]
        record(layer, _weights(layer, weights), _query(layer, args, kwargs), result)
        return result

    return call


def _weights(layer: Any, tensor: Any) -> _Weights:
    """The weights that a call of a layer has returned."""
    axes = getattr(layer, "_attention_axes", None)  # those of a MultiHeadAttention
    return _Weights(tensor, 1 if axes is None else len(axes))


def _query(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The query in the arguments of a layer of Keras; None if it is another layer."""
    if _is_ours(layer):
        return None
    first = args[0] if args else kwargs.get("query", kwargs.get("inputs"))
    return first[0] if isinstance(first, list | tuple) else first
