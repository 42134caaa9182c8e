"""Softmaxes that weigh something, found in a traced graph: attention that no layer calls by name.

A weight is what a softmax gives; it is attention where it reaches, through operations that only
move it about, a product with data that has positions to weigh. A classifier's softmax reaches none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.lowering.replacement import all_layers
from edgeattn_converters.lowering.rnn.cells import is_recurrent
from edgeattn_converters.tracing.dataflow import Weighed, weighed_by

NO_PRODUCT = "its weights multiply no data"
_SUMS = ("Sum",)
# What may stand between exp(x) and its sum, or between the sum and the division by it.
_PLAIN = ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "BroadcastTo")
_GUARDS = ("AddV2", "Add", "Maximum")


@dataclass(frozen=True)
class Call:
    """A layer or operation that was called while the graph was traced: its operations' numbers."""

    name: str
    start: int
    end: int
    recurrent: bool = False


@dataclass(frozen=True)
class Softmax:
    """A softmax of the graph: ``weights`` are normalised over ``axis``.

    ``layer`` is the innermost layer or operation that it belongs to, ``inside`` all of them.
    ``weighed`` is what its weights go to, None where they go to no product with data.
    """

    layer: str
    inside: tuple[str, ...]
    weights: Any
    axis: int
    weighed: Weighed | None

    @property
    def doubt(self) -> str | None:
        """Why it may be no attention; None where it is."""
        if self.weighed is None:
            return NO_PRODUCT
        return self.weighed.doubt

    def keys_last(self) -> Any:
        """The weights as a map: (batch, ..., keys), without an axis of one in the middle."""
        import tensorflow as tf

        weights, rank = self.weights, len(self.weights.shape)
        if self.axis != rank - 1:
            others = [k for k in range(rank) if k != self.axis]
            weights = tf.transpose(weights, [*others, self.axis])
        if rank == 3 and weights.shape[1] == 1:
            weights = tf.squeeze(weights, axis=1)
        return weights


@contextlib.contextmanager
def called(model: Any) -> Iterator[list[Call]]:
    """Within it, calls of ``model``'s layers and operations add what they make to the list."""
    calls: list[Call] = []
    replaced = []
    try:
        for item in _parts(model):
            before = item.__dict__.get("call")
            # Past Keras' own __setattr__, which would track the function as state.
            object.__setattr__(item, "call", _noting(item, calls))
            replaced.append((item, before))
        yield calls
    finally:
        for item, before in reversed(replaced):
            if before is None:
                object.__delattr__(item, "call")
            else:
                object.__setattr__(item, "call", before)


def _parts(model: Any) -> list[Any]:
    """Layers, and the operations of functional graphs that are no layers."""
    layers = all_layers(model)
    known = {id(layer) for layer in layers} | {id(model)}
    parts = list(layers)
    for holder in (model, *layers):
        for operation in getattr(holder, "operations", None) or ():
            if id(operation) not in known and hasattr(operation, "call"):
                known.add(id(operation))
                parts.append(operation)
    return parts


def _noting(item: Any, calls: list[Call]) -> Callable[..., Any]:
    import functools

    original, name, recurrent = item.call, str(item.name), is_recurrent(item)

    # Keras looks at a call's signature for masks and the like: it must look the same.
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        graph = _graph()
        start = len(graph.get_operations())
        result = original(*args, **kwargs)
        if _graph() is graph:
            calls.append(Call(name, start, len(graph.get_operations()), recurrent))
        return result

    return call


def _graph() -> Any:
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def softmaxes(
    graph: Any, calls: Sequence[Call], but: Sequence[str] = (), lengths: Sequence[int] = ()
) -> list[Softmax]:
    """Every softmax of ``graph`` in its order, those of layers in ``but`` and of cells left out.

    ``lengths`` are those of the model's sequences.
    """
    found = []
    for number, operation in enumerate(graph.get_operations()):
        told = _softmax(operation)
        if told is None:
            continue
        around = sorted(
            (call for call in calls if call.start <= number < call.end),
            key=lambda call: call.end - call.start,
        )
        if any(call.recurrent or call.name in but for call in around):
            continue
        weights, axis = told
        inside = tuple(call.name for call in around)
        found.append(
            Softmax(
                inside[0] if inside else _scope(operation.name),
                inside,
                weights,
                axis,
                weighed_by(weights, axis, lengths),
            )
        )
    return found


def _scope(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else parts[-1]


def _softmax(operation: Any) -> tuple[Any, int] | None:
    """The weights that ``operation`` makes and the axis they are normalised over, if it does."""
    result = operation.outputs[0] if operation.outputs else None
    if result is None or result.shape.rank is None or result.shape.rank < 2:
        return None
    if operation.type == "Softmax":
        return result, int(result.shape.rank) - 1
    if operation.type in ("RealDiv", "Div"):
        axis = _normalised(*operation.inputs)
        return None if axis is None else (result, axis)
    return None


def _normalised(top: Any, bottom: Any) -> int | None:
    """The axis of ``exp(x) / sum(exp(x), axis)``; the sum may be kept from zero by a constant."""
    import tensorflow as tf

    if not _is_exponential(top):
        return None
    waiting = [bottom]
    for _ in range(8):
        operation = waiting.pop().op
        if operation.type in _SUMS:
            axes = tf.get_static_value(operation.inputs[1])
            same = _behind(operation.inputs[0]) is _behind(top)
            if not same or axes is None or axes.size != 1:
                return None
            axis = int(axes.reshape(-1)[0]) % int(operation.inputs[0].shape.rank)
            return axis or None
        if operation.type in _PLAIN:
            waiting.append(operation.inputs[0])
        elif operation.type in _GUARDS:
            steps = [t for t in operation.inputs if tf.get_static_value(t) is None]
            if len(steps) != 1:
                return None
            waiting.append(steps[0])
        else:
            return None
    return None


def _behind(tensor: Any) -> Any:
    while tensor.op.type in ("Identity", "Cast", "StopGradient"):
        tensor = tensor.op.inputs[0]
    return tensor


def _is_exponential(tensor: Any) -> bool:
    operation = _behind(tensor).op
    if operation.type == "Exp":
        return True
    # With a mask: exp(x) * mask.
    return operation.type == "Mul" and any(
        _behind(item).op.type == "Exp" for item in operation.inputs
    )
