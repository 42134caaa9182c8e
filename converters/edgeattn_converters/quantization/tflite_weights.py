"""Storing constants of a ``.tflite`` file in fewer bits, with operators that compute in float32.

The file is edited directly because TensorFlow's converter leaves operators unchanged that were
fused after conversion; the arithmetic is the same. Loop bodies are graphs like the main one, so
their recurrent weights are included.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.graphs.tflite_pack import pack_int4
from edgeattn_converters.quantization.arithmetic import (
    FLOAT16_MAX,
    MIN_ELEMENTS,
    quantize_symmetric,
)
from edgeattn_converters.quantization.weight_precision import PrecisionOf, WeightFilter, stored_in

# Axis of the output channels in an operator's weights, which are its second input.
CHANNELS = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
# The operator versions for int8 weights and float32 inputs, with one scale per channel and with one
# in all. Source: op_version.cc of TensorFlow.
VERSIONS = {
    "FULLY_CONNECTED": (12, 9),
    "CONV_2D": (5, 5),
    "DEPTHWISE_CONV_2D": (6, 6),
    "GATHER": (2, 2),
    "DEQUANTIZE": (3, 5),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (2, 2),
}
# The first TensorFlow runtimes that support these versions of FULLY_CONNECTED.
FULLY_CONNECTED_RUNTIMES = ("2.17.0", "2.4.0")
# The fused LSTM and its weights among its inputs; see edgeattn_converters.lowering.rnn.fused.
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
FUSED_WEIGHTS = slice(1, 9)
# The operators that read each tensor, with the position among their inputs.
Users = dict[int, list[tuple[Any, int]]]


def store_weights(file: TFLiteFile, precision_of: PrecisionOf, *, per_channel_dense: bool) -> None:
    """Store each large weight in its precision, in place."""
    _fill_initial_states(file)
    _use_dynamic_kernels(
        file,
        per_channel_dense,
        stored_in(precision_of, "int8", "int4"),
        stored_in(precision_of, "int4"),
    )
    _store_int8(file, per_channel_dense, stored_in(precision_of, "int8_weights"))
    _store_float16(file, stored_in(precision_of, "float16"))


def _fill_initial_states(file: TFLiteFile) -> None:
    """Large constants of one value that a loop starts from become a FILL, in place."""
    for graph in file.model.subgraphs:
        users = _users(graph)
        for index in range(len(graph.tensors)):
            tensor = graph.tensors[index]
            value = _large_constant(file, tensor)
            uses = users.get(index, ())
            if value is None or not uses or np.ptp(value) or index in map(int, graph.outputs):
                continue
            if any(file.kind(user) != "WHILE" for user, _ in uses):
                continue
            name, sizes = file.name(tensor), np.asarray(tensor.shape, np.int32)
            inputs = [
                file.add_constant(graph, sizes, f"{name}/shape"),
                file.add_constant(graph, value.reshape(-1)[:1].reshape(()), f"{name}/value"),
            ]
            tensor.buffer = 0
            graph.operators.insert(0, file.new_operator("FILL", inputs, [index]))


def _use_dynamic_kernels(
    file: TFLiteFile, per_channel_dense: bool, is_integer: WeightFilter, is_int4: WeightFilter
) -> None:
    """Weights of products, convolutions and embeddings become integers, in place.

    The operators scale their inputs to int8 at run time, from the values of each input.
    """
    for graph in file.model.subgraphs:
        users = _users(graph)
        for operator in list(graph.operators):
            kind = file.kind(operator)
            if kind == "GATHER":
                _quantize_table(file, graph, operator, users, is_integer)
            elif kind in CHANNELS:
                per_channel = kind != "FULLY_CONNECTED" or per_channel_dense
                value = _product_weight(file, graph, operator, users)
                if value is not None and is_integer(value):
                    bits = 4 if kind == "FULLY_CONNECTED" and is_int4(value) else 8
                    tensor = graph.tensors[int(operator.inputs[1])]
                    _store(file, tensor, value, CHANNELS[kind] if per_channel else None, bits)
                    _scale_inputs(file, operator, users, per_channel)
            elif kind == FUSED:
                _quantize_fused(file, graph, operator, is_integer)


def _store_float16(file: TFLiteFile, is_float16: WeightFilter) -> None:
    """Constants become float16, in place, each followed by a DEQUANTIZE."""

    def store(stored: Any, value: Array, _: int | None) -> bool:
        # A larger value would become infinity: the constant stays float32.
        if np.abs(value).max() > FLOAT16_MAX:
            return False
        stored.type = file.type_code("FLOAT16")
        stored.buffer = file.add_buffer(value.astype(np.float16))
        return True

    _store_dequantized(file, "float16", VERSIONS["DEQUANTIZE"][0], store, is_float16)


def _store_int8(file: TFLiteFile, per_channel_dense: bool, is_int8: WeightFilter) -> None:
    """Weights become int8, in place, each followed by a DEQUANTIZE; activations stay float32.

    The runtime dequantizes a constant once, when it loads the file.
    """

    def store(stored: Any, value: Array, axis: int | None) -> bool:
        _store(file, stored, value, axis if per_channel_dense else None)
        return True

    for graph in file.model.subgraphs:
        users = _users(graph)
        for operator in list(graph.operators):
            if file.kind(operator) == "GATHER":
                _quantize_table(file, graph, operator, users, is_int8)
    version = VERSIONS["DEQUANTIZE"][1 if per_channel_dense else 0]
    _store_dequantized(file, "int8", version, store, is_int8)


def _store_dequantized(
    file: TFLiteFile,
    suffix: str,
    version: int,
    store: Callable[[Any, Array, int | None], bool],
    is_stored: WeightFilter,
) -> None:
    """Replace large constants by a stored one and a DEQUANTIZE.

    ``store`` fills the stored tensor, given the value and its axis of output channels; it returns
    False to leave the constant unchanged.
    """
    for graph in file.model.subgraphs:
        users = _users(graph)
        outputs = set(map(int, graph.outputs))
        conversions = []
        for index in range(len(graph.tensors)):
            tensor = graph.tensors[index]
            value = _large_constant(file, tensor)
            if value is None or index in outputs or not is_stored(value):
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
            source = len(graph.tensors) - 1
            conversions.append(file.new_operator("DEQUANTIZE", [source], [index], version))
        graph.operators[:0] = conversions


def _users(graph: Any) -> Users:
    users: Users = {}
    for operator in graph.operators:
        for position, index in enumerate(operator.inputs):
            users.setdefault(int(index), []).append((operator, position))
    return users


def large_constants(file: TFLiteFile, graph: Any, operator: Any) -> list[Array]:
    """The large constants among an operator's inputs."""
    tensors = [graph.tensors[int(i)] for i in operator.inputs if int(i) >= 0]
    values = [file.constant(tensor) for tensor in tensors]
    return [value for value in values if value is not None and value.size >= MIN_ELEMENTS]


def _large_constant(file: TFLiteFile, tensor: Any) -> Array | None:
    value = file.constant(tensor)
    if value is None or file.dtype(tensor) != "FLOAT32" or value.size < MIN_ELEMENTS:
        return None
    return value


def _store(file: TFLiteFile, tensor: Any, value: Array, axis: int | None, bits: int = 8) -> None:
    integers, scale = quantize_symmetric(value, axis, 2 ** (bits - 1) - 1)
    tensor.buffer = file.add_buffer(integers if bits == 8 else pack_int4(integers))
    tensor.type = file.type_code(f"INT{bits}")
    tensor.quantization = file.quantization(scale, axis=axis or 0)


def _product_weight(file: TFLiteFile, graph: Any, operator: Any, users: Users) -> Array | None:
    """The large weight of a product of float32 inputs that products of its type alone read."""
    index = int(operator.inputs[1])
    kind = file.kind(operator)
    if any(file.kind(user) != kind or position != 1 for user, position in users[index]):
        return None
    if file.dtype(graph.tensors[int(operator.inputs[0])]) != "FLOAT32":
        return None
    return _large_constant(file, graph.tensors[index])


def _scale_inputs(file: TFLiteFile, operator: Any, users: Users, per_channel: bool) -> None:
    """Select the kernels with int8 weights for all operators that read the weights."""
    kind = file.kind(operator)
    for user, _ in users[int(operator.inputs[1])]:
        options = user.builtinOptions
        if options is not None and hasattr(options, "asymmetricQuantizeInputs"):
            options.asymmetricQuantizeInputs = True
    file.code_index(kind, VERSIONS[kind][0 if per_channel else 1])
    if kind == "FULLY_CONNECTED":
        file.require_runtime(FULLY_CONNECTED_RUNTIMES[0 if per_channel else 1])


def _quantize_fused(file: TFLiteFile, graph: Any, operator: Any, is_int8: WeightFilter) -> None:
    """The eight weights of a fused LSTM become int8 together, with one scale each."""
    tensors = [graph.tensors[int(i)] for i in operator.inputs[FUSED_WEIGHTS]]
    values = [file.constant(tensor) for tensor in tensors]
    large = [v for v in values if v is not None and v.size >= MIN_ELEMENTS]
    if not large or not all(is_int8(value) for value in large):
        return
    if any(file.dtype(tensor) != "FLOAT32" for tensor in tensors):
        return
    for tensor, value in zip(tensors, values, strict=True):
        assert value is not None
        _store(file, tensor, value, None)
    file.code_index(FUSED, VERSIONS[FUSED][0])


def _quantize_table(
    file: TFLiteFile, graph: Any, operator: Any, users: Users, is_int8: WeightFilter
) -> None:
    """An embedding table becomes int8, and only its looked-up rows are dequantized."""
    index = int(operator.inputs[0])
    table = graph.tensors[index]
    value = _large_constant(file, table)
    if value is None or not is_int8(value):
        return
    if any(file.kind(user) != "GATHER" or position != 0 for user, position in users[index]):
        return
    _store(file, table, value, None)
    file.code_index("GATHER", VERSIONS["GATHER"][0])
    for user, _ in users[index]:
        result = int(user.outputs[0])
        rows = file.add_tensor(
            graph,
            file.name(graph.tensors[result]) + "/int8",
            "INT8",
            graph.tensors[result].shape,
            quantization=table.quantization,
        )
        user.outputs = [rows]
        position = next(k for k, item in enumerate(graph.operators) if item is user) + 1
        version = VERSIONS["DEQUANTIZE"][0]
        graph.operators.insert(position, file.new_operator("DEQUANTIZE", [rows], [result], version))
