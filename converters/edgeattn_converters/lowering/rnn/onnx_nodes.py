"""A recurrence for ONNX: the LSTM, GRU and RNN nodes of the standard, written from the weights.

The two directions of a Bidirectional are one node where their cells are of one kind.

The semantics are those of the ONNX operator specification; gates are reordered from Keras'
i, f, c, o to ONNX' i, o, f, c (LSTM), and stay z, r, h (GRU).

Masks: ``sequence_lens`` knows only padding at the end. So the real steps are moved to the front,
in their order, and the outputs back to where their steps were: exact for every pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.lowering.onnx_placeholders import NodeWriter, Placeholders
from edgeattn_converters.lowering.rnn.cells import Cell
from edgeattn_converters.lowering.rnn.layers import Both


@dataclass(frozen=True)
class Sequence:
    """A recurrence to be written; its inputs are x, then the mask, then the states, if any.

    One cell runs forward, or in ``reverse``; of two, the second runs in reverse. ``joined`` asks
    for their outputs side by side, and for their last ones.
    """

    cells: tuple[Cell, ...]
    activations: dict[str, Any]
    time: int
    reverse: bool
    zero_masked: bool
    masked: bool
    joined: bool = False

    @property
    def direction(self) -> str:
        if len(self.cells) == 2:
            return "bidirectional"
        return "reverse" if self.reverse else "forward"


class ONNXRecurrence:
    """The recurrences of one model."""

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders

    def __call__(
        self,
        cell: Cell,
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        reverse: bool,
        zero_masked: bool,
        sequences: bool,
        final: bool,
    ) -> tuple[Any, list[Any]]:
        """See :class:`~edgeattn_converters.lowering.rnn.layers.Recurrence`; a free batch works."""

        activations = activations_of(cell)
        if activations is None:
            # No node computes this cell's activation: its steps are written out one by one.
            from edgeattn_converters.lowering.rnn.unrolled import unrolled

            return unrolled(
                cell,
                x,
                states,
                mask,
                reverse=reverse,
                zero_masked=zero_masked,
                sequences=sequences,
                final=final,
            )
        batch, time, _ = x.shape
        place = Sequence((cell,), activations, time, reverse, zero_masked, mask is not None)
        shapes = [(batch, time, cell.units), *[(batch, cell.units)] * cell.states]
        outputs, *last = self._put(place, x, mask, states, shapes)
        return (outputs if sequences else None), last

    def both(
        self, cells: tuple[Cell, Cell], x: Any, states: list[Any] | None, mask: Any, **options: Any
    ) -> Both | None:
        """See :class:`edgeattn_converters.lowering.rnn.layers.Directions`."""
        first, second = cells
        activations = [activations_of(cell) for cell in cells]
        alike = all(
            getattr(first, name) == getattr(second, name)
            for name in ("kind", "units", "reset_after")
        )
        if not alike or activations[0] is None or activations[1] is None:
            return None
        # The lists of the forward direction come first, then those of the other.
        named = {**activations[0], **activations[1]}
        merged = {
            name: [*activations[0].get(name, ()), *activations[1].get(name, ())] for name in named
        }
        batch, time, _ = x.shape
        place = Sequence(
            cells, merged, time, False, options["zero_masked"], mask is not None, options["joined"]
        )
        outputs, last = (batch, time, first.units), (batch, first.units)
        shapes: list[tuple[Any, ...]] = [outputs, outputs, *[last] * 2 * first.states]
        if place.joined:
            shapes += [(batch, time, 2 * first.units), (batch, 2 * first.units)]
        forward, backward, *rest = self._put(place, x, mask, states, shapes)
        ends, joined = rest[: 2 * first.states], rest[2 * first.states :]
        return Both(
            (forward, backward),
            (ends[: first.states], ends[first.states :]),
            (joined[0], joined[1]) if joined else None,
        )

    def _put(
        self,
        place: Sequence,
        x: Any,
        mask: Any,
        states: list[Any] | None,
        shapes: list[tuple[Any, ...]],
    ) -> list[Any]:
        import tensorflow as tf

        inputs = [x]
        if mask is not None:
            inputs.append(tf.cast(mask, tf.int32))
        inputs.extend(states or [])
        return self._placeholders.put(partial(_author, place), inputs, shapes)


def _author(place: Sequence, graph: NodeWriter, inputs: list[str]) -> list[str]:
    """The nodes of one recurrence: the values of its outputs, its final states, and of both joined.

    What nothing asks for is dropped when the graph is optimized.
    """
    x, *rest = inputs
    mask = rest.pop(0) if place.masked else None
    lengths = ""
    counted = ""
    if mask is not None:
        mask = graph.node("Cast", mask, to=_INT64)
        counted = graph.node("CumSum", mask, graph.const(np.array(1, np.int64)))  # (batch, time)
        total = graph.node("ReduceSum", mask, graph.const([1]), keepdims=0)
        lengths = graph.node("Cast", total, to=_INT32)  # (batch,)
        x = _take(graph, x, _front(graph, mask, place.time))
    sequence = graph.node("Transpose", x, perm=[1, 0, 2])  # (time, batch, features)
    y, *ends = _recurrent_node(graph, place, sequence, lengths, _initial(graph, place, rest))
    # Y is (time, directions, batch, units), the states (directions, batch, units).
    outputs = [
        graph.node("Transpose", graph.node("Squeeze", part, graph.const([1])), perm=[1, 0, 2])
        for part in _directions(graph, place, y, axis=1)
    ]
    if mask is not None:
        outputs = [
            _back(graph, place, output, mask, counted, reverse=place.reverse or number == 1)
            for number, output in enumerate(outputs)
        ]
    parts = [_directions(graph, place, end, axis=0) for end in ends]
    # By direction, then h and c.
    final = [
        graph.node("Squeeze", part[number], graph.const([0]))
        for number in range(len(place.cells))
        for part in parts
    ]
    if mask is not None and rest:
        # A row without a real step keeps its initial state; the nodes say zero there.
        none = graph.node("Not", graph.node("Cast", lengths, to=_BOOL))
        none = graph.node("Unsqueeze", none, graph.const([1]))
        final = [
            graph.node("Where", none, first, last) for first, last in zip(rest, final, strict=True)
        ]
    if not place.joined:
        return [*outputs, *final]
    return [*outputs, *final, *_joined(graph, place, y, ends[0], outputs, final)]


def _joined(
    graph: NodeWriter, place: Sequence, y: str, h: str, outputs: list[str], final: list[str]
) -> list[str]:
    """Outputs (batch, time, 2 * units) and last ones (batch, 2 * units)."""
    if place.masked:
        last = [final[number * place.cells[0].states] for number in (0, 1)]
        return [
            graph.node("Concat", *outputs, axis=2),
            graph.node("Concat", *last, axis=1),
        ]
    wide = 2 * place.cells[0].units
    y = graph.node("Transpose", y, perm=[2, 0, 1, 3])
    h = graph.node("Transpose", h, perm=[1, 0, 2])
    return [
        graph.node("Reshape", y, graph.const([0, place.time, wide])),
        graph.node("Reshape", h, graph.const([0, wide])),
    ]


def _directions(graph: NodeWriter, place: Sequence, value: str, axis: int) -> list[str]:
    if len(place.cells) == 1:
        return [value]
    return list(graph.node("Split", value, graph.const([1, 1]), axis=axis, count=2))


def _initial(graph: NodeWriter, place: Sequence, states: list[str]) -> list[str]:
    """h and c, (directions, batch, units) each, of those of the first direction, then the next."""
    if not states:
        return []
    each = [graph.node("Unsqueeze", state, graph.const([0])) for state in states]
    if len(place.cells) == 1:
        return each
    count = place.cells[0].states
    return [graph.node("Concat", each[k], each[count + k], axis=0) for k in range(count)]


def _front(graph: NodeWriter, mask: str, time: int) -> str:
    """Indices (batch, time) that take the real steps to the front and keep their order."""
    falling = graph.const(-np.arange(time, dtype=np.int64)[None])
    bonus = graph.node("Mul", mask, graph.const(np.array(time, np.int64)))
    ranked = graph.node("Add", bonus, falling)
    return str(
        graph.node("TopK", ranked, graph.const([time]), axis=1, largest=1, sorted=1, count=2)[1]
    )


def _take(graph: NodeWriter, x: str, steps: str) -> str:
    """The steps of x (batch, time, ...) at the indices (batch, time)."""
    return str(
        graph.node("GatherND", x, graph.node("Unsqueeze", steps, graph.const([2])), batch_dims=1)
    )


def _back(
    graph: NodeWriter, place: Sequence, outputs: str, mask: str, counted: str, *, reverse: bool
) -> str:
    """Outputs of the moved steps (batch, time, units) at the steps' own times."""
    if reverse:
        # The last one computed at or after t: as many real steps lie before it as before t.
        steps = graph.node("Sub", counted, mask)
        last = graph.node(
            "Sub", graph.node("ReduceSum", mask, graph.const([1]), keepdims=1), _one(graph)
        )
        there = graph.node("Not", graph.node("Greater", steps, last))
    else:
        steps = graph.node("Sub", counted, _one(graph))
        there = graph.node("Greater", counted, graph.const(np.array(0, np.int64)))
    if place.zero_masked:
        there = graph.node("Cast", mask, to=_BOOL)
    inside = graph.node(
        "Min",
        graph.node("Max", steps, graph.const(np.array(0, np.int64))),
        graph.const(np.array(place.time - 1, np.int64)),
    )
    taken = _take(graph, outputs, inside)
    there = graph.node("Unsqueeze", there, graph.const([2]))
    return str(graph.node("Where", there, taken, graph.const(np.zeros((1, 1, 1), np.float32))))


def _one(graph: NodeWriter) -> str:
    return graph.const(np.array(1, np.int64))


def _recurrent_node(
    graph: NodeWriter, place: Sequence, x: str, lengths: str, states: list[str]
) -> list[str]:
    cell = place.cells[0]
    weights = zip(*map(onnx_weights, place.cells), strict=True)
    attributes: dict[str, Any] = {
        "hidden_size": cell.units,
        "direction": place.direction,
        **place.activations,
    }
    if cell.kind == "gru":
        attributes["linear_before_reset"] = int(cell.reset_after)
    inputs = [x, *(graph.const(np.stack(item)) for item in weights), lengths, *states]
    while not inputs[-1]:
        inputs.pop()
    made = graph.node(_OPERATORS[cell.kind], *inputs, count=1 + cell.states, **attributes)
    return list(made)


_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
# TensorProto.DataType
_INT32, _INT64, _BOOL = 6, 7, 9


def onnx_weights(cell: Cell) -> tuple[Array, Array, Array]:
    """``W`` (gates * units, features), ``R`` (gates * units, units), ``B`` (2 * gates * units,)."""
    order = (0, 3, 1, 2) if cell.kind == "lstm" else (0, 1, 2) if cell.kind == "gru" else (0,)
    index = np.concatenate([np.arange(cell.units) + gate * cell.units for gate in order])
    w = np.ascontiguousarray(cell.kernel[:, index].T)
    r = np.ascontiguousarray(cell.recurrent_kernel[:, index].T)
    if cell.bias.ndim == 2:
        b = np.concatenate([cell.bias[0][index], cell.bias[1][index]])
    else:
        b = np.concatenate([cell.bias[index], np.zeros_like(cell.bias)])
    return w, r, b


# Keras' activations that the nodes know: the ONNX name, alpha and beta. The two hard_sigmoids are
# told apart by their slope, since Keras changed it between 2 and 3.
_ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "tanh": ("Tanh", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "relu": ("Relu", None, None),
    "softsign": ("Softsign", None, None),
    "softplus": ("Softplus", None, None),
    "linear": ("Affine", 1.0, 0.0),
    "elu": ("Elu", 1.0, None),
}


def activations_of(cell: Cell) -> dict[str, Any] | None:
    """The attributes ``activations``, ``activation_alpha`` and ``activation_beta``, or None."""
    main = _activation(cell.activation)
    if cell.kind == "simple_rnn":
        wanted = [main]
    else:
        recurrent = _activation(cell.recurrent_activation)
        wanted = [recurrent, main, main] if cell.kind == "lstm" else [recurrent, main]
    if any(item is None for item in wanted):
        return None
    known = [item for item in wanted if item is not None]
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in known]}
    # The specification lists alphas and betas only of the functions that have them, in order.
    alphas = [alpha for _, alpha, _ in known if alpha is not None]
    betas = [beta for _, _, beta in known if beta is not None]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


def _activation(function: Any) -> tuple[str, float | None, float | None] | None:
    name = getattr(function, "__name__", None)
    module = str(getattr(function, "__module__", ""))
    if module.split(".")[0] not in ("keras", "tf_keras"):
        slope = _hard_sigmoid_slope(function)
        return None if slope is None else ("HardSigmoid", slope, 0.5)
    if name == "hard_sigmoid":
        slope = _hard_sigmoid_slope(function)
        return None if slope is None else ("HardSigmoid", slope, 0.5)
    return _ACTIVATIONS.get(str(name))


def _hard_sigmoid_slope(function: Any) -> float | None:
    """The slope of a hard sigmoid, measured; None where the function is none."""
    import tensorflow as tf

    with tf.init_scope():
        grid = np.linspace(-8, 8, 257, dtype=np.float32)
        values = np.asarray(function(tf.constant(grid)))
    for slope in (0.2, 1 / 6):
        if np.allclose(values, np.clip(slope * grid + 0.5, 0, 1), atol=1e-6):
            return slope
    return None
