"""Operators and weights of a ``.tflite`` file or an ONNX model, counted by dtype."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn_converters.graphs.onnx_file import consumers, inferred_shapes, producers
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import MIN_ELEMENTS
from edgeattn_converters.quantization.summary import FLOAT32, INT8_WEIGHTS, SchemeSummary, summarize

# They convert numbers, or contain operators that are counted themselves.
UNCOUNTED = {"QUANTIZE", "DEQUANTIZE", "WHILE", "IF"}
REAL = ("FLOAT32", "FLOAT16", "INT8", "INT16", "INT4")
DTYPES = {"FLOAT": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "int8", "INT4": "int4"}
# They have int8 weights and scale their activations to int8 at run time.
DYNAMIC = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}
UNCOUNTED_ONNX = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
# Their output has the dtype of their input.
MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice", "Split"}


def summarize_tflite(content: bytes) -> SchemeSummary:
    file = TFLiteFile(content)
    return summarize(_tflite_operators(file), _tflite_weights(file), MIN_ELEMENTS)


def _tflite_operators(file: TFLiteFile) -> Iterator[tuple[str, str]]:
    for graph in file.model.subgraphs:
        integers = _integer_constants(file, graph)
        for operator in graph.operators:
            kind = file.kind(operator)
            if kind in UNCOUNTED or not len(operator.outputs):
                continue
            dtype = file.dtype(graph.tensors[int(operator.outputs[0])])
            if dtype not in REAL:
                continue
            has_integers = dtype == "FLOAT32" and any(int(i) in integers for i in operator.inputs)
            yield kind, INT8_WEIGHTS if has_integers else dtype.lower()


def _tflite_weights(file: TFLiteFile) -> Iterator[tuple[str, int]]:
    for graph in file.model.subgraphs:
        for tensor in graph.tensors:
            value = file.constant(tensor)
            if value is not None and value.ndim and file.dtype(tensor) in REAL:
                yield file.dtype(tensor).lower(), value.size


def _integer_constants(file: TFLiteFile, graph: Any) -> set[int]:
    """The int8 and int4 constants of a graph, and their dequantized values."""
    constants = {
        index
        for index, tensor in enumerate(graph.tensors)
        if file.dtype(tensor) in ("INT8", "INT4") and file.constant(tensor) is not None
    }
    dequantized = {
        int(operator.outputs[0])
        for operator in graph.operators
        if file.kind(operator) == "DEQUANTIZE" and int(operator.inputs[0]) in constants
    }
    return constants | dequantized


def summarize_onnx(proto: Any) -> SchemeSummary:
    return summarize(_ONNXOperators(proto), _onnx_weights(proto), MIN_ELEMENTS)


def _onnx_weights(proto: Any) -> Iterator[tuple[str, int]]:
    for item in proto.graph.initializer:
        dtype = DTYPES.get(_dtype(item))
        if dtype is not None and item.dims:
            yield dtype, int(np.prod(item.dims))


def _dtype(item: Any) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(item.data_type))


class _ONNXOperators:
    """Iterates over ``(type, how)`` of the nodes that compute with real numbers."""

    def __init__(self, proto: Any) -> None:
        self._proto = proto
        self._dtypes = {item.name: _dtype(item) for item in proto.graph.initializer}
        self._float_weights = {
            item.name
            for item in proto.graph.initializer
            if _dtype(item) == "FLOAT" and np.prod(item.dims) >= MIN_ELEMENTS
        }
        self._producers = producers(proto)
        self._consumers = consumers(proto)
        self._folded = self._folded_values()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        real = _real_values(self._proto)
        for node in self._proto.graph.node:
            if node.op_type in UNCOUNTED_ONNX or self._folded.issuperset(node.output):
                continue
            if node.op_type in DYNAMIC:
                yield node.op_type, INT8_WEIGHTS
            elif node.output[0] in real:
                # A product of float32 weights computes in float32, also between two conversions.
                is_float = bool(self._float_weights.intersection(node.input))
                yield node.op_type, FLOAT32 if is_float else self._how(node)

    def _folded_values(self) -> set[str]:
        """Values that depend on constants only: runtimes compute them at load time."""
        known = set(self._dtypes)
        for node in self._proto.graph.node:
            if node.op_type != "Constant" and not node.input:
                continue
            if all(not name or name in known for name in node.input):
                known.update(node.output)
        return known - set(self._dtypes)

    def _how(self, node: Any) -> str:
        """An operator between dequantization and quantization computes in integers."""
        makers = [
            self._producers[name]
            for name in node.input
            if name in self._producers and name not in self._folded
        ]
        users = [user for name in node.output for user, _ in self._consumers.get(name, [])]
        if (
            makers
            and users
            and all(maker.op_type == "DequantizeLinear" for maker in makers)
            and all(user.op_type == "QuantizeLinear" for user in users)
        ):
            zero_point = users[0].input[2] if len(users[0].input) > 2 else ""
            return "int16" if "INT16" in self._dtypes.get(zero_point, "INT8") else "int8"
        weights = [self._producers.get(name) for name in node.input if name in self._folded]
        integer = any(w is not None and w.op_type in ("Mul", "DequantizeLinear") for w in weights)
        return INT8_WEIGHTS if integer and node.op_type not in MOVING else FLOAT32


def _real_values(proto: Any) -> set[str]:
    """The names of float values, as far as shape inference knows them; outputs included."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    graph = inferred_shapes(proto).graph
    values = [*graph.value_info, *graph.output]
    return {value.name for value in values if value.type.tensor_type.elem_type in floats}
