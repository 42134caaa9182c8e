"""The dtypes of the inner values of an ONNX graph, which its operators determine."""

from collections.abc import Mapping

from edgeattn.file_structure.onnx_graph import DTYPES, Node, OnnxGraph

REAL = {"float32", "float16", "bfloat16", "float64"}
# Outputs of a fixed dtype, whatever the inputs are; the outputs of others have that of an input.
_FIXED = {
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), ("bool",)),
    **dict.fromkeys(("And", "Or", "Xor", "Not", "IsNaN", "IsInf"), ("bool",)),
    **dict.fromkeys(("Shape", "Size", "NonZero", "ArgMax", "ArgMin"), ("int64",)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), ("int32",)),
    "DynamicQuantizeLinear": ("uint8", "float32", "uint8"),
}
# Operators whose outputs have the dtype of another input than the first.
_SOURCE = {
    **dict.fromkeys(("Where", "DequantizeLinear"), 1),
    **dict.fromkeys(("OneHot", "QuantizeLinear"), 2),
}
# The default without that input, or without an attribute.
_DEFAULT = {"QuantizeLinear": "uint8", "ConstantOfShape": "float32"}


def value_dtypes(graph: OnnxGraph, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The dtype of each value of ``graph``; ``outer`` are those of the graphs around it."""
    known = dict(outer or {})
    known.update((name, constant.dtype) for name, constant in graph.initializers.items())
    known.update((item.name, item.dtype) for item in graph.inputs)
    for node in graph.nodes:
        known.update(zip(node.outputs, _output_dtypes(node, known), strict=False))
    return known


def _output_dtypes(node: Node, known: Mapping[str, str]) -> list[str]:
    if node.bodies:
        return _body_dtypes(node, known)
    fixed = _FIXED.get(node.kind)
    if fixed is None:
        fixed = (_computed_dtype(node, known),)
    # Further outputs are indices (TopK), masks (Dropout) or like the first (LSTM, Split).
    others = {"TopK": "int64", "Dropout": "bool", "MaxPool": "int64", "Unique": "int64"}
    other = others.get(node.kind, fixed[-1])
    return [*fixed, *[other] * max(0, len(node.outputs) - len(fixed))]


def _computed_dtype(node: Node, known: Mapping[str, str]) -> str:
    if node.kind == "Cast" and "to" in node.attributes:
        return DTYPES.get(node.attributes["to"].integer, "unknown")
    if node.kind == "Constant" and "value_float" in node.attributes:
        return "float32"
    constants = [item for value in node.attributes.values() for item in value.constants]
    if constants:
        return constants[0].dtype
    source = _SOURCE.get(node.kind, 0)
    if source < len(node.inputs) and node.inputs[source] in known:
        return known[node.inputs[source]]
    return _DEFAULT.get(node.kind, "unknown")


def _body_dtypes(node: Node, known: Mapping[str, str]) -> list[str]:
    """The dtypes of the outputs of a loop, a scan or a condition."""
    body = node.bodies[0]
    inner = value_dtypes(body, known)
    dtypes = [inner.get(item.name, item.dtype) for item in body.outputs]
    # The first output of a loop's body is whether to continue.
    return dtypes[1:] if node.kind == "Loop" else dtypes
