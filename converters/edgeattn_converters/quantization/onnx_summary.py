"""The summary of an ONNX model."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn_converters.graphs.onnx_file import consumers, inferred_shapes, producers
from edgeattn_converters.quantization.arithmetic import MIN_ELEMENTS
from edgeattn_converters.quantization.summary import (
    FLOAT32,
    INT8_WEIGHTS,
    SchemeSummary,
    summarize,
)

DTYPES = {"FLOAT": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "int8", "INT4": "int4"}
# They have int8 weights and scale their activations to int8 at run time.
DYNAMIC = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}
UNCOUNTED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
# Their output has the dtype of their input.
MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice", "Split"}


def summarize_onnx(proto: Any) -> SchemeSummary:
    return summarize(_Operators(proto), _weights(proto), MIN_ELEMENTS)


def _weights(proto: Any) -> Iterator[tuple[str, int]]:
    for item in proto.graph.initializer:
        dtype = DTYPES.get(_dtype(item))
        if dtype is not None and item.dims:
            yield dtype, int(np.prod(item.dims))


def _dtype(item: Any) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(item.data_type))


class _Operators:
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
            if node.op_type in UNCOUNTED or self._folded.issuperset(node.output):
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
