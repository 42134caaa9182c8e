"""Graphs of ``.onnx`` files, with the operators that quantizers split put together again."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.tensors import Array

_RECODING = ("QuantizeLinear", "DequantizeLinear")
# Attributes that distinguish operators of one kind with the same inputs.
_VARIANT_ATTRIBUTES = (
    *("axis", "axes", "perm", "direction", "strides", "dilations", "to", "transA", "transB"),
)


class GraphReader:
    """Reads the graph of an ONNX model."""

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper

        self._graph = proto.graph
        self._values = {item.name: numpy_helper.to_array(item) for item in self._graph.initializer}
        numpy_dtypes = {"float16": np.float32, "int4": np.int8}
        self._constants = {
            name: Constant(
                values.astype(numpy_dtypes.get(values.dtype.name, values.dtype)),
                Encoding(values.dtype.name),
            )
            for name, values in self._values.items()
        }
        self._producers = {name: node for node in self._graph.node for name in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._encodings: dict[str, Encoding] = {}
        self._absorbed: set[int] = set()  # ids of nodes that are part of another operator

    def read(self, inputs: list[str], outputs: list[str]) -> Graph:
        """Return the graph; ``inputs`` and ``outputs`` are the names of the model's tensors."""
        self._fold_constants()
        merged = {}
        for position, node in enumerate(self._graph.node):
            if id(node) in self._absorbed:
                continue
            if node.op_type == "MatMulInteger":
                merged[position] = self._dynamic_product(position, node)
            elif node.op_type == "DynamicQuantizeLSTM":
                merged[position] = self._dynamic_lstm(position, node)
            elif node.op_type == "Gather" and node.input[0] in self._constants:
                merged[position] = self._quantized_embedding(position, node)
        operators = tuple(
            merged.get(position) or self._operator(position, node)
            for position, node in enumerate(self._graph.node)
            if id(node) not in self._absorbed
        )
        names = {name for operator in operators for name in operator.outputs}
        names |= {name for name in self._constants if "/" in name}
        return Graph(
            operators,
            self._constants,
            {name: name for name in inputs},
            {name: name for name in outputs},
            self._encodings,
            {name: name for name in names if not name.startswith("_")},
        )

    def _fold_constants(self) -> None:
        """Fold operators that decode constants when the file is loaded."""
        for node in self._graph.node:
            first = self._constants.get(node.input[0]) if node.input else None
            parameters = [self._values.get(name) for name in node.input[1:]]
            if first is None or any(values is None for values in parameters):
                continue
            dtype = first.encoding.dtype
            if node.op_type == "Cast" and first.values.dtype.kind in "fi" and dtype != "int64":
                decoded = Constant(first.values.astype(np.float32), first.encoding)
            elif node.op_type == "Mul" and dtype in ("int8", "int4"):
                scale = np.asarray(parameters[0])
                # Scales with fewer axes than the weights are those of the last axes.
                shape = (*[1] * (first.values.ndim - scale.ndim), *scale.shape)
                decoded = Constant(first.values * scale, _constant_encoding(dtype, shape))
            elif node.op_type == "DequantizeLinear":
                decoded = _dequantize(node, first, parameters)
            else:
                continue
            self._constants[node.output[0]] = decoded
            self._absorbed.add(id(node))

    def _operator(self, position: int, node: Any) -> Operator:
        recodes = node.op_type in _RECODING
        if recodes:
            self._record_encoding(node)
        return Operator(
            position,
            node.op_type,
            tuple(node.input[:1] if recodes else node.input),
            tuple(node.output),
            recodes,
            variant=_variant(node),
            attributes={} if recodes else _attributes(node),
        )

    def _record_encoding(self, node: Any) -> None:
        scale = self._values.get(node.input[1])
        zero = self._values.get(node.input[2]) if len(node.input) > 2 else np.array(0, np.uint8)
        if scale is None or zero is None or scale.size != 1:
            return
        quantizes = node.op_type == "QuantizeLinear"
        integers = node.output[0] if quantizes else node.input[0]
        # The operator that computes the integers defines their encoding.
        if quantizes or integers not in self._encodings:
            self._encodings[integers] = Encoding(
                zero.dtype.name, float(scale.reshape(())), int(zero.reshape(()))
            )

    def _followers(self, name: str, *kinds: str) -> Iterator[Any]:
        """Yield the chain of nodes of these kinds that starts at the tensor ``name``."""
        for kind in kinds:
            node = next((n for n in self._consumers.get(name, []) if n.op_type == kind), None)
            if node is None:
                return
            yield node
            name = node.output[0]

    def _dynamic_product(self, position: int, node: Any) -> Operator | None:
        """Merge DynamicQuantizeLinear, MatMulInteger, Cast and Mul to a MatMul."""
        quantize = self._producers.get(node.input[0])
        followers = list(self._followers(node.output[0], "Cast", "Mul"))
        if quantize is None or quantize.op_type != "DynamicQuantizeLinear" or len(followers) < 2:
            return None
        factor = next(n for n in followers[1].input if n != followers[0].output[0])
        scales = self._producers.get(factor)
        scale = None
        if scales is not None:
            scale = next((self._values[n] for n in scales.input if n in self._values), None)
        weights = self._values.get(node.input[1])
        if scale is None or weights is None:
            return None
        zero = self._values.get(node.input[3]) if len(node.input) > 3 else None
        values = (weights.astype(np.float64) - (0 if zero is None else zero)) * scale
        self._constants[node.input[1]] = Constant(
            np.asarray(values, np.float32),
            _constant_encoding(weights.dtype.name, (1, scale.size) if scale.size > 1 else ()),
        )
        self._absorbed.update(map(id, (quantize, scales, *followers)))
        return Operator(
            position,
            "MatMul",
            (quantize.input[0], node.input[1]),
            (followers[1].output[0],),
            quantizes_input=True,
        )

    def _dynamic_lstm(self, position: int, node: Any) -> Operator:
        """Return an LSTM with decoded weights instead of a DynamicQuantizeLSTM."""
        inputs = [*node.input, *[""] * (12 - len(node.input))]
        for weights_input, scale_input in ((1, 8), (2, 10)):
            weights, scale = self._values[inputs[weights_input]], self._values[inputs[scale_input]]
            zero = self._values.get(inputs[scale_input + 1], np.zeros(1))
            # (directions, 1, gates), or one value for all gates or directions
            zero, scale = (x.reshape(min(len(weights), x.size), 1, -1) for x in (zero, scale))
            values = (weights.astype(np.float64) - zero) * scale
            # The weights of the standard LSTM are (directions, gates, features), those of this one
            # (directions, features, gates).
            self._constants[inputs[weights_input]] = Constant(
                np.asarray(values.transpose(0, 2, 1), np.float32), Encoding("int8", None, 0, 1)
            )
        return Operator(
            position,
            "LSTM",
            tuple(inputs[:7]),
            tuple(node.output),
            quantizes_input=True,
            variant=_variant(node),
        )

    def _quantized_embedding(self, position: int, node: Any) -> Operator | None:
        """Merge Gather from an int8 table, Cast and Mul to a Gather."""
        followers = list(self._followers(node.output[0], "Cast", "Mul"))
        table = self._constants[node.input[0]]
        if table.encoding.dtype != "int8" or len(followers) < 2:
            return None
        scale = self._values.get(followers[1].input[1])
        if scale is None:
            return None
        # Several lookups may share a table, so that it may be decoded already.
        decoded = self._values[node.input[0]] * scale
        self._constants[node.input[0]] = Constant(decoded, Encoding("int8", 1.0))
        self._absorbed.update(map(id, followers))
        return Operator(position, "Gather", tuple(node.input), (followers[1].output[0],))


def _dequantize(node: Any, constant: Constant, parameters: list[Array | None]) -> Constant:
    scale = np.asarray(parameters[0], np.float64)
    zero = np.zeros_like(scale) if len(parameters) < 2 else np.asarray(parameters[1], np.float64)
    shape = [1] * constant.values.ndim if scale.size > 1 else []
    if scale.size > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape[axis] = scale.size
    values = (constant.values - zero.reshape(shape)) * scale.reshape(shape)
    encoding = _constant_encoding(constant.encoding.dtype, tuple(shape))
    return Constant(np.asarray(values, np.float32), encoding)


def _constant_encoding(dtype: str, scale_shape: tuple[int, ...]) -> Encoding:
    """Return the encoding of a constant whose scales have this shape."""
    axes = [axis for axis, size in enumerate(scale_shape) if size != 1]
    return Encoding(dtype, None, 0, axes[0]) if axes else Encoding(dtype, 1.0)


def _variant(node: Any) -> str:
    return ",".join(
        f"{item.name}={list(item.ints) or item.i or item.s}"
        for item in sorted(node.attribute, key=lambda item: str(item.name))
        if item.name in _VARIANT_ATTRIBUTES
    )


def _attributes(node: Any) -> dict[str, str]:
    """Return the node's other attributes as text, without tensors and graphs."""
    attributes = {}
    for item in node.attribute:
        if item.HasField("t") or item.HasField("g") or item.name in _VARIANT_ATTRIBUTES:
            continue
        numbers = [f"{value:.6g}" for value in (*item.floats, *item.ints)]
        texts = [text.decode("utf-8", "replace") for text in item.strings]
        single = f"{item.f:.6g}" if item.type == item.FLOAT else str(item.i)
        if item.type == item.STRING:
            single = item.s.decode("utf-8", "replace")
        attributes[item.name] = " ".join([*numbers, *texts]) or single
    return attributes
