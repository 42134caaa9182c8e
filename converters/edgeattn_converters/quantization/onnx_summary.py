"""The account of an ONNX model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgeattn_converters.quantization.summary import FLOAT, WEIGHTS, SchemeSummary
from edgeattn_converters.quantization.tflite_weights import MIN_ELEMENTS

STORED = {"FLOAT": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "int8", "INT4": "int4"}
# Their int8 weights meet activations that they scale to int8 as they come.
DYNAMIC = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}
UNCOUNTED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
# Of the same dtype as what they take, whatever that is.
MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice", "Split"}


def summarize(proto: Any) -> SchemeSummary:
    import onnx

    real = _real_values(proto)
    constants = {item.name for item in proto.graph.initializer}
    producers = {name: node for node in proto.graph.node for name in node.output}
    takers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    folded = _folded(proto, constants)
    zero_points = {
        item.name: onnx.TensorProto.DataType.Name(item.data_type)
        for item in proto.graph.initializer
    }
    float_weights = {
        item.name
        for item in proto.graph.initializer
        if item.data_type == onnx.TensorProto.FLOAT and np.prod(item.dims) >= MIN_ELEMENTS
    }
    computes = []
    for node in proto.graph.node:
        if node.op_type in UNCOUNTED or folded.issuperset(node.output):
            continue
        if node.op_type in DYNAMIC:
            computes.append((node.op_type, WEIGHTS))
        elif node.output[0] in real:
            # Between two conversions, too, a product of float32 weights computes in float32.
            how = _how(node, producers, takers, zero_points, folded)
            computes.append(
                (node.op_type, FLOAT if float_weights.intersection(node.input) else how)
            )
    stored: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for item in proto.graph.initializer:
        dtype = STORED.get(onnx.TensorProto.DataType.Name(item.data_type))
        size = int(np.prod(item.dims))
        if dtype is None or not item.dims:
            continue
        stored[dtype] += size
        if size >= MIN_ELEMENTS:
            large[dtype] += size
    return SchemeSummary(tuple(computes), dict(stored), dict(large))


def _folded(proto: Any, constants: set[str]) -> set[str]:
    """Values that follow from constants alone."""
    known = set(constants)
    for node in proto.graph.node:
        if node.op_type != "Constant" and not node.input:
            continue
        if all(not name or name in known for name in node.input):
            known.update(node.output)
    return known - constants


def _how(
    node: Any,
    producers: dict[str, Any],
    takers: dict[str, list[Any]],
    zero_points: dict[str, str],
    folded: set[str],
) -> str:
    """Between a dequantization and a quantization an operator computes in integers."""
    before = [producers[n] for n in node.input if n in producers and n not in folded]
    after = [taker for name in node.output for taker in takers.get(name, [])]
    into = [other for other in before if other.op_type == "DequantizeLinear"]
    out = [other for other in after if other.op_type == "QuantizeLinear"]
    if before and len(into) == len(before) and len(out) == len(after) and out:
        kind = zero_points.get(out[0].input[2], "INT8") if len(out[0].input) > 2 else "INT8"
        return "int16" if "INT16" in kind else "int8"
    weights = [producers.get(name) for name in node.input if name in folded]
    integer = any(w is not None and w.op_type in ("Mul", "DequantizeLinear") for w in weights)
    return WEIGHTS if integer and node.op_type not in MOVING else FLOAT


def _real_values(proto: Any) -> set[str]:
    """The names of float values, as far as onnx' shape inference tells; outputs among them."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    graph = inferred.graph
    told = [*graph.value_info, *graph.output]
    return {value.name for value in told if value.type.tensor_type.elem_type in floats}
