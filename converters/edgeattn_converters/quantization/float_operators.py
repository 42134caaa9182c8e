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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.lowering.fourier import SCOPE
from edgeattn_converters.quantization import onnx_weights, tflite_weights
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.weight_precision import WeightFilter

Names = tuple[str, ...]
SOFTMAX = ("SOFTMAX", "Softmax")
# Products and sums, which bound the attention.
PRODUCTS = frozenset(
    {"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"}
    | {"MatMul", "Gemm", "Einsum", "ReduceSum"}
)
SUMS = frozenset({"SUM", "REDUCE_SUM", "ReduceSum"})
# Sums of them are never zero in float32, but in integers they can be.
POSITIVE = frozenset({"EXP", "Exp", "LOGISTIC", "Sigmoid"})
QUOTIENTS = frozenset({"DIV", "Div"})
# Operators with trained weights end a spectrum, unless a logarithm follows: the mel matrix is one.
WEIGHTED = (PRODUCTS - SUMS) | frozenset(
    {"DEPTHWISE_CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE"}
    | {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Loop"}
)
LOGARITHMS = frozenset({"LOG", "Log"})
JOINING = frozenset({"PACK", "CONCATENATION"})
# Of more values, a softmax in int8 takes fewer instructions.
FEW_SHARES = 200
# Operators that only move values.
MOVING = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")


@dataclass(frozen=True)
class Node:
    """An operator of either format: its type, and the names of the values it reads and computes."""

    kind: str
    inputs: Names
    outputs: Names


class AttentionGraph:
    """A graph's nodes, in which the operators of attention are searched for.

    ``maps`` are the names of values that are attention maps. A softmax that nothing reads and that
    is not a map belongs to a classifier and is ignored.
    """

    def __init__(self, nodes: Iterable[Node], maps: Iterable[str] = ()) -> None:
        self._nodes = list(nodes)
        self._makers: dict[str, list[int]] = {}
        self._users: dict[str, list[int]] = {}
        for k, node in enumerate(self._nodes):
            for name in node.outputs:
                self._makers[name] = [k]
            for name in node.inputs:
                self._users.setdefault(name, []).append(k)
        used = {*self._users, *maps}
        self._softmaxes = [
            k
            for k, node in enumerate(self._nodes)
            if used.intersection(node.outputs)
            if node.kind in SOFTMAX or self._is_share(node)
        ]

    def quotients(self) -> set[int]:
        """Positions of all quotients, and of the nodes between them and exponentials or products.

        In integers, a denominator could be zero.
        """
        return {
            item
            for k, node in enumerate(self._nodes)
            if node.kind in QUOTIENTS
            for item in (k, *self._operands(node.inputs))
        }

    def _operands(self, names: Names) -> set[int]:
        """The nodes that compute a quotient's operands from exponentials, which are included, or
        from products."""
        products = PRODUCTS - SUMS
        visited = self._back(names, products | POSITIVE)
        return {k for k in visited if self._nodes[k].kind not in products}

    def _is_share(self, node: Node) -> bool:
        """Whether a node divides positive values by their sum, as a hand-written softmax does."""
        if node.kind not in QUOTIENTS or len(node.inputs) != 2:
            return False
        numerator, denominator = (self._operands((name,)) for name in node.inputs)
        kinds = {self._nodes[k].kind for k in numerator & denominator}
        has_sum = any(self._nodes[k].kind in SUMS for k in denominator)
        return has_sum and bool(POSITIVE & kinds)

    def region(self, *, projections: bool = False) -> set[int]:
        """Positions of the nodes from the scores to the weighted sum.

        That is every softmax, also if it is written as a quotient, the nodes back to the products
        that make its scores, and the nodes forward to the products that its weights go into, all
        included. With ``projections``, two
        products further back: the projections of queries and keys, and what they are made of.
        """
        region: set[int] = set(self._softmaxes)
        for k in self._softmaxes:
            inputs = self._nodes[k].inputs
            if self._nodes[k].kind in QUOTIENTS:
                inner = self._operands(inputs)
                region |= inner
                inputs = tuple(name for item in inner for name in self._nodes[item].inputs)
            scores = self._back(inputs, PRODUCTS)
            for _ in range(2 if projections else 0):
                ends = [item for item in scores if self._nodes[item].kind in PRODUCTS]
                names = [name for item in ends for name in self._nodes[item].inputs]
                scores |= self._back(names, PRODUCTS)
            region |= scores
            region |= self._walk(self._nodes[k].outputs, self._users, PRODUCTS, forward=True)
        return region

    def upstream(self) -> set[int]:
        """Positions of the nodes of the :meth:`region` and of all that the scores depend on."""
        names = [name for k in self._softmaxes for name in self._nodes[k].inputs]
        return self.region() | self._back(names, frozenset())

    def spectrum(self, transforms: set[int]) -> set[int]:
        """Positions of all that ``transforms`` depend on, and of what leads from them to logarithms
        or, without one, to operators with weights."""
        names = [name for k in transforms for name in self._nodes[k].inputs]
        region = transforms | self._back(names, frozenset())
        pending = [name for k in transforms for name in self._nodes[k].outputs]
        while pending:
            for k in self._users.get(pending.pop(), []):
                node = self._nodes[k]
                if k in region or (node.kind in WEIGHTED and not self._is_before_logarithm(k)):
                    continue
                region.add(k)
                if node.kind not in LOGARITHMS:
                    pending.extend(node.outputs)
        return region

    def _is_before_logarithm(self, position: int) -> bool:
        outputs = self._nodes[position].outputs
        after = self._walk(outputs, self._users, WEIGHTED | LOGARITHMS, forward=True)
        return any(self._nodes[k].kind in LOGARITHMS for k in after)

    def _back(self, names: Iterable[str], stop: frozenset[str]) -> set[int]:
        return self._walk(names, self._makers, stop, forward=False)

    def _walk(
        self,
        start: Iterable[str],
        reachable: Mapping[str, list[int]],
        stop: frozenset[str],
        *,
        forward: bool,
    ) -> set[int]:
        visited: set[int] = set()
        pending = list(start)
        while pending:
            for k in reachable.get(pending.pop(), []):
                if k in visited:
                    continue
                visited.add(k)
                node = self._nodes[k]
                if node.kind not in stop:
                    pending.extend(node.outputs if forward else node.inputs)
        return visited


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
