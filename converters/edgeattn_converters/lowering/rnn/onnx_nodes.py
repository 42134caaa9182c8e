"""A recurrence for ONNX as the standard's LSTM, GRU and RNN nodes.

The two directions of a Bidirectional layer become one node if their cells are of the same kind.

Masks: ``sequence_lens`` supports padding at the end only. The real steps are therefore moved to the
front, in their order, and the outputs back to the positions of their steps, which is exact for
every mask.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeattn_converters.lowering.rnn.onnx_cell import onnx_activations, onnx_weights
from edgeattn_converters.lowering.rnn.recurrence import BidirectionalResult, Cell, Recurrence
from edgeattn_converters.lowering.rnn.steps import unrolled
from edgeattn_converters.lowering.tf2onnx_handlers import NodeWriter, Placeholders

_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
# TensorProto.DataType
_INT32, _INT64, _BOOL = 6, 7, 9


@dataclass(frozen=True)
class _NodeSpec:
    """A recurrent node. Its inputs are x, then the mask and the initial states, if any.

    A single cell runs forward, or backward with ``reverse``; of two cells, the second runs
    backward. ``concatenate`` adds the concatenated outputs of both to the results.
    """

    cells: tuple[Cell, ...]
    activations: dict[str, Any]
    time: int
    reverse: bool
    zero_masked: bool
    masked: bool
    concatenate: bool = False

    @property
    def direction(self) -> str:
        if len(self.cells) == 2:
            return "bidirectional"
        return "reverse" if self.reverse else "forward"


class ONNXRecurrence:
    """A :class:`RecurrenceLowering` to ONNX nodes; the batch may be free."""

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders

    def __call__(
        self, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
    ) -> tuple[Any, list[Any]]:
        cell = recurrence.cell
        activations = onnx_activations(cell)
        if activations is None:
            # No node has this cell's activation: write its steps one by one.
            return unrolled(recurrence, x, states, mask)
        batch, time, _ = x.shape
        spec = _NodeSpec(
            (cell,),
            activations,
            time,
            recurrence.reverse,
            recurrence.zero_masked,
            mask is not None,
        )
        shapes = [(batch, time, cell.units), *[(batch, cell.units)] * cell.states]
        outputs, *final = self._put(spec, x, mask, states, shapes)
        return (outputs if recurrence.sequences else None), final

    def bidirectional(
        self,
        cells: tuple[Cell, Cell],
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        zero_masked: bool,
        concatenate: bool,
    ) -> BidirectionalResult | None:
        """Run two cells as one node; returns None if their kinds, units or options differ.

        ``states`` are those of the forward cell, then those of the backward cell.
        """
        first, second = cells
        activations = [onnx_activations(cell) for cell in cells]
        compatible = all(
            getattr(first, name) == getattr(second, name)
            for name in ("kind", "units", "reset_after")
        )
        if not compatible or activations[0] is None or activations[1] is None:
            return None
        # Each list holds the forward direction's entries first.
        merged = {
            name: [*activations[0].get(name, ()), *activations[1].get(name, ())]
            for name in {**activations[0], **activations[1]}
        }
        batch, time, _ = x.shape
        spec = _NodeSpec(cells, merged, time, False, zero_masked, mask is not None, concatenate)
        outputs, state = (batch, time, first.units), (batch, first.units)
        shapes: list[tuple[Any, ...]] = [outputs, outputs, *[state] * 2 * first.states]
        if concatenate:
            shapes += [(batch, time, 2 * first.units), (batch, 2 * first.units)]
        forward, backward, *rest = self._put(spec, x, mask, states, shapes)
        final, concatenated = rest[: 2 * first.states], rest[2 * first.states :]
        return BidirectionalResult(
            (forward, backward),
            (final[: first.states], final[first.states :]),
            (concatenated[0], concatenated[1]) if concatenate else None,
        )

    def _put(
        self,
        spec: _NodeSpec,
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
        return self._placeholders.put(partial(_write, spec), inputs, shapes)


def _write(spec: _NodeSpec, graph: NodeWriter, inputs: list[str]) -> list[str]:
    """Write a recurrence; returns the names of its outputs, final states and concatenations."""
    x, *states = inputs
    mask = states.pop(0) if spec.masked else None
    lengths = ""
    counts = ""
    if mask is not None:
        mask = graph.node("Cast", mask, to=_INT64)
        counts = graph.node("CumSum", mask, graph.const(np.array(1, np.int64)))  # (batch, time)
        total = graph.node("ReduceSum", mask, graph.const([1]), keepdims=0)
        lengths = graph.node("Cast", total, to=_INT32)  # (batch,)
        x = _gather_steps(graph, x, _real_steps_first(graph, mask, spec.time))
    sequence = graph.node("Transpose", x, perm=[1, 0, 2])  # (time, batch, features)
    initial = _initial_states(graph, spec, states)
    y, *last = _recurrent_node(graph, spec, sequence, lengths, initial)
    # Y is (time, directions, batch, units), the states (directions, batch, units).
    outputs = [
        graph.node("Transpose", graph.node("Squeeze", part, graph.const([1])), perm=[1, 0, 2])
        for part in _split_directions(graph, spec, y, axis=1)
    ]
    if mask is not None:
        outputs = [
            _restore_order(graph, spec, output, mask, counts, reverse=spec.reverse or number == 1)
            for number, output in enumerate(outputs)
        ]
    parts = [_split_directions(graph, spec, state, axis=0) for state in last]
    # In the order of the directions, then h and c.
    final = [
        graph.node("Squeeze", part[number], graph.const([0]))
        for number in range(len(spec.cells))
        for part in parts
    ]
    if mask is not None and states:
        # A row without a real step keeps its initial state, where the nodes return zero.
        empty = graph.node("Not", graph.node("Cast", lengths, to=_BOOL))
        empty = graph.node("Unsqueeze", empty, graph.const([1]))
        final = [
            graph.node("Where", empty, before, after)
            for before, after in zip(states, final, strict=True)
        ]
    if not spec.concatenate:
        return [*outputs, *final]
    return [*outputs, *final, *_concatenated(graph, spec, y, last[0], outputs, final)]


def _concatenated(
    graph: NodeWriter, spec: _NodeSpec, y: str, h: str, outputs: list[str], final: list[str]
) -> list[str]:
    """The outputs (batch, time, 2 * units) and last outputs (batch, 2 * units) of both cells."""
    if spec.masked:
        last = [final[number * spec.cells[0].states] for number in (0, 1)]
        return [
            graph.node("Concat", *outputs, axis=2),
            graph.node("Concat", *last, axis=1),
        ]
    width = 2 * spec.cells[0].units
    y = graph.node("Transpose", y, perm=[2, 0, 1, 3])
    h = graph.node("Transpose", h, perm=[1, 0, 2])
    return [
        graph.node("Reshape", y, graph.const([0, spec.time, width])),
        graph.node("Reshape", h, graph.const([0, width])),
    ]


def _split_directions(graph: NodeWriter, spec: _NodeSpec, value: str, axis: int) -> list[str]:
    if len(spec.cells) == 1:
        return [value]
    return list(graph.node("Split", value, graph.const([1, 1]), axis=axis, count=2))


def _initial_states(graph: NodeWriter, spec: _NodeSpec, states: list[str]) -> list[str]:
    """h and c as (directions, batch, units), from those of one direction after the other."""
    if not states:
        return []
    expanded = [graph.node("Unsqueeze", state, graph.const([0])) for state in states]
    if len(spec.cells) == 1:
        return expanded
    count = spec.cells[0].states
    return [graph.node("Concat", expanded[k], expanded[count + k], axis=0) for k in range(count)]


def _real_steps_first(graph: NodeWriter, mask: str, time: int) -> str:
    """Indices (batch, time) that move the real steps to the front and keep their order."""
    falling = graph.const(-np.arange(time, dtype=np.int64)[None])
    bonus = graph.node("Mul", mask, graph.const(np.array(time, np.int64)))
    ranks = graph.node("Add", bonus, falling)
    return str(
        graph.node("TopK", ranks, graph.const([time]), axis=1, largest=1, sorted=1, count=2)[1]
    )


def _gather_steps(graph: NodeWriter, x: str, steps: str) -> str:
    """The steps of x (batch, time, ...) at the indices (batch, time)."""
    return str(
        graph.node("GatherND", x, graph.node("Unsqueeze", steps, graph.const([2])), batch_dims=1)
    )


def _restore_order(
    graph: NodeWriter, spec: _NodeSpec, outputs: str, mask: str, counts: str, *, reverse: bool
) -> str:
    """Move outputs of reordered steps (batch, time, units) back to the steps' positions."""
    one = graph.const(np.array(1, np.int64))
    if reverse:
        # The output at t is the last one computed at or after t, and the number of real steps
        # before it is the number of real steps before t.
        steps = graph.node("Sub", counts, mask)
        last = graph.node("Sub", graph.node("ReduceSum", mask, graph.const([1]), keepdims=1), one)
        computed = graph.node("Not", graph.node("Greater", steps, last))
    else:
        steps = graph.node("Sub", counts, one)
        computed = graph.node("Greater", counts, graph.const(np.array(0, np.int64)))
    if spec.zero_masked:
        computed = graph.node("Cast", mask, to=_BOOL)
    clipped = graph.node(
        "Min",
        graph.node("Max", steps, graph.const(np.array(0, np.int64))),
        graph.const(np.array(spec.time - 1, np.int64)),
    )
    gathered = _gather_steps(graph, outputs, clipped)
    computed = graph.node("Unsqueeze", computed, graph.const([2]))
    zero = graph.const(np.zeros((1, 1, 1), np.float32))
    return str(graph.node("Where", computed, gathered, zero))


def _recurrent_node(
    graph: NodeWriter, spec: _NodeSpec, x: str, lengths: str, states: list[str]
) -> list[str]:
    cell = spec.cells[0]
    weights = zip(*map(onnx_weights, spec.cells), strict=True)
    attributes: dict[str, Any] = {
        "hidden_size": cell.units,
        "direction": spec.direction,
        **spec.activations,
    }
    if cell.kind == "gru":
        attributes["linear_before_reset"] = int(cell.reset_after)
    inputs = [x, *(graph.const(np.stack(item)) for item in weights), lengths, *states]
    while not inputs[-1]:
        inputs.pop()
    return list(graph.node(_OPERATORS[cell.kind], *inputs, count=1 + cell.states, **attributes))
