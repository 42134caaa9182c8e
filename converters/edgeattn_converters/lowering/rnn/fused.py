"""An LSTM for TFLite as one fused operator that clears its own state.

The operator UNIDIRECTIONAL_SEQUENCE_LSTM is the smallest form of an LSTM, but it stores its states
in variable tensors between two calls. Here every sequence is preceded by a step that clears them:
the inputs get one more feature, a flag that is set in that step only. Its weights make the
pre-activations of the input, forget and output gates so negative that all three gates are exactly
zero, and with them the cell state ``f * c + i * g`` and the output ``o * tanh(c)``. The output of
that step is dropped. (A state of NaN or infinity is not cleared.)

While the model is traced, a function call is the placeholder of the operator. TensorFlow's
converter turns it into a custom operator, and :meth:`FusedLSTM.write` replaces it by the builtin
one. The cell is not clipped: the converter's own fusion sets a clip of 10, which Keras does not
have.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, UnsupportedModelError
from edgeattn.printable import counted
from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.lowering.rnn.recurrence import Cell, Recurrence, RecurrenceLowering

OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_PREFIX = "edgeattn_lstm_"
# sigmoid(-CLEARED) is zero in float32, whatever the other terms add.
CLEARED = 1e4


class FusedLSTM:
    """The fused operators of one model; other recurrences are lowered by ``fallback``.

    Without ``clearing``, no step clears the states: the file is quantized for Lite Micro, where
    other steps do.
    """

    def __init__(self, fallback: RecurrenceLowering, *, clearing: bool = True) -> None:
        self._fallback = fallback
        self._clearing = clearing
        self._cells: dict[str, Cell] = {}
        self._counter = itertools.count()

    def lower(
        self, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
    ) -> tuple[Any, list[Any]]:
        """A :class:`RecurrenceLowering` for fixed shapes."""
        import tensorflow as tf

        cell = recurrence.cell
        fusible = _is_standard(cell) and states is None and mask is None
        if not fusible or recurrence.final:
            return self._fallback(recurrence, x, states, mask)
        batch, time, features = x.shape
        name = f"{_PREFIX}{next(self._counter)}"
        self._cells[name] = cell
        x = tf.reverse(x, axis=[1]) if recurrence.reverse else x
        if self._clearing:
            clearing = np.zeros((batch, 1, features + 1), np.float32)
            clearing[:, :, -1] = flag(cell)
            x = tf.concat([clearing, tf.pad(x, [[0, 0], [0, 0], [0, 1]])], axis=1)
            outputs = tf.slice(
                _placeholder(name, x, (batch, time + 1, cell.units)), [0, 1, 0], [-1, -1, -1]
            )
        else:
            outputs = _placeholder(name, x, (batch, time, cell.units))
        last = outputs[:, -1]
        outputs = tf.reverse(outputs, axis=[1]) if recurrence.reverse else outputs
        # The cell state stays inside the operator: without `final`, the layer does not use it.
        return outputs, [last, None]

    def write(self, file: TFLiteFile) -> None:
        """Replace the placeholders by the operators; :class:`UnsupportedModelError` if there is
        none."""
        if not self._cells:
            raise UnsupportedModelError(
                "No layer of this model can become a fused LSTM.",
                hint="It takes an LSTM with tanh and sigmoid, without a mask or initial states.",
            )
        code = file.code_index(OPERATOR)
        pending = dict(self._cells)
        for graph in file.model.subgraphs:
            for operator in graph.operators:
                options = operator.customOptions
                content = b"" if options is None else bytes(options)
                name = next((n for n in pending if f"{n}\0".encode() in content), None)
                if name is not None:
                    operator.opcodeIndex = code
                    _write(file, graph, operator, pending.pop(name), clearing=self._clearing)
        if pending:
            raise ConversionError(f"The converter lost {counted(len(pending), 'fused operator')}.")
        _drop_subgraphs(file.model, self._cells)


def _is_standard(cell: Cell) -> bool:
    if cell.kind != "lstm":
        return False
    expected = ((cell.activation, "tanh"), (cell.recurrent_activation, "sigmoid"))
    return all(
        getattr(function, "__name__", None) == name
        and str(getattr(function, "__module__", "")).split(".")[0] in ("keras", "tf_keras")
        for function, name in expected
    )


def _flag_weight(cell: Cell) -> float:
    """The weight of the flag: no larger than the others, whose scale it shares if quantized."""
    return float(np.abs(cell.kernel).max()) or 1.0


def flag(cell: Cell) -> float:
    """The flag's value in the clearing step: it outweighs what the last output can add."""
    others = np.abs(cell.recurrent_kernel).sum(axis=0) + np.abs(cell.bias)
    return (CLEARED + float(others.max())) / _flag_weight(cell)


def _placeholder(name: str, x: Any, shape: tuple[int, ...]) -> Any:
    """A function call that the converter does not inline and that carries ``name`` in the file."""
    import tensorflow as tf

    def placeholder(x: Any) -> Any:
        return tf.broadcast_to(tf.reduce_sum(x), shape)

    placeholder.__name__ = name
    function = tf.function(
        placeholder, experimental_attributes={"_noinline": True}, autograph=False
    )
    concrete = function.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    concrete.add_to_graph(tf.compat.v1.get_default_graph())
    # Of a call's attributes, the executor type is a text that survives into the file.
    (result,) = tf.raw_ops.PartitionedCall(
        args=[x], Tout=[tf.float32], f=concrete, executor_type=name
    )
    result.set_shape(shape)
    return result


_SUBGRAPH_OPTIONS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
)


def _drop_subgraphs(model: Any, names: Iterable[str]) -> None:
    """Remove the placeholders' functions, and renumber the subgraphs that loops refer to."""
    prefixes = tuple(f"{name}_".encode() for name in names)
    retained = [
        index
        for index, graph in enumerate(model.subgraphs)
        if not any(prefix in bytes(graph.name or b"") for prefix in prefixes)
    ]
    renumbered = {old: new for new, old in enumerate(retained)}
    model.subgraphs = [model.subgraphs[index] for index in retained]
    for graph in model.subgraphs:
        for operator in graph.operators:
            options = operator.builtinOptions
            for option in _SUBGRAPH_OPTIONS:
                if hasattr(options, option):
                    setattr(options, option, renumbered[getattr(options, option)])


def _write(file: TFLiteFile, graph: Any, operator: Any, cell: Cell, *, clearing: bool) -> None:
    """Turn a placeholder into the operator, in place.

    Its inputs, in the kernel's order: x, four input weights (units, features), four recurrent
    weights (units, units), three peepholes, four biases, projection weights and bias, output state,
    cell state, four of layer normalisation. The gates are i, f, c, o, as in Keras.
    """
    (x,), (output,) = operator.inputs, operator.outputs
    batch = int(graph.tensors[int(x)].shape[0])
    rows = (int(clearing), cell.kernel.shape[1])
    flag_weights = np.full(rows, -_flag_weight(cell), np.float32)
    flag_weights[:, 2 * cell.units : 3 * cell.units] = 0

    def constants(matrices: Iterable[Array]) -> list[int]:
        return [
            file.add_tensor(
                graph,
                f"{_PREFIX}weights_{len(graph.tensors)}",
                "FLOAT32",
                list(matrix.T.shape),
                value=np.ascontiguousarray(matrix.T),
            )
            for matrix in matrices
        ]

    def state(name: str) -> int:
        shape = [batch, cell.units]
        index = file.add_tensor(graph, f"{_PREFIX}{name}_{output}", "FLOAT32", shape)
        graph.tensors[index].isVariable = True
        return index

    absent = -1
    operator.inputs = [
        int(x),
        *constants(np.split(np.concatenate([cell.kernel, flag_weights]), 4, axis=1)),
        *constants(np.split(cell.recurrent_kernel, 4, axis=1)),
        *[absent] * 3,
        *constants(np.split(cell.bias, 4)),
        *[absent] * 2,
        state("output"),
        state("cell"),
        *[absent] * 4,
    ]
    options = file.schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = file.schema.ActivationFunctionType.TANH
    options.cellClip = options.projClip = 0.0
    options.timeMajor = False
    operator.builtinOptionsType = file.schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = options
    operator.customOptions = None
