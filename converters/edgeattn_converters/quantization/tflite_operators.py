"""Finding operators of a ``.tflite`` file that a candidate keeps in float32.

TensorFlow's quantizer identifies operators by the names of their outputs, and so do the results of
these functions.
"""

import re

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.attention_region import AttentionGraph, Node, OperatorTypes
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.tflite_weights import large_constants
from edgeattn_converters.quantization.weight_precision import WeightFilter

TYPES = OperatorTypes(
    "SOFTMAX", frozenset({"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"})
)
MOVING = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")


def attention_operators(
    file: TFLiteFile, maps: tuple[str, ...], *, projections: bool = False
) -> set[str]:
    """The operators of attention; see :meth:`.attention_region.AttentionGraph.region`."""
    return _output_names(file, _attention_graph(file, maps).region(projections=projections))


def upstream_operators(file: TFLiteFile, maps: tuple[str, ...]) -> tuple[set[str], set[bytes]]:
    """All operators that the attention scores depend on, and the keys of their large constants,
    including those in loops."""
    positions = _attention_graph(file, maps).upstream()
    keys = {
        key_of(value)
        for k in positions
        for graph, operator in file.nested_operators(file.main.operators[k])
        for value in large_constants(file, graph, operator)
    }
    return _output_names(file, positions), keys


def operators_with_weights(file: TFLiteFile, matches: WeightFilter) -> set[str]:
    """The operators with a large constant that ``matches``."""
    positions = {
        k
        for k, operator in enumerate(file.main.operators)
        if any(matches(value) for value in large_constants(file, file.main, operator))
    }
    return _output_names(file, positions)


def recurrent_operators(file: TFLiteFile, layers: tuple[str, ...]) -> set[str]:
    """The unrolled steps of these recurrent layers, which the names of tensors contain."""
    if not layers:
        return set()
    inside = re.compile(rf"(^|[/;])({'|'.join(map(re.escape, layers))})(_\d+)?/")
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


def quantizable_tensors(file: TFLiteFile, float_names: set[str]) -> set[int]:
    """The tensors that an operator outside ``float_names`` reads or computes.

    TensorFlow's quantizer has no name for operators with several outputs (``SPLIT``, ``UNPACK``);
    it leaves them alone only if their tensors have no range.
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
    return AttentionGraph(nodes, TYPES, [indices[name] for name in maps if name in indices])


def _output_names(file: TFLiteFile, positions: set[int]) -> set[str]:
    operators, tensors = file.main.operators, file.main.tensors
    return {file.name(tensors[int(i)]) for k in positions for i in operators[k].outputs}
