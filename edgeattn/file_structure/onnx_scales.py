"""Scales of integer inputs and outputs of ``.onnx`` files.

The format has no place for them. They are those of the nodes that convert an input to real numbers,
and an output from them.
"""

from collections.abc import Iterable
from dataclasses import replace

from edgeattn.file_structure.contents import FileTensor
from edgeattn.file_structure.onnx_graph import Node, OnnxGraph

_INTEGERS = {"int8", "uint8", "int16", "uint16"}


def with_scales(graph: OnnxGraph) -> OnnxGraph:
    """``graph`` with the scales of its inputs and outputs, if each has a single one."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    makers = {name: [node] for node in graph.nodes for name in node.outputs}
    return replace(
        graph,
        inputs=_scaled(graph, graph.inputs, readers, "DequantizeLinear"),
        outputs=_scaled(graph, graph.outputs, makers, "QuantizeLinear"),
    )


def _scaled(
    graph: OnnxGraph, tensors: Iterable[FileTensor], nodes: dict[str, list[Node]], kind: str
) -> tuple[FileTensor, ...]:
    """``tensors`` with the scale of the nodes of this ``kind``, if all of their ``nodes`` are."""

    def scaled(tensor: FileTensor) -> FileTensor:
        own = nodes.get(tensor.name, [])
        parameters = {node.inputs[1:] for node in own}
        if tensor.dtype not in _INTEGERS or len(parameters) != 1:
            return tensor
        if any(node.kind != kind for node in own):
            return tensor
        (names,) = parameters
        scale, zero_point = (_number(graph, names, k) for k in (0, 1))
        if scale is None:
            return tensor
        return replace(tensor, scale=scale, zero_point=int(zero_point or 0))

    return tuple(map(scaled, tensors))


def _number(graph: OnnxGraph, names: tuple[str, ...], position: int) -> float | None:
    name = names[position] if position < len(names) else ""
    return graph.initializers[name].number if name in graph.initializers else None
