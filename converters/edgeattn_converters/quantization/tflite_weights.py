"""Constants of a ``.tflite`` file in fewer bits, where its operators still compute in float32.

Written over the file and not asked of TensorFlow's converter, which leaves operators that were
fused after it as they are; the arithmetic is the same. Loops' bodies are files' graphs like the
main one, so recurrent weights in them are reached too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.graphs.tflite_pack import pack_int4

# Below it a weight is not worth its scales: TensorFlow's quantizer draws the same line.
MIN_ELEMENTS = 512
FLOAT16_MAX = float(np.finfo(np.float16).max)
# Axis of the output channels of an operator's weights (its second input).
CHANNELS = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
# Versions of an operator whose weights are int8 and whose input is float32, from TensorFlow's
# op_version.cc: per channel, and per tensor.
VERSIONS = {
    "FULLY_CONNECTED": (12, 9),
    "CONV_2D": (5, 5),
    "DEPTHWISE_CONV_2D": (6, 6),
    "GATHER": (2, 2),
    "DEQUANTIZE": (3, 5),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (2, 2),
}
# The fused LSTM, and where its weights are among its inputs; see lowering/fused.py.
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
FUSED_WEIGHTS = slice(1, 9)

# Which constants a pass is about.
WeightFilter = Callable[[Array], bool]

# The TensorFlow whose runtime is the first to know FULLY_CONNECTED in these versions.
RUNTIMES = ("2.17.0", "2.4.0")


def symmetric(value: Array, axis: int | None, levels: int = 127) -> tuple[Array, Array]:
    """int8 and scales, zero at zero: ``value ~ int8 * scale``, a scale per index of ``axis``."""
    axes = tuple(k for k in range(value.ndim) if k != axis) if axis is not None else None
    largest = np.abs(value).max(axis=axes, keepdims=True)
    scale = np.where(largest == 0, 1.0, largest / levels).astype(np.float32)
    integers = np.clip(np.rint(value / scale), -levels, levels).astype(np.int8)
    return integers, scale.reshape(-1)


def everything(value: Array) -> bool:
    return True


def nothing(value: Array) -> bool:
    return False


def hybrid(
    file: TFLiteFile,
    *,
    per_channel_dense: bool,
    wanted: WeightFilter = everything,
    four_bits: WeightFilter = nothing,
) -> None:
    """Weights of products, convolutions and embeddings become int8, in place.

    The operators scale their inputs to int8 at run time, by what they find in them. Of the wanted
    weights, those of products may have ``four_bits``.
    """
    for graph in file.model.subgraphs:
        users = _users(graph)
        for operator in list(graph.operators):
            kind = file.kind(operator)
            if kind == "GATHER":
                _gather(file, graph, operator, users, wanted)
            elif kind in CHANNELS:
                _product(file, graph, operator, users, per_channel_dense, wanted, four_bits)
            elif kind == FUSED:
                _fused(file, graph, operator, wanted)


def half(file: TFLiteFile, wanted: WeightFilter = everything) -> None:
    """Float32 constants become float16, in place, each behind a DEQUANTIZE."""

    def store(stored: Any, value: Array, _: int | None) -> bool:
        # What float16 cannot hold would become infinity: it stays.
        if np.abs(value).max() > FLOAT16_MAX:
            return False
        stored.type = file.type_code("FLOAT16")
        stored.buffer = file.add_buffer(value.astype(np.float16))
        return True

    _behind_dequantize(file, "float16", VERSIONS["DEQUANTIZE"][0], store, wanted)


def only(file: TFLiteFile, *, per_channel_dense: bool, wanted: WeightFilter = everything) -> None:
    """Weights become int8, in place, each behind a DEQUANTIZE: activations are left alone.

    A constant is made float32 again once, when the file is loaded.
    """

    def store(stored: Any, value: Array, axis: int | None) -> bool:
        _store(file, stored, value, axis if per_channel_dense else None)
        return True

    for graph in file.model.subgraphs:
        users = _users(graph)
        for operator in list(graph.operators):
            if file.kind(operator) == "GATHER":
                _gather(file, graph, operator, users, wanted)
    version = VERSIONS["DEQUANTIZE"][1 if per_channel_dense else 0]
    _behind_dequantize(file, "int8", version, store, wanted)


def _behind_dequantize(
    file: TFLiteFile,
    suffix: str,
    version: int,
    store: Callable[[Any, Array, int | None], bool],
    wanted: WeightFilter,
) -> None:
    """Large constants are kept as ``store`` writes them, given the axis of their channels."""
    for graph in file.model.subgraphs:
        users = _users(graph)
        outputs = set(map(int, graph.outputs))
        extra = []
        for index in range(len(graph.tensors)):
            tensor = graph.tensors[index]
            value = _weight(file, tensor)
            if value is None or index in outputs or not wanted(value):
                continue
            axes = {
                CHANNELS.get(file.kind(op))
                for op, position in users.get(index, ())
                if position == 1
            }
            stored = file.schema.TensorT()
            stored.name, stored.shape = f"{file.name(tensor)}/{suffix}", tensor.shape
            if not store(stored, value, axes.pop() if len(axes) == 1 else None):
                continue
            graph.tensors.append(stored)
            tensor.buffer = 0
            extra.append(_dequantize(file, len(graph.tensors) - 1, index, version))
        graph.operators[:0] = extra


def _dequantize(file: TFLiteFile, source: int, target: int, version: int) -> Any:
    operator = file.schema.OperatorT()
    operator.opcodeIndex = file.code_index("DEQUANTIZE", version)
    operator.inputs, operator.outputs = [source], [target]
    return operator


def _users(graph: Any) -> dict[int, list[tuple[Any, int]]]:
    """For each tensor the operators that take it, and at which position."""
    found: dict[int, list[tuple[Any, int]]] = {}
    for operator in graph.operators:
        for position, index in enumerate(operator.inputs):
            found.setdefault(int(index), []).append((operator, position))
    return found


def _weight(file: TFLiteFile, tensor: Any) -> Array | None:
    value = file.constant(tensor)
    if value is None or file.dtype(tensor) != "FLOAT32" or value.size < MIN_ELEMENTS:
        return None
    return value


def _store(file: TFLiteFile, tensor: Any, value: Array, axis: int | None, bits: int = 8) -> None:
    integers, scale = symmetric(value, axis, 2 ** (bits - 1) - 1)
    tensor.buffer = file.add_buffer(integers if bits == 8 else pack_int4(integers))
    tensor.type = file.type_code(f"INT{bits}")
    tensor.quantization = file.schema.QuantizationParametersT()
    tensor.quantization.scale = scale
    tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
    tensor.quantization.quantizedDimension = axis or 0


def _product(
    file: TFLiteFile,
    graph: Any,
    operator: Any,
    users: dict[int, Any],
    per_channel_dense: bool,
    wanted: WeightFilter,
    four_bits: WeightFilter,
) -> None:
    index = int(operator.inputs[1])
    tensor = graph.tensors[index]
    kind = file.kind(operator)
    value = _weight(file, tensor)
    same = all(file.kind(user) == kind and at == 1 for user, at in users[index])
    inputs_float = file.dtype(graph.tensors[int(operator.inputs[0])]) == "FLOAT32"
    if value is None or not same or not inputs_float or not wanted(value):
        return
    per_channel = kind != "FULLY_CONNECTED" or per_channel_dense
    bits = 4 if kind == "FULLY_CONNECTED" and four_bits(value) else 8
    _store(file, tensor, value, CHANNELS[kind] if per_channel else None, bits)
    for user, _ in users[index]:
        if user.builtinOptions is not None and hasattr(
            user.builtinOptions, "asymmetricQuantizeInputs"
        ):
            user.builtinOptions.asymmetricQuantizeInputs = True
    file.code_index(kind, VERSIONS[kind][0 if per_channel else 1])
    if kind == "FULLY_CONNECTED":
        file.require_runtime(RUNTIMES[0 if per_channel else 1])


def _fused(file: TFLiteFile, graph: Any, operator: Any, wanted: WeightFilter) -> None:
    """The weights of a fused LSTM: all eight or none, each with one scale, as its kernel wants."""
    indices = [int(i) for i in operator.inputs[FUSED_WEIGHTS]]
    values = [file.constant(graph.tensors[i]) for i in indices]
    large = [v for v in values if v is not None and v.size >= MIN_ELEMENTS]
    if not large or not all(wanted(value) for value in large):
        return
    if any(file.dtype(graph.tensors[i]) != "FLOAT32" for i in indices):
        return
    for index, value in zip(indices, values, strict=True):
        assert value is not None
        _store(file, graph.tensors[index], value, None)
    file.code_index(FUSED, VERSIONS[FUSED][0])


def _gather(
    file: TFLiteFile, graph: Any, operator: Any, users: dict[int, Any], wanted: WeightFilter
) -> None:
    """The table in int8, and only what was looked up made float32 again."""
    index = int(operator.inputs[0])
    tensor = graph.tensors[index]
    value = _weight(file, tensor)
    if value is None or any(file.kind(u) != "GATHER" or at != 0 for u, at in users[index]):
        return
    if not wanted(value):
        return
    _store(file, tensor, value, None)
    file.code_index("GATHER", VERSIONS["GATHER"][0])
    for user, _ in users[index]:
        result = int(user.outputs[0])
        looked_up = file.schema.TensorT()
        looked_up.name = file.name(graph.tensors[result]) + "/int8"
        looked_up.shape, looked_up.type = graph.tensors[result].shape, tensor.type
        looked_up.shapeSignature = graph.tensors[result].shapeSignature
        looked_up.buffer = 0
        looked_up.quantization = tensor.quantization
        graph.tensors.append(looked_up)
        user.outputs = [len(graph.tensors) - 1]
        at = next(k for k, item in enumerate(graph.operators) if item is user) + 1
        version = VERSIONS["DEQUANTIZE"][0]
        graph.operators.insert(at, _dequantize(file, len(graph.tensors) - 1, result, version))
