"""Finding the nodes of an ONNX model that a candidate keeps in float32."""

from typing import Any

from edgeattn_converters.quantization.attention_region import AttentionGraph, Node, OperatorTypes
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.onnx_weights import large_constants

TYPES = OperatorTypes("Softmax", frozenset({"MatMul", "Gemm", "Einsum", "ReduceSum"}))


def attention_graph(proto: Any, maps: tuple[str, ...]) -> AttentionGraph:
    constants = {item.name for item in proto.graph.initializer}
    nodes = [
        Node(
            node.op_type,
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
        )
        for node in proto.graph.node
    ]
    return AttentionGraph(nodes, TYPES, maps)


def upstream_nodes(proto: Any, maps: tuple[str, ...]) -> tuple[set[int], set[bytes]]:
    """Positions of all nodes that the attention scores depend on, and the keys of their large
    constants."""
    positions = attention_graph(proto, maps).upstream()
    names = {name for k in positions for name in proto.graph.node[k].input}
    constants = large_constants(proto)
    return positions, {key_of(value) for name, value in constants.items() if name in names}
