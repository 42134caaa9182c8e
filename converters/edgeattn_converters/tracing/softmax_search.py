"""Detects attention in a traced graph: softmaxes whose results weight the positions of a sequence.

A softmax is attention if its result reaches a product with a sequence through operations that move
or change weights. A classifier's softmax reaches none.
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.graphs.function_graphs import LOOPS, function_graph
from edgeattn_converters.graphs.scopes import Scopes
from edgeattn_converters.keras_classes import operations_of
from edgeattn_converters.loading.own_code.masks_of_classes import MASK_SCOPE
from edgeattn_converters.lowering.call_replacement import all_layers, with_attributes
from edgeattn_converters.lowering.rnn.recurrence import is_recurrent
from edgeattn_converters.tracing.axes import Axes
from edgeattn_converters.tracing.dataflow import WeightedSum, find_weighted_sums
from edgeattn_converters.tracing.loop_maps import stacked_weights
from edgeattn_converters.tracing.softmax_forms import softmax_of

NO_PRODUCT = "its weights multiply no data"


@dataclass(frozen=True)
class Call:
    """A call of a layer while ``graph`` was traced: the range of its operations in this graph.

    The body of a loop is a graph of its own.
    """

    name: str
    graph: Any
    start: int
    end: int
    recurrent: bool = False


@dataclass(frozen=True)
class Softmax:
    """Weights in the graph that a softmax over ``axes`` begins.

    ``layer`` is the innermost layer or Keras operation that computes the softmax, ``inside`` all of
    them. ``weighted_sum`` is the data that the weights multiply, if any. The weights are the value
    that multiplies it, which the model may compute from the softmax by further operations.
    ``scope`` is that of the softmax in the graph of a SavedModel, "" without one, and None for
    other models.
    """

    layer: str
    inside: tuple[str, ...]
    weights: Any
    axes: Axes
    weighted_sum: WeightedSum | None
    scope: str | None = None

    @property
    def doubt(self) -> str | None:
        """Why it may not be attention, if there is a reason."""
        return NO_PRODUCT if self.weighted_sum is None else self.weighted_sum.doubt

    def keys_last(self) -> Any:
        """The weights in the shape of a map: (batch, ..., keys), or (batch, keys) for one query.

        Keys along several axes, as those of an image, are one axis of the map. Weights inside a
        loop, which cannot leave it, are unchanged.
        """
        import tensorflow as tf

        weights, rank = self.weights, len(self.weights.shape)
        if weights.graph is not _graph():
            return weights
        others = [k for k in range(rank) if k not in self.axes]
        if (order := [*others, *self.axes]) != list(range(rank)):
            weights = tf.transpose(weights, order)
        if len(self.axes) > 1:
            sizes = [weights.shape[k] for k in range(1, len(others))]
            weights = tf.reshape(weights, [-1, *sizes, math.prod(weights.shape[len(others) :])])
        if weights.shape.rank == 3 and weights.shape[1] == 1:
            weights = tf.squeeze(weights, axis=1)
        return weights


@contextlib.contextmanager
def record_calls(model: Any) -> Iterator[list[Call]]:
    """A context in which calls of ``model``'s layers and operations are appended to the list."""
    calls: list[Call] = []
    with contextlib.ExitStack() as stack:
        cells = set(_cells_in_loops(model))
        for item in _parts(model):
            recurrent = id(item) in cells or is_recurrent(item)
            stack.enter_context(with_attributes(item, {"call": _recording(item, calls, recurrent)}))
        yield calls


def _parts(model: Any) -> list[Any]:
    """Layers, and the Keras operations of functional models."""
    layers = all_layers(model)
    known = {id(layer) for layer in layers} | {id(model)}
    parts = list(layers)
    for holder in (model, *layers):
        for operation in operations_of(holder):
            if id(operation) not in known and hasattr(operation, "call"):
                known.add(id(operation))
                parts.append(operation)
    return parts


def _cells_in_loops(model: Any) -> Iterator[int]:
    """Yield the identities of cells, also those of the user, that run in loops.

    Keras calls them once more outside the loop, to find the shapes of the results.
    """
    import keras

    for layer in all_layers(model):
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            yield id(layer.cell)
            yield from map(id, getattr(layer.cell, "cells", ()))


def _recording(item: Any, calls: list[Call], recurrent: bool) -> Callable[..., Any]:
    original, name = item.call, str(item.name)

    # Keras inspects the signature of a call, for masks for example.
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        graph = _graph()
        start = len(graph.get_operations())
        result = original(*args, **kwargs)
        if _graph() is graph:
            calls.append(Call(name, graph, start, len(graph.get_operations()), recurrent))
        return result

    return call


def _graph() -> Any:
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def softmaxes(
    graph: Any,
    calls: Sequence[Call],
    excluded: Sequence[str] = (),
    lengths: Sequence[int] = (),
    needed: Collection[str] | None = None,
    scopes: Scopes | None = None,
    constants: bool = False,
) -> list[Softmax]:
    """Every softmax of ``graph`` in order, except those in recurrent and ``excluded`` layers.

    ``needed`` names the operations that compute the outputs; others are left out, such as the first
    step of a loop, which ``keras.backend.rnn`` computes once more to know shapes. Those in the
    bodies of loops are added if the loop returns them for all steps, or if they are attention
    beyond doubt. ``scopes`` are those of a replayed graph. With ``constants``, a softmax may
    multiply these instead of data.
    """
    scopes = scopes or Scopes()
    result: list[Softmax] = []
    known: set[tuple[str, Axes]] = set()
    own_calls = [call for call in calls if call.graph is graph]
    for number, operation in enumerate(graph.get_operations()):
        softmax = softmax_of(operation, constants)
        if softmax is None or is_of_mask(operation):
            continue
        if needed is not None and operation.name not in needed:
            continue
        around = _around(number, own_calls)
        if any(call.recurrent or call.name in excluded for call in around):
            continue
        inside = tuple(call.name for call in around)
        layer = inside[0] if inside else _scope(operation.name)
        scope = scopes.of(operation)
        multiplying = None if softmax.multiplying is softmax.weights else softmax.multiplying
        sums = find_weighted_sums(softmax.weights, softmax.axes, lengths, multiplying, constants)
        if not sums:
            axes = softmax.axes[0]
            result.append(Softmax(layer, inside, softmax.weights, axes, None, scope))
        for found in sums:
            # Several softmaxes may begin the same weights, as in an average of two.
            key = (found.weights.name, found.axes)
            if key not in known:
                known.add(key)
                result.append(Softmax(layer, inside, found.weights, found.axes, found, scope))
    certain = {item.weights.name for item in result if item.doubt is None}
    result = [item for item in result if item.doubt is None or item.weights.name not in certain]
    return [*result, *_in_loops(graph, own_calls, excluded, lengths, scopes, constants)]


def _around(number: int, calls: Sequence[Call]) -> list[Call]:
    """The calls that created the operation of this number, from the innermost."""
    around = [call for call in calls if call.start <= number < call.end]
    return sorted(around, key=lambda call: call.end - call.start)


def _in_loops(
    graph: Any,
    calls: Sequence[Call],
    excluded: Sequence[str],
    lengths: Sequence[int],
    scopes: Scopes,
    constants: bool,
) -> Iterator[Softmax]:
    """The softmaxes in loops, named by the layer around the loop."""
    for number, loop in enumerate(graph.get_operations()):
        if loop.type not in LOOPS or is_of_mask(loop):
            continue
        around = _around(number, calls)
        inside = tuple(call.name for call in around)
        body = function_graph(loop, "body")
        with body.as_default():
            found = softmaxes(body, (), (), lengths, scopes=scopes)
        for item in found:
            if _is_inside(item.weights.op.name, excluded):
                continue
            layer = inside[0] if inside else item.layer
            scope = scopes.of(loop) if item.scope is None else item.scope
            named = replace(item, layer=layer, inside=(*item.inside, *inside), scope=scope)
            # Files have recurrent layers in other forms, without this loop.
            recurrent = any(call.recurrent for call in around)
            whole = [] if recurrent else list(_of_all_steps(loop, body, named, lengths, constants))
            if whole:
                yield from whole
            elif item.doubt is None:
                yield named


def _of_all_steps(
    loop: Any, body: Any, item: Softmax, lengths: Sequence[int], constants: bool
) -> Iterator[Softmax]:
    """The weights of all steps of a loop as one map, if the loop returns them."""
    if item.weights.graph is not body:
        return
    for stacked in stacked_weights(loop, body, item.weights, item.axes):
        if item.doubt is None:
            if stacked.unchanged:
                weighted = WeightedSum(None, stacked.map, stacked.axes)
                yield replace(item, weights=stacked.map, axes=stacked.axes, weighted_sum=weighted)
            continue
        whole = replace(item, weights=stacked.map, axes=stacked.axes, weighted_sum=None)
        sums = find_weighted_sums(stacked.map, [stacked.axes], lengths, stacked.stack, constants)
        if not sums:
            yield whole
        for found in sums:
            yield replace(whole, weights=found.weights, axes=found.axes, weighted_sum=found)


def is_of_mask(operation: Any) -> bool:
    """Whether an operation computes a mask only: the weights of that call multiply nothing."""
    return _is_inside(operation.name, [MASK_SCOPE])


def _is_inside(name: str, layers: Sequence[str]) -> bool:
    """Whether an operation is in the scope of a layer; TensorFlow adds a number to the names."""
    parts = {re.sub(r"_\d+$", "", part) for part in name.split("/")}
    return any(re.sub(r"_\d+$", "", layer) in parts for layer in layers)


def _scope(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else parts[-1]
