"""Contexts in which defects of tf2onnx are corrected."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

# The largest number of letters whose orders tf2onnx tries: 120 orders.
MAX_SEARCHED_LETTERS = 5
_LOOPS = frozenset({"While", "StatelessWhile"})
# Their first operand selects the function, and is no operand of it.
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
# The position of the trip count in the operands of a loop.
_COUNT = 1


@contextlib.contextmanager
def sound_rewriters() -> Iterator[None]:
    """A context in which tf2onnx does not turn ``maximum(alpha * x, x)`` into LeakyRelu, nor
    ``x * (x > alpha)`` into ThresholdedRelu.

    The file is invalid if alpha is an array or an integer, and loses the axes by which alpha
    extends x.
    """
    from tf2onnx import tfonnx

    names = ("rewrite_leakyrelu", "rewrite_thresholded_relu")
    originals = {name: getattr(tfonnx, name) for name in names}
    for name in names:
        setattr(tfonnx, name, lambda graph, operations: operations)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(tfonnx, name, original)


@contextlib.contextmanager
def reproducible_graphs() -> Iterator[None]:
    """A context in which tf2onnx writes the same file in every process.

    It returns nodes and functions in the order of sets, which depends on memory addresses and on
    the seed of the hashes of texts. Which of several equal constants remains, and the numbers in
    the names of nodes, depended on that.
    """
    from tf2onnx import tfonnx
    from tf2onnx.graph import Graph

    extract, consumers = Graph.extract_sub_graph_nodes, Graph.find_output_consumers
    resolve = tfonnx.resolve_functions

    def in_order(graph: Any, *arguments: Any, **options: Any) -> list[Any]:
        positions = {id(node): position for position, node in enumerate(graph.get_nodes())}
        nodes: list[Any] = extract(graph, *arguments, **options)
        return sorted(nodes, key=lambda node: positions.get(id(node), len(positions)))

    def by_name(graph: Any, *arguments: Any, **options: Any) -> list[Any]:
        return sorted(consumers(graph, *arguments, **options), key=lambda node: str(node.name))

    Graph.extract_sub_graph_nodes, Graph.find_output_consumers = in_order, by_name
    tfonnx.resolve_functions = _called_functions
    try:
        yield
    finally:
        Graph.extract_sub_graph_nodes, Graph.find_output_consumers = extract, consumers
        tfonnx.resolve_functions = resolve


def _called_functions(graph: Any) -> list[Any]:
    """The graphs of the functions that a graph calls, each behind those that it calls itself.

    Their arguments have the shapes of the operands of the first call. tf2onnx takes the condition
    for the first operand of a branch, and knows no shapes of what is called in a function that it
    reads later.
    """
    from tf2onnx import tf_loader

    definitions = {name: item.cached_definition for name, item in graph._functions.items()}
    resolved: dict[str, Any] = {}

    def add(caller: Any) -> None:
        for operation in caller.get_operations():
            first = 1 if operation.type in _BRANCHES else 0
            shapes = [tensor.shape for tensor in operation.inputs][first:]
            for _, value in sorted(operation.node_def.attr.items()):
                called = [value.func] if value.HasField("func") else value.list.func
                for name in (item.name for item in called):
                    if name not in definitions or name in tf_loader._FUNCTIONS:
                        continue
                    function = _graph_of(definitions[name], shapes)
                    tf_loader._FUNCTIONS[name] = function
                    add(function)
                    resolved[name] = function

    add(graph)
    return list(resolved.values())


def _graph_of(definition: Any, shapes: Sequence[Any]) -> Any:
    """The graph of a function whose arguments have these shapes, or none if it has others."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    try:
        return function_def_to_graph(definition, input_shapes=shapes)
    except ValueError:
        return function_def_to_graph(definition)


@contextlib.contextmanager
def bounded_einsum_search() -> Iterator[None]:
    """A context in which tf2onnx tries no orders of the letters of a long einsum equation.

    It tries all of them to find the one with the cheapest transpositions. The attention over two
    axes has seven letters, which is 5040 orders and takes minutes; ten letters would take days.
    """
    from tf2onnx.optimizer import einsum_optimizer

    original = einsum_optimizer.permutations

    def permutations(letters: Sequence[str]) -> Iterable[tuple[str, ...]]:
        return original(letters) if len(letters) <= MAX_SEARCHED_LETTERS else ()

    einsum_optimizer.permutations = permutations
    try:
        yield
    finally:
        einsum_optimizer.permutations = original


@contextlib.contextmanager
def sound_reshapes() -> Iterator[None]:
    """A context in which tf2onnx does not merge a reshape with one that keeps sizes by position.

    A size of 0 stands for that of the operand, which is another one after a merge. The shape of a
    transposition that only moves an axis of size 1 contains such zeros.
    """

    def is_sound(graph: Any, node: Any, consumers: Sequence[Any]) -> bool:
        return not any(_keeps_sizes(consumer) for consumer in consumers)

    with _merged_if("Reshape", is_sound):
        yield


@contextlib.contextmanager
def sound_casts() -> Iterator[None]:
    """A context in which tf2onnx removes no cast that changes numbers, beside another cast.

    It removes casts to floats, which round, and those to integers before one to truth values.
    """
    from tf2onnx.utils import ONNX_TO_NUMPY_DTYPE

    def is_sound(graph: Any, node: Any, consumers: Sequence[Any]) -> bool:
        numbers = graph.get_dtype(node.input[0]), node.get_attr_int("to")
        source, target = map(ONNX_TO_NUMPY_DTYPE.get, numbers)
        return None not in (source, target) and bool(np.can_cast(source, target, "safe"))

    with _merged_if("Cast", is_sound):
        yield


@contextlib.contextmanager
def sound_squares() -> Iterator[None]:
    """A context in which tf2onnx knows the shape of the product of a value with itself.

    It moves the transposition of the value behind the product, and leaves the product the shape
    that it had. If a size is 1, the transposition then became a reshape to wrong sizes, or to the
    right ones with the values in another order.
    """
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    original = TransposeOptimizer._mul_handler

    def move(optimizer: Any, transpose: Any, product: Any) -> Any:
        graph, output = optimizer._g, product.output[0]
        shape = graph.get_shape(output)
        is_square = set(product.input) == set(transpose.output)
        is_moved = original(optimizer, transpose, product)
        if is_moved and is_square and shape is not None:
            order = transpose.get_attr_value("perm")
            graph.set_shape(output, [shape[order.index(axis)] for axis in range(len(order))])
            graph.set_shape(transpose.output[0], shape)
        return is_moved

    TransposeOptimizer._mul_handler = move
    try:
        yield
    finally:
        TransposeOptimizer._mul_handler = original


@contextlib.contextmanager
def own_bfloat16() -> Iterator[None]:
    """A context in which tf2onnx does not write float16 for bfloat16, which has another range."""
    from onnx import TensorProto
    from tensorflow.core.framework import types_pb2
    from tf2onnx.tf_utils import TF_TO_ONNX_DTYPE

    dtype = types_pb2.DT_BFLOAT16
    original = TF_TO_ONNX_DTYPE[dtype]
    TF_TO_ONNX_DTYPE[dtype] = TensorProto.BFLOAT16
    try:
        yield
    finally:
        TF_TO_ONNX_DTYPE[dtype] = original


@contextlib.contextmanager
def _merged_if(kind: str, is_sound: Callable[[Any, Any, Sequence[Any]], bool]) -> Iterator[None]:
    """A context in which tf2onnx merges a node of this kind with its consumers only if sound."""
    from tf2onnx.optimizer import back_to_back_optimizer

    functions = back_to_back_optimizer._func_map
    original = functions[kind,]

    def merge(graph: Any, node: Any, consumers: Sequence[Any]) -> Any:
        return original(graph, node, consumers) if is_sound(graph, node, consumers) else []

    functions[kind,] = merge
    try:
        yield
    finally:
        functions[kind,] = original


def _keeps_sizes(node: Any) -> bool:
    """Whether the shape of a reshape contains a 0."""
    shape = node.inputs[1] if node.type == "Reshape" else None
    return shape is not None and shape.is_const() and 0 in shape.get_tensor_value(as_list=True)


def separate_trip_counts(definition: Any) -> None:
    """Give loops whose trip count is a loop variable, too, an operand of its own, in place.

    tf2onnx makes a constant trip count int64 where it stands, so that the loop variable no longer
    has the dtype that the body expects. ``keras.backend.rnn`` writes such loops. ``definition`` is
    a ``GraphDef``.
    """
    # A function names the output of an operation, a graph its position.
    functions = ((item.node_def, ":output:0") for item in definition.library.function)
    for nodes, output in ((definition.node, ""), *functions):
        for node in list(nodes):
            if node.op not in _LOOPS or node.input[_COUNT] not in node.input[_COUNT + 1 :]:
                continue
            copy = nodes.add(op="Identity", name=f"{node.name}/trip_count")
            copy.input.append(node.input[_COUNT])
            copy.attr["T"].type = node.attr["T"].list.type[_COUNT]
            node.input[_COUNT] = copy.name + output


def remove_unknown_shapes(definition: Any) -> None:
    """Remove unknown shapes from the arguments of functions, in place.

    TensorFlow's optimizer writes them for arguments of loops and conditions inside loops, and
    prefers them to the shapes of the operands. onnxruntime runs no loop that lacks some.
    ``definition`` is a ``GraphDef``.
    """
    for function in definition.library.function:
        for argument in function.arg_attr.values():
            shapes = argument.attr["_output_shapes"].list.shape
            if not shapes or any(shape.unknown_rank for shape in shapes):
                del argument.attr["_output_shapes"]


def without_list_shapes(graph: Any) -> Any:
    """Remove the second operand of each Identity in a graph of tf2onnx, in place.

    tf2onnx makes the lists that a loop reads such nodes, and only its optimizer removes them.
    """
    for node in graph.get_nodes():
        if node.type == "Identity" and len(node.input) > 1:
            graph.replace_inputs(node, node.input[:1])
    return graph
