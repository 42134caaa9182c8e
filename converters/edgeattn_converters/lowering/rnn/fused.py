"""An LSTM for TFLite as its one fused operator, made to forget the last sequence by itself.

The operator UNIDIRECTIONAL_SEQUENCE_LSTM is the smallest way to write an LSTM, but it keeps its
states in variable tensors from one call to the next. Here every sequence begins with a step of its
own that clears them: the inputs get one more feature, a flag, set on that step only. Its weights
make the pre-activations of the input, forget and output gates so negative that all three are
exactly zero, and with them the cell state ``f * c + i * g`` and the output ``o * tanh(c)``. What
that step gives is dropped. (A state of NaN or infinity is not cleared by this.)

While the model is traced, a call of a function stands for the operator; TensorFlow's converter
makes a custom operator of it, and :meth:`FusedLSTM.write` puts the real one in its place. No cell
is clipped: the option is zero, where the converter's own fusion writes 10, which Keras does not do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, UnsupportedModelError
from edgeattn.tensors import Array
from edgeattn_converters.lowering.rnn.cells import Cell
from edgeattn_converters.lowering.rnn.layers import Recurrence

OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_PREFIX = "edgeattn_lstm_"
# sigmoid(-CLEARED) is zero in float32, whatever the other terms add to it.
CLEARED = 1e4


class FusedLSTM:
    """The fused operators of one model; what cannot be fused is computed as ``otherwise`` does."""

    def __init__(self, otherwise: Recurrence) -> None:
        self._otherwise = otherwise
        self._cells: dict[str, Cell] = {}
        self._counter = itertools.count()

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
        """See :class:`~edgeattn_converters.lowering.rnn.layers.Recurrence`; shapes are static."""
        import tensorflow as tf

        if not _is_standard(cell) or states is not None or mask is not None or final:
            return self._otherwise(
                cell,
                x,
                states,
                mask,
                reverse=reverse,
                zero_masked=zero_masked,
                sequences=sequences,
                final=final,
            )
        batch, time, features = x.shape
        name = f"{_PREFIX}{next(self._counter)}"
        self._cells[name] = cell
        x = tf.reverse(x, axis=[1]) if reverse else x
        clearing = np.zeros((batch, 1, features + 1), np.float32)
        clearing[:, :, -1] = flag(cell)
        x = tf.concat([clearing, tf.pad(x, [[0, 0], [0, 0], [0, 1]])], axis=1)
        outputs = tf.slice(
            _placeholder(name, x, (batch, time + 1, cell.units)), [0, 1, 0], [-1, -1, -1]
        )
        last = outputs[:, -1]
        outputs = tf.reverse(outputs, axis=[1]) if reverse else outputs
        # The cell state stays inside of the operator; nobody asked for it.
        return outputs, [last, None]

    def write(self, model: Any) -> None:
        """Put the operators in the place of their placeholders in a model of the object API."""
        if not self._cells:
            raise UnsupportedModelError(
                "No layer of this model can become a fused LSTM.",
                hint="It takes an LSTM with tanh and sigmoid, without a mask or initial states.",
            )
        kind = _operator_code(model)
        waiting = dict(self._cells)
        for graph in model.subgraphs:
            for operator in graph.operators:
                called = (
                    bytes(operator.customOptions) if operator.customOptions is not None else b""
                )
                name = next((n for n in waiting if f"{n}\0".encode() in called), None)
                if name is not None:
                    operator.opcodeIndex = kind
                    _write(model, graph, operator, waiting.pop(name))
        if waiting:
            raise ConversionError(f"The converter lost {len(waiting)} fused operators.")
        _drop_subgraphs(model, self._cells)


def _is_standard(cell: Cell) -> bool:
    if cell.kind != "lstm":
        return False
    wanted = ((cell.activation, "tanh"), (cell.recurrent_activation, "sigmoid"))
    return all(
        getattr(function, "__name__", None) == name
        and str(getattr(function, "__module__", "")).split(".")[0] in ("keras", "tf_keras")
        for function, name in wanted
    )


def _weight(cell: Cell) -> float:
    """What the flag is multiplied with: no larger than the weights beside it, which share its
    scale where they are quantized."""
    return float(np.abs(cell.kernel).max()) or 1.0


def flag(cell: Cell) -> float:
    """The value of the flag on the clearing step: enough to drown what the last output adds."""
    others = np.abs(cell.recurrent_kernel).sum(axis=0) + np.abs(cell.bias)
    return (CLEARED + float(others.max())) / _weight(cell)


def _placeholder(name: str, x: Any, shape: tuple[int, ...]) -> Any:
    """A call that the converter keeps, with ``name`` in it: inlined, it would be forgotten."""
    import tensorflow as tf

    def stand_in(x: Any) -> Any:
        return tf.broadcast_to(tf.reduce_sum(x), shape)

    stand_in.__name__ = name
    function = tf.function(stand_in, experimental_attributes={"_noinline": True}, autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    concrete.add_to_graph(tf.compat.v1.get_default_graph())
    # Of the attributes of a call, the executor's is a text that comes through to the file.
    (result,) = tf.raw_ops.PartitionedCall(
        args=[x], Tout=[tf.float32], f=concrete, executor_type=name
    )
    result.set_shape(shape)
    return result


def _operator_code(model: Any) -> int:
    """The index of a new entry for the operator."""
    from tensorflow.lite.python import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, OPERATOR)
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


_SUBGRAPH_OPTIONS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
)


def _drop_subgraphs(model: Any, names: Iterable[str]) -> None:
    """Remove what the placeholders called; loops find their subgraphs by number, so renumber."""
    gone = tuple(f"{name}_".encode() for name in names)
    kept = [
        index
        for index, graph in enumerate(model.subgraphs)
        if not any(name in bytes(graph.name or b"") for name in gone)
    ]
    number = {old: new for new, old in enumerate(kept)}
    model.subgraphs = [model.subgraphs[index] for index in kept]
    for graph in model.subgraphs:
        for operator in graph.operators:
            options = operator.builtinOptions
            for option in _SUBGRAPH_OPTIONS:
                if hasattr(options, option):
                    setattr(options, option, number[getattr(options, option)])


def _write(model: Any, graph: Any, operator: Any, cell: Cell) -> None:
    """One operator. Its inputs, by the kernel's numbering: x, four input weights (units, features),
    four recurrent weights (units, units), three peepholes, four biases, projection weights and
    bias, output state, cell state, four of layer normalisation. Gates are i, f, c, o, as Keras'.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    (x,), (output,) = operator.inputs, operator.outputs
    batch = int(graph.tensors[int(x)].shape[0])
    last = np.full((1, cell.kernel.shape[1]), -_weight(cell), np.float32)
    last[:, 2 * cell.units : 3 * cell.units] = 0
    kernels = np.split(np.concatenate([cell.kernel, last]), 4, axis=1)
    recurrent = np.split(cell.recurrent_kernel, 4, axis=1)
    biases = np.split(cell.bias, 4)
    none = -1
    state = (batch, cell.units)
    operator.inputs = [
        int(x),
        *(_constant(model, graph, kernel.T) for kernel in kernels),
        *(_constant(model, graph, kernel.T) for kernel in recurrent),
        *[none] * 3,
        *(_constant(model, graph, bias) for bias in biases),
        *[none] * 2,
        _variable(graph, state, f"{_PREFIX}output_{output}"),
        _variable(graph, state, f"{_PREFIX}cell_{output}"),
        *[none] * 4,
    ]
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    options.cellClip = options.projClip = 0.0
    options.timeMajor = False
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = options
    operator.customOptions = None


def _constant(model: Any, graph: Any, value: Array) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
    model.buffers.append(buffer)
    index = _variable(graph, value.shape, f"{_PREFIX}weights_{len(graph.tensors)}")
    graph.tensors[index].buffer = len(model.buffers) - 1
    graph.tensors[index].isVariable = False
    return index


def _variable(graph: Any, shape: tuple[int, ...], name: str) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, list(shape), schema.TensorType.FLOAT32
    tensor.buffer, tensor.isVariable = 0, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
