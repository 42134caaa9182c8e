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

from edgeattn_converters.lowering.placeholders import NodeWriter, Placeholders
from edgeattn_converters.lowering.rnn.onnx_cell import onnx_activations, onnx_weights
from edgeattn_converters.lowering.rnn.recurrence import BidirectionalResult, Cell, Recurrence
from edgeattn_converters.lowering.rnn.steps import unrolled

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
    time: int | None
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
    """A :class:`RecurrenceLowering` to ONNX nodes; the batch and the time axis may be free."""

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
            (cell,), activations, time, recurrence.reverse, recurrence.zero_masked, mask is not None
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
    return _RecurrenceWriter(spec, graph).write(inputs)


class _RecurrenceWriter:
    """Writes the nodes of one recurrence; values are names in the graph."""

    def __init__(self, spec: _NodeSpec, graph: NodeWriter) -> None:
        self._spec, self._cell = spec, spec.cells[0]
        self._node, self._const = graph.node, graph.const

    def write(self, inputs: list[str]) -> list[str]:
        x, *states = inputs
        mask = states.pop(0) if self._spec.masked else None
        lengths = ""
        counts = ""
        if mask is not None:
            mask = self._node("Cast", mask, to=_INT64)
            counts = self._node("CumSum", mask, self._integer(1))  # (batch, time)
            total = self._node("ReduceSum", mask, self._const([1]), keepdims=0)
            lengths = self._node("Cast", total, to=_INT32)  # (batch,)
            time = self._time(mask)
            x = self._gather_steps(x, self._real_steps_first(mask, time))
        sequence = self._node("Transpose", x, perm=[1, 0, 2])  # (time, batch, features)
        y, *last = self._recurrent_node(sequence, lengths, self._initial_states(states))
        # Y is (time, directions, batch, units), the states (directions, batch, units).
        outputs = [
            self._node("Transpose", self._node("Squeeze", part, self._const([1])), perm=[1, 0, 2])
            for part in self._split_directions(y, axis=1)
        ]
        if mask is not None:
            outputs = [
                self._restore_order(output, mask, counts, time, self._spec.reverse or number == 1)
                for number, output in enumerate(outputs)
            ]
        parts = [self._split_directions(state, axis=0) for state in last]
        # In the order of the directions, then h and c.
        final = [
            self._node("Squeeze", part[number], self._const([0]))
            for number in range(len(self._spec.cells))
            for part in parts
        ]
        if mask is not None and states:
            # A row without a real step keeps its initial state, where the nodes return zero.
            empty = self._node("Not", self._node("Cast", lengths, to=_BOOL))
            empty = self._node("Unsqueeze", empty, self._const([1]))
            pairs = zip(states, final, strict=True)
            final = [self._node("Where", empty, before, after) for before, after in pairs]
        if not self._spec.concatenate:
            return [*outputs, *final]
        return [*outputs, *final, *self._concatenated(y, last[0], outputs, final)]

    def _integer(self, value: int) -> str:
        return self._const(np.array(value, np.int64))

    def _concatenated(self, y: str, h: str, outputs: list[str], final: list[str]) -> list[str]:
        """The outputs (batch, time, 2 * units) and last outputs (batch, 2 * units) of both."""
        if self._spec.masked:
            last = [final[number * self._cell.states] for number in (0, 1)]
            return [self._node("Concat", *outputs, axis=2), self._node("Concat", *last, axis=1)]
        width = 2 * self._cell.units
        y = self._node("Transpose", y, perm=[2, 0, 1, 3])
        h = self._node("Transpose", h, perm=[1, 0, 2])
        return [
            self._node("Reshape", y, self._const([0, 0, width])),
            self._node("Reshape", h, self._const([0, width])),
        ]

    def _split_directions(self, value: str, axis: int) -> list[str]:
        if len(self._spec.cells) == 1:
            return [value]
        return list(self._node("Split", value, self._const([1, 1]), axis=axis, count=2))

    def _initial_states(self, states: list[str]) -> list[str]:
        """h and c as (directions, batch, units), from those of one direction after the other."""
        expanded = [self._node("Unsqueeze", state, self._const([0])) for state in states]
        if not states or len(self._spec.cells) == 1:
            return expanded
        half = self._cell.states
        return [self._node("Concat", expanded[k], expanded[half + k], axis=0) for k in range(half)]

    def _time(self, mask: str) -> str:
        """The number of steps."""
        if self._spec.time is not None:
            return self._integer(self._spec.time)
        return str(self._node("Gather", self._node("Shape", mask), self._integer(1)))

    def _real_steps_first(self, mask: str, time: str) -> str:
        """Indices (batch, time) that move the real steps to the front and keep their order."""
        if self._spec.time is not None:
            falling = self._const(-np.arange(self._spec.time, dtype=np.int64)[None])
            count = self._const([self._spec.time])
        else:
            steps = self._node("Range", self._integer(0), time, self._integer(1))
            falling = self._node("Unsqueeze", self._node("Neg", steps), self._const([0]))
            count = self._node("Unsqueeze", time, self._const([0]))
        ranks = self._node("Add", self._node("Mul", mask, time), falling)
        options = {"axis": 1, "largest": 1, "sorted": 1}
        return str(self._node("TopK", ranks, count, count=2, **options)[1])

    def _gather_steps(self, x: str, steps: str) -> str:
        """The steps of x (batch, time, ...) at the indices (batch, time)."""
        indices = self._node("Unsqueeze", steps, self._const([2]))
        return str(self._node("GatherND", x, indices, batch_dims=1))

    def _restore_order(self, outputs: str, mask: str, counts: str, time: str, reverse: bool) -> str:
        """Move outputs of reordered steps (batch, time, units) back to the steps' positions."""
        if reverse:
            # The output at t is the last one computed at or after t, and the number of real steps
            # before it is the number of real steps before t.
            steps = self._node("Sub", counts, mask)
            total = self._node("ReduceSum", mask, self._const([1]), keepdims=1)
            last = self._node("Sub", total, self._integer(1))
            computed = self._node("Not", self._node("Greater", steps, last))
        else:
            steps = self._node("Sub", counts, self._integer(1))
            computed = self._node("Greater", counts, self._integer(0))
        if self._spec.zero_masked:
            computed = self._node("Cast", mask, to=_BOOL)
        not_negative = self._node("Max", steps, self._integer(0))
        clipped = self._node("Min", not_negative, self._node("Sub", time, self._integer(1)))
        gathered = self._gather_steps(outputs, clipped)
        computed = self._node("Unsqueeze", computed, self._const([2]))
        zero = self._const(np.zeros((1, 1, 1), np.float32))
        return str(self._node("Where", computed, gathered, zero))

    def _recurrent_node(self, x: str, lengths: str, states: list[str]) -> list[str]:
        cell = self._cell
        attributes = {"direction": self._spec.direction, **self._spec.activations}
        if cell.kind == "gru":
            attributes["linear_before_reset"] = int(cell.reset_after)
        weights = zip(*map(onnx_weights, self._spec.cells), strict=True)
        inputs = [x, *(self._const(np.stack(item)) for item in weights), lengths, *states]
        while not inputs[-1]:
            inputs.pop()
        attributes["hidden_size"] = cell.units
        count = 1 + cell.states
        return list(self._node(_OPERATORS[cell.kind], *inputs, count=count, **attributes))
