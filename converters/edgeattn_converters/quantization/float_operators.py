"""Finding the operators that a candidate keeps in float32.

They are those of attention: the scores, the softmax and the weighted sum. An int8 softmax has a
fixed scale of 1/256, so weights below 1/512 vanish; and the exponential amplifies the rounding of
int8 scores. In float32, the attention map survives quantization. Every candidate keeps Fourier
transforms in float32, with what they depend on and what leads from them to a logarithm, which
amplifies the rounding of small numbers.

TensorFlow's quantizer identifies operators by the names of their outputs, and so do the results of
the functions for ``.tflite`` files; those for ONNX models return positions.
"""

import math
import re
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.lowering.fourier import SCOPE
from edgeattn_converters.quantization import onnx_weights, tflite_weights
from edgeattn_converters.quantization.attention_region import AttentionGraph, Node
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.weight_precision import WeightFilter

JOINING = frozenset({"PACK", "CONCATENATION"})
# Of more values, a softmax in int8 takes fewer instructions.
FEW_SHARES = 200
# Operators that only move values.
MOVING = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")


def attention_operators(
    file: TFLiteFile, maps: tuple[str, ...], *, projections: bool = False
) -> set[str]:
    """The operators of attention; see :meth:`AttentionGraph.region`."""
    return _output_names(file, _attention_graph(file, maps).region(projections=projections))


def quotient_operators(file: TFLiteFile) -> set[str]:
    """The operators of quotients; see :meth:`AttentionGraph.quotients`."""
    return _output_names(file, _attention_graph(file, ()).quotients())


def one_hot_operators(file: TFLiteFile) -> set[str]:
    """The ONE_HOT operators: TensorFlow's int8 quantizer gives their off values, which the kernel
    copies, another scale than the result."""
    tensors = file.main.tensors
    return {
        file.name(tensors[int(operator.outputs[0])])
        for operator in file.main.operators
        if file.kind(operator) == "ONE_HOT"
    }


def truncated_operators(file: TFLiteFile) -> set[str]:
    """The operators of values that become integers; see :meth:`AttentionGraph.truncated`."""
    tensors = file.main.tensors
    casts = {
        k
        for k, operator in enumerate(file.main.operators)
        if file.kind(operator) == "CAST"
        and file.dtype(tensors[int(operator.inputs[0])]) == "FLOAT32"
        and "INT" in file.dtype(tensors[int(operator.outputs[0])])
    }
    return _output_names(file, _attention_graph(file, ()).truncated(casts))


def upstream_operators(file: TFLiteFile, maps: tuple[str, ...]) -> tuple[set[str], set[bytes]]:
    """All operators that the attention scores depend on, and the keys of their large constants,
    including those in loops."""
    positions = _attention_graph(file, maps).upstream()
    return _output_names(file, positions), set(_constants(file, positions))


def spectrum_operators(file: TFLiteFile) -> tuple[set[str], dict[bytes, int]]:
    """The operators of spectra, see :meth:`AttentionGraph.spectrum`, and the sizes of their large
    constants by key."""
    tensors = file.main.tensors
    transforms = {
        k
        for k, operator in enumerate(file.main.operators)
        if any(SCOPE in file.name(tensors[int(i)]) for i in operator.outputs)
    }
    positions = _attention_graph(file, ()).spectrum(transforms)
    return _output_names(file, positions), _constants(file, positions)


def _constants(file: TFLiteFile, positions: set[int]) -> dict[bytes, int]:
    return {
        key_of(value): value.size
        for k in positions
        for graph, operator in file.nested_operators(file.main.operators[k])
        for value in tflite_weights.large_constants(file, graph, operator)
    }


def operators_with_weights(file: TFLiteFile, matches: WeightFilter) -> set[str]:
    """The operators with a large constant that ``matches``."""
    positions = {
        k
        for k, operator in enumerate(file.main.operators)
        if any(
            matches(value) for value in tflite_weights.large_constants(file, file.main, operator)
        )
    }
    return _output_names(file, positions)


def layer_pattern(layers: tuple[str, ...]) -> re.Pattern[str]:
    """What finds the first of these layers in the name of a tensor, as group 1."""
    return re.compile(rf"(?:^|[/;])((?:{'|'.join(map(re.escape, layers))})(?:_\d+)?)/")


def recurrent_operators(file: TFLiteFile, layers: tuple[str, ...]) -> set[str]:
    """The unrolled steps of these recurrent layers, which the names of tensors contain."""
    if not layers:
        return set()
    inside = layer_pattern(layers)
    tensors = file.main.tensors
    operators: set[str] = set()
    inputs: set[int] = set()
    # From the end, so that operators that only move the steps' inputs are included: int8 there
    # would round the inputs that the steps are kept in float32 for.
    for operator in reversed(file.main.operators):
        outputs = [int(i) for i in operator.outputs]
        names = [file.name(tensors[i]) for i in outputs]
        moves = file.kind(operator) in MOVING and inputs.issuperset(outputs)
        if moves or any(inside.search(name) for name in names):
            operators.update(names)
            inputs.update(int(i) for i in operator.inputs)
    return operators


def faster_in_float(file: TFLiteFile, float_names: set[str]) -> set[str]:
    """The operators behind those of ``float_names`` that take fewer instructions in float32.

    They are those that join or move float32 values, which would be converted one by one, and
    softmaxes of few values, which convert as many values before as behind them.
    """
    tensors = file.main.tensors
    names, faster = set(float_names), set()
    for operator in file.main.operators:
        kind, output = file.kind(operator), tensors[int(operator.outputs[0])]
        inputs = [file.name(tensors[int(i)]) for i in operator.inputs]
        joins = kind in JOINING and names.issuperset(inputs)
        moves = kind in MOVING and inputs[0] in names
        is_small = kind == "SOFTMAX" and math.prod(map(int, output.shape)) <= FEW_SHARES
        if joins or moves or is_small:
            faster.add(file.name(output))
            names.add(file.name(output))
    return faster


def quantizable_tensors(file: TFLiteFile, float_names: set[str]) -> set[int]:
    """The tensors that an operator outside ``float_names`` reads or computes.

    TensorFlow's quantizer has no name for operators with several outputs, such as ``UNPACK``; it
    leaves them alone only if their tensors have no range.
    """
    quantizable: set[int] = set()
    for operator in file.main.operators:
        outputs = [int(i) for i in operator.outputs]
        if not float_names.issuperset(file.name(file.main.tensors[i]) for i in outputs):
            quantizable.update((*outputs, *map(int, operator.inputs)))
    return quantizable


def _attention_graph(file: TFLiteFile, maps: tuple[str, ...]) -> AttentionGraph:
    """The main graph, with tensor indices as the names of values."""
    tensors = file.main.tensors
    indices = {file.name(tensor): str(k) for k, tensor in enumerate(tensors)}
    nodes = [
        Node(
            file.kind(operator),
            tuple(
                str(int(i))
                for i in operator.inputs
                if int(i) >= 0 and file.constant(tensors[int(i)]) is None
            ),
            tuple(str(int(i)) for i in operator.outputs),
        )
        for operator in file.main.operators
    ]
    return AttentionGraph(nodes, [indices[name] for name in maps if name in indices])


def _output_names(file: TFLiteFile, positions: set[int]) -> set[str]:
    operators, tensors = file.main.operators, file.main.tensors
    return {file.name(tensors[int(i)]) for k in positions for i in operators[k].outputs}


def attention_graph(proto: Any, maps: tuple[str, ...]) -> AttentionGraph:
    constants = {item.name for item in proto.graph.initializer}
    nodes = [
        Node(
            node.op_type,
            tuple(name for name in node.input if name and name not in constants)
            # What is computed from sizes does not depend on values.
            if node.op_type != "Shape"
            else (),
            tuple(node.output),
        )
        for node in proto.graph.node
    ]
    return AttentionGraph(nodes, maps)


def upstream_nodes(proto: Any, maps: tuple[str, ...]) -> tuple[set[int], set[bytes]]:
    """Positions of all nodes that the attention scores depend on, and the keys of their large
    constants."""
    positions = attention_graph(proto, maps).upstream()
    return positions, set(_node_constants(proto, positions))


def truncated_nodes(proto: Any) -> set[int]:
    """Positions of the nodes of values that become integers; see :meth:`AttentionGraph.truncated`.

    A cast of integers counts too: its operands have no scale.
    """
    from onnx import TensorProto

    integers = (TensorProto.INT32, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8)
    casts = {
        k
        for k, node in enumerate(proto.graph.node)
        if node.op_type == "Cast" and any(item.i in integers for item in node.attribute)
    }
    return attention_graph(proto, ()).truncated(casts)


def spectrum_nodes(proto: Any) -> tuple[set[int], dict[bytes, int]]:
    """Positions of the nodes of spectra, see :meth:`AttentionGraph.spectrum`, and the sizes of
    their large constants by key."""
    transforms = {
        k
        for k, node in enumerate(proto.graph.node)
        if any(SCOPE in name for name in (node.name, *node.output))
    }
    positions = attention_graph(proto, ()).spectrum(transforms)
    return positions, _node_constants(proto, positions)


def _node_constants(proto: Any, positions: set[int]) -> dict[bytes, int]:
    names = {name for k in positions for name in proto.graph.node[k].input}
    constants = onnx_weights.large_constants(proto)
    return {key_of(value): value.size for name, value in constants.items() if name in names}
