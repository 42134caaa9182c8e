"""Reads ``.onnx`` files."""

import mmap
from collections import Counter
from collections.abc import Iterator

from edgeattn.file_structure.contents import (
    FLOAT32,
    INT8_WEIGHTS,
    LARGE,
    FileContents,
    Weight,
    count_weights,
    counts_by_dtype,
)
from edgeattn.file_structure.onnx_dtypes import REAL, value_dtypes
from edgeattn.file_structure.onnx_graph import Constant, Node, OnnxGraph, OnnxModel, read_model
from edgeattn.file_structure.onnx_scales import with_scales

# Domains of the operators that onnxruntime includes.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
_RECURRENT = {"LSTM", "GRU", "RNN"}
# They have int8 weights and scale their activations to int8 at run time.
_DYNAMIC = frozenset(
    {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}
    | {"MatMulIntegerToFloat"}
)
_UNCOUNTED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
# Their output has the dtype of their input.
_MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice", "Split"}
# Operators that onnxruntime computes in integers between int8 conversions, or that only move them.
# It computes the others in float32.
INT8_KERNELS = _MOVING | {
    *("Add", "AveragePool", "Conv", "DepthToSpace", "Flatten", "Gemm", "GlobalAveragePool"),
    *("LeakyRelu", "MatMul", "MaxPool", "Mul", "ReduceMax", "ReduceMin", "Relu", "Sigmoid"),
    *("Softmax", "Tile", "Where"),
}
# Names of dtypes in ``weight_bytes``, which are those of onnx.proto.
_PROTO_NAMES = {FLOAT32: "float", "float64": "double"}
# uint8 weights are int8 weights with another zero point.
_WEIGHT_DTYPES = {"uint8": "int8", "uint4": "int4"}
_WEIGHTS = {*REAL, "int8", "uint8", "int4", "uint4"}


def read_onnx(data: bytes | mmap.mmap) -> FileContents:
    """The contents of an ``.onnx`` file. Raises :class:`ValueError` if it is malformed."""
    model = read_model(data)
    graphs = [*model.graph.nested()]
    for function in model.functions.values():
        graphs += function.nested()
    nodes = [node for graph in graphs for node in graph.nodes]
    main = with_scales(model.graph)
    weights, large = count_weights(_weights(graphs))
    clips = (node.attributes.get("clip") for node in nodes if node.kind in _RECURRENT)
    return FileContents(
        inputs=main.inputs,
        outputs=main.outputs,
        operators=dict(sorted(Counter(node.kind for node in nodes).items())),
        computes_in=counts_by_dtype(_Operators(model)),
        weights=weights,
        large_weights=large,
        custom=tuple(sorted({node.kind for node in nodes if _is_custom(node, model)})),
        dynamic=sum(node.kind in _DYNAMIC for node in nodes),
        cell_clips=tuple(clip.real for clip in clips if clip is not None),
        details={"weight_bytes": _weight_bytes(graphs), "opset": dict(model.opsets)},
    )


def is_quantized_operator(kind: str) -> bool:
    """Whether an operator (QOperator) computes in integers without conversions around it."""
    return kind.startswith("QLinear") or kind in ("QGemm", "QAttention")


def _is_custom(node: Node, model: OnnxModel) -> bool:
    return node.domain not in _DOMAINS and (node.domain, node.kind) not in model.functions


def _weight_bytes(graphs: list[OnnxGraph]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for graph in graphs:
        for constant in graph.initializers.values():
            counts[_PROTO_NAMES.get(constant.dtype, constant.dtype)] += constant.stored
    return dict(sorted(counts.items()))


def _weights(graphs: list[OnnxGraph]) -> Iterator[Weight]:
    used = {name for graph in graphs for node in graph.nodes for name in node.inputs}
    used.update(value.name for graph in graphs for value in graph.outputs)
    for graph in graphs:
        in_nodes = (c for n in graph.nodes for a in n.attributes.values() for c in a.constants)
        for constant, read in (
            *((constant, name in used) for name, constant in graph.initializers.items()),
            *((constant, True) for constant in in_nodes),
        ):
            if constant.dtype in _WEIGHTS and constant.shape:
                dtype = _WEIGHT_DTYPES.get(constant.dtype, constant.dtype)
                yield Weight(dtype, constant.size, read)


class _Operators:
    """Iterates over ``(type, how)`` of the nodes of the main graph that compute real numbers."""

    def __init__(self, model: OnnxModel) -> None:
        self._nodes = model.graph.nodes
        self._constants = model.graph.initializers
        self._dtypes = value_dtypes(model.graph)
        self._producers = {name: node for node in self._nodes for name in node.outputs}
        self._consumers: dict[str, list[Node]] = {}
        for node in self._nodes:
            for name in node.inputs:
                self._consumers.setdefault(name, []).append(node)
        self._folded = self._folded_values()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for node in self._nodes:
            outputs = [name for name in node.outputs if name]
            if node.kind in _UNCOUNTED or not outputs or self._folded.issuperset(outputs):
                continue
            if node.kind in _DYNAMIC:
                yield node.kind, INT8_WEIGHTS
            elif is_quantized_operator(node.kind):
                yield node.kind, "int8"
            elif self._dtypes.get(outputs[0]) in REAL:
                # A product of float32 weights computes in float32, also between two conversions.
                is_float = any(map(self._is_float_weight, node.inputs))
                yield node.kind, FLOAT32 if is_float else self._how(node)

    def _is_float_weight(self, name: str) -> bool:
        constant: Constant | None = self._constants.get(name)
        return constant is not None and constant.dtype == FLOAT32 and constant.size >= LARGE

    def _folded_values(self) -> set[str]:
        """Values that depend on constants only: runtimes compute them at load time."""
        known = set(self._constants)
        for node in self._nodes:
            if node.kind != "Constant" and not node.inputs:
                continue
            if all(not name or name in known for name in node.inputs):
                known.update(node.outputs)
        return known - set(self._constants)

    def _how(self, node: Node) -> str:
        """An operator between dequantization and quantization computes in integers, if onnxruntime
        has a kernel; it has none for int16, in which files are counted by what they round."""
        makers = [
            self._producers[name]
            for name in node.inputs
            if name in self._producers and name not in self._folded
        ]
        users = [user for name in node.outputs for user in self._consumers.get(name, [])]
        if (
            makers
            and users
            and all(maker.kind == "DequantizeLinear" for maker in makers)
            and all(user.kind == "QuantizeLinear" for user in users)
        ):
            zero_point = users[0].inputs[2] if len(users[0].inputs) > 2 else ""
            if "int16" in self._dtypes.get(zero_point, "int8"):
                return "int16"
            if node.kind in INT8_KERNELS:
                return "int8"
        weights = [self._producers.get(name) for name in node.inputs if name in self._folded]
        integer = any(w is not None and w.kind in ("Mul", "DequantizeLinear") for w in weights)
        return INT8_WEIGHTS if integer and node.kind not in _MOVING else FLOAT32
