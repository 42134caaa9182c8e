"""A fused LSTM in integers for Lite Micro: int16 activations, int8 weights, and a cleared state.

The operator UNIDIRECTIONAL_SEQUENCE_LSTM keeps its states in variable tensors. Every sequence is
therefore preceded by steps that clear them: the inputs get flags, which are set in these steps
only, and whose weights make the input, forget and output gates as small as an int16 gate can be,
``sigmoid(-8)``, which is 11 / 32768 and not zero. One step leaves a rest of a large cell, so that
there are several. :func:`clearing_steps` counts those after which the states are the same integers
whatever they were before, in the worst case that weights and kernels allow.

The kernel computes as TensorFlow's specification of 8-bit quantization describes for integer
LSTMs: gates have the scale 2^-12 before their activation and 2^-15 after it, and the scale of the
cell is a power of two.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import quantize_symmetric

# Positions of the operator's inputs; the gates are i, f, c, o.
KERNELS, RECURRENT, BIASES, STATES = range(1, 5), range(5, 9), range(12, 16), (18, 19)
CANDIDATE = 2
LARGEST = 32767
HIDDEN_SCALE = 2.0**-15
GATE_RANGE = 8.0
# Room for rounding before the activation, and for that of the activations' tables, in their units.
MARGIN, TABLE_ERROR = 0.5, 4
MOST_FLAGS, MOST_STEPS = 64, 8
# The cell has at least the resolution for which the kernel does not shift its bits away.
LEAST_POWER = -12
HEADROOM = 2.0


@dataclass(frozen=True)
class LSTMWeights:
    """Float32 weights in Keras' layout: kernels (features or units, 4 * units), bias."""

    kernel: Array
    recurrent: Array
    bias: Array

    def largest_cell(self, x: Array) -> float:
        """The largest magnitude of a cell on sequences (samples, time, features)."""
        units = self.recurrent.shape[0]
        h = np.zeros((len(x), units))
        c = np.zeros_like(h)
        largest = 0.0
        for step in np.moveaxis(x @ self.kernel + self.bias, 1, 0):
            i, f, g, o = np.split(step + h @ self.recurrent, 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            largest = max(largest, float(np.abs(c).max()))
        return largest


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, np.float64)))


def lstm_weights(file: TFLiteFile, operator: Any) -> LSTMWeights:
    """The weights of a float32 operator."""

    def stacked(places: range, axis: int) -> Array:
        values = [file.constant(file.main.tensors[int(operator.inputs[k])]) for k in places]
        return np.concatenate([value.T for value in values if value is not None], axis=axis)

    return LSTMWeights(stacked(KERNELS, 1), stacked(RECURRENT, 1), stacked(BIASES, 0))


def cell_scale(largest: float) -> float:
    """The power of two that is the scale of a cell with values up to ``largest``."""
    return 2.0 ** max(LEAST_POWER, math.ceil(math.log2(max(HEADROOM * largest, 1e-6) / LARGEST)))


def clearing_steps(recurrent: Array, units: int, scale: float) -> int | None:
    """After how many steps with flags both states do not depend on what they were before.

    ``recurrent`` is the kernel (units, 4 * units) as it is stored, ``scale`` that of the cell. The
    bounds hold for every unit: a gate is at most ``sigmoid(r - 8)``, where ``r`` is what the last
    outputs can add. None if that takes more than :data:`MOST_STEPS`.
    """
    sums = np.abs(recurrent).sum(axis=0).reshape(4, units)
    hidden, cell = np.ones(units), np.full(units, (LARGEST + 1) * scale)
    for step in range(1, MOST_STEPS + 1):
        added = np.minimum(GATE_RANGE, sums * hidden.max() + 2.0**-11)
        gates = _sigmoid(added - GATE_RANGE) + TABLE_ERROR * HIDDEN_SCALE
        gate_i, gate_f, gate_o = gates[0], gates[1], gates[3]
        forgotten = gate_f * cell
        if not hidden.any() and (forgotten < 0.5 * scale).all():
            return step
        # With h = 0 and nothing of the cell left, the next states are constants.
        cell = np.minimum(forgotten + gate_i + scale, (LARGEST + 1) * scale)
        output = gate_o * (np.tanh(cell) + TABLE_ERROR * HIDDEN_SCALE)
        hidden = np.where(output < 0.49 * HIDDEN_SCALE, 0.0, np.minimum(output + HIDDEN_SCALE, 1.0))
    return None


def flag_count(weights: LSTMWeights, input_scale: float) -> int | None:
    """The number of flags that saturate all three gates; None if there are too many."""
    units = weights.recurrent.shape[0]
    need = GATE_RANGE + MARGIN + float(np.abs(weights.bias).max(initial=0.0))
    counts = []
    for gate in (0, 1, 3):
        largest = float(np.abs(weights.kernel[:, gate * units : (gate + 1) * units]).max())
        flag = LARGEST * input_scale * (largest or 1.0)
        counts.append(math.ceil(need / flag))
    return max(counts) if max(counts) <= MOST_FLAGS else None


def integer_lstm(file: TFLiteFile, operator: Any, x: int, h: int, largest_cell: float) -> list[Any]:
    """The operators of the LSTM from the int16 tensor ``x`` to the int16 tensor ``h``.

    ``h`` must have the scale :data:`HIDDEN_SCALE`. Raises :class:`ValueError` if the state cannot
    be cleared.
    """
    graph, weights = file.main, lstm_weights(file, operator)
    units = weights.recurrent.shape[0]
    input_scale = float(graph.tensors[x].quantization.scale[0])
    scale = cell_scale(largest_cell)
    stored = [quantize_symmetric(part, None) for part in np.split(weights.recurrent, 4, axis=1)]
    real = np.concatenate([integers * parameter for integers, parameter in stored], axis=1)
    steps = clearing_steps(real, units, scale)
    flags = flag_count(weights, input_scale)
    if steps is None or flags is None:
        raise ValueError("the state of the LSTM cannot be cleared")
    batch, time, features = (int(axis) for axis in graph.tensors[x].shape)
    padded, joined, outputs = (
        _int16(file, (batch, *shape), parameter)
        for shape, parameter in (
            ((time, features + flags), input_scale),
            ((time + steps, features + flags), input_scale),
            ((time + steps, units), HIDDEN_SCALE),
        )
    )
    clearing = np.zeros((batch, steps, features + flags), np.int16)
    clearing[:, :, features:] = LARGEST
    first = _int16(file, clearing.shape, input_scale, clearing)
    paddings = np.zeros((3, 2), np.int32)
    paddings[2, 1] = flags
    pad = file.new_operator("PAD", [x, file.add_constant(file.main, paddings)], [padded])
    join = file.new_operator("CONCATENATION", [first, padded], [joined])
    join.builtinOptions = file.schema.ConcatenationOptionsT()
    join.builtinOptions.axis = 1
    join.builtinOptionsType = file.schema.BuiltinOptions.ConcatenationOptions
    _quantize(file, operator, weights, stored, flags, input_scale)
    operator.inputs = [joined, *map(int, operator.inputs[1:])]
    for place, parameter in zip(STATES, (HIDDEN_SCALE, scale), strict=True):
        state = _int16(file, (batch, units), parameter)
        graph.tensors[state].isVariable = True
        operator.inputs[place] = state
    operator.outputs = [outputs]
    begin, size = (
        file.add_constant(file.main, np.array(values, np.int32))
        for values in ((0, steps, 0), (-1, time, -1))
    )
    return [pad, join, operator, file.new_operator("SLICE", [outputs, begin, size], [h])]


def _quantize(
    file: TFLiteFile,
    operator: Any,
    weights: LSTMWeights,
    recurrent: list[tuple[Array, Array]],
    flags: int,
    input_scale: float,
) -> None:
    """Replace the weights among the operator's inputs by integers, in place."""
    graph = file.main
    inputs = [int(i) for i in operator.inputs]
    kernels, biases = (np.split(value, 4, axis=-1) for value in (weights.kernel, weights.bias))
    for gate, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        integers, scale = quantize_symmetric(kernel, None)
        rows = np.full((flags, kernel.shape[1]), 0 if gate == CANDIDATE else -127, np.int8)
        product = scale.astype(np.float64) * input_scale
        values = (
            (KERNELS[gate], "INT8", np.concatenate([integers, rows]).T, scale),
            (RECURRENT[gate], "INT8", recurrent[gate][0].T, recurrent[gate][1]),
            (BIASES[gate], "INT64", np.rint(bias / product).astype(np.int64), product),
        )
        for place, dtype, value, parameter in values:
            inputs[place] = file.add_tensor(
                graph,
                "",
                dtype,
                list(value.shape),
                value=np.ascontiguousarray(value),
                quantization=file.quantization(np.asarray(parameter, np.float32)),
            )
    operator.inputs = inputs


def _int16(
    file: TFLiteFile, shape: tuple[int, ...], scale: float, value: Array | None = None
) -> int:
    quantization = file.quantization(np.array([scale], np.float32))
    return file.add_tensor(
        file.main, "", "INT16", list(shape), value=value, quantization=quantization
    )
