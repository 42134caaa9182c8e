"""A recurrence for ONNX: the LSTM, GRU and RNN nodes of the standard, written from the weights.

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
from edgeattn_converters.lowering.cells import Cell
from edgeattn_converters.lowering.placeholders import Graph, Placeholders


@dataclass(frozen=True)
class Sequence:
    """A recurrence to be written; its inputs are x, then the mask, then the states, if any."""

    cell: Cell
    activations: dict[str, Any]
    time: int
    reverse: bool
    zero_masked: bool
    masked: bool
    stateful: bool


class Nodes:
    """The recurrences of one model."""

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders

    def recurrence(
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
        """See :class:`edgeattn_converters.lowering.recurrent.Recurrence`; the batch may be free."""
        import tensorflow as tf

        activations = activations_of(cell)
        if activations is None:
            # No node computes this cell's activation: its steps are written out one by one.
            from edgeattn_converters.lowering.unrolled import unrolled

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
        place = Sequence(
            cell, activations, time, reverse, zero_masked, mask is not None, states is not None
        )
        inputs = [x]
        if mask is not None:
            inputs.append(tf.cast(mask, tf.int32))
        inputs.extend(states or [])
        shapes = [(batch, time, cell.units), *[(batch, cell.units)] * cell.states]
        outputs, *last = self._placeholders.put(partial(_author, place), inputs, shapes)
        return (outputs if sequences else None), last


def _author(place: Sequence, graph: Graph, inputs: list[str]) -> list[str]:
    """The nodes of one recurrence: the values of its outputs and its final states."""
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
    states = [graph.node("Unsqueeze", state, graph.const([0])) for state in rest]
    y, *final = _recurrent_node(graph, place, sequence, lengths, states)
    # (time, 1, batch, units) -> (batch, time, units)
    outputs = graph.node("Transpose", graph.node("Squeeze", y, graph.const([1])), perm=[1, 0, 2])
    if mask is not None:
        outputs = _back(graph, place, outputs, mask, counted)
    final = [graph.node("Squeeze", state, graph.const([0])) for state in final]
    if mask is not None and rest:
        # A row without a real step keeps its initial state; the nodes say zero there.
        none = graph.node("Not", graph.node("Cast", lengths, to=_BOOL))
        none = graph.node("Unsqueeze", none, graph.const([1]))
        final = [
            graph.node("Where", none, first, last) for first, last in zip(rest, final, strict=True)
        ]
    return [outputs, *final]


def _front(graph: Graph, mask: str, time: int) -> str:
    """Indices (batch, time) that take the real steps to the front and keep their order."""
    falling = graph.const(-np.arange(time, dtype=np.int64)[None])
    bonus = graph.node("Mul", mask, graph.const(np.array(time, np.int64)))
    ranked = graph.node("Add", bonus, falling)
    return str(
        graph.node("TopK", ranked, graph.const([time]), axis=1, largest=1, sorted=1, count=2)[1]
    )


def _take(graph: Graph, x: str, steps: str) -> str:
    """The steps of x (batch, time, ...) at the indices (batch, time)."""
    return str(
        graph.node("GatherND", x, graph.node("Unsqueeze", steps, graph.const([2])), batch_dims=1)
    )


def _back(graph: Graph, place: Sequence, outputs: str, mask: str, counted: str) -> str:
    """Outputs of the moved steps (batch, time, units) at the steps' own times."""
    if place.reverse:
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


def _one(graph: Graph) -> str:
    return graph.const(np.array(1, np.int64))


def _recurrent_node(
    graph: Graph, place: Sequence, x: str, lengths: str, states: list[str]
) -> list[str]:
    cell = place.cell
    w, r, b = onnx_weights(cell)
    attributes: dict[str, Any] = {
        "hidden_size": cell.units,
        "direction": "reverse" if place.reverse else "forward",
        **place.activations,
    }
    if cell.kind == "gru":
        attributes["linear_before_reset"] = int(cell.reset_after)
    inputs = [x, graph.const(w[None]), graph.const(r[None]), graph.const(b[None]), lengths, *states]
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
