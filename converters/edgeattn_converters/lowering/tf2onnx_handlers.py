"""``custom_op_handlers`` for tf2onnx, which write nodes for TensorFlow operations.

Some operations have no ONNX operator of the same name. Others are placeholders for a layer: while
the model is traced, one operation represents the nodes of the layer; when tf2onnx reaches it, the
nodes replace it.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array

# It accepts any inputs, has a text attribute, and no optimizer evaluates it.
OPERATION = "PyFuncStateless"
# The largest number of letters whose orders tf2onnx tries: 120 orders.
MAX_SEARCHED_LETTERS = 5
# TensorProto.DataType
_BOOL = 9
_FLOATS = (1, 10, 11)  # float32, float16, float64


class NodeWriter:
    """Adds nodes and constants with unique names to a tf2onnx graph."""

    def __init__(self, ctx: Any, prefix: str) -> None:
        self._ctx = ctx
        self._prefix = prefix
        self._counter = itertools.count()

    def const(self, value: Array | list[int]) -> str:
        """Add a constant, a list as int64; returns its name."""
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        node = self._ctx.make_const(f"{self._prefix}/const_{next(self._counter)}", array)
        return str(node.output[0])

    def node(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Add a node with ``count`` outputs; returns the name of its output, or a list of names."""
        node = self._ctx.make_node(kind, list(inputs), attr=attributes, output_count=count)
        return node.output[0] if count == 1 else list(node.output)


# Writes nodes for inputs of these names, and returns the names of the outputs.
Author = Callable[[NodeWriter, list[str]], list[str]]


class Placeholders:
    """The placeholders of one model: :meth:`put` while it is traced, then :meth:`handlers`."""

    def __init__(self) -> None:
        self._authors: dict[str, Author] = {}
        self._counter = itertools.count()

    def put(self, author: Author, inputs: list[Any], shapes: list[tuple[Any, ...]]) -> list[Any]:
        """Add a placeholder for nodes that ``author`` will write; returns its float32 outputs."""
        import tensorflow as tf

        token = f"edgeattn/{next(self._counter)}"
        self._authors[token] = author
        results = tf.raw_ops.PyFuncStateless(
            input=inputs, token=token, Tout=[tf.float32] * len(shapes)
        )
        return [
            tf.ensure_shape(result, shape) for result, shape in zip(results, shapes, strict=True)
        ]

    def handlers(self) -> dict[str, Any]:
        return {OPERATION: (self._write, [])}

    def _write(self, ctx: Any, node: Any, name: str, args: Any) -> None:
        author = self._authors[node.get_attr_str("token")]
        inputs, outputs = list(node.input), list(node.output)
        shapes = [ctx.get_shape(item) for item in outputs]
        dtypes = [ctx.get_dtype(item) for item in outputs]
        ctx.remove_node(node.name)
        results = author(NodeWriter(ctx, node.name), inputs)
        for result, output, shape, dtype in zip(results, outputs, shapes, dtypes, strict=True):
            ctx.make_node("Identity", [result], outputs=[output], shapes=[shape], dtypes=[dtype])


@contextlib.contextmanager
def sound_rewriters() -> Iterator[None]:
    """A context in which tf2onnx does not turn ``maximum(alpha * x, x)`` into LeakyRelu.

    It fails if alpha is an array, and loses the axes by which alpha extends x.
    """
    from tf2onnx import tfonnx

    original = tfonnx.rewrite_leakyrelu
    tfonnx.rewrite_leakyrelu = lambda graph, operations: operations
    try:
        yield
    finally:
        tfonnx.rewrite_leakyrelu = original


@contextlib.contextmanager
def reproducible_graphs() -> Iterator[None]:
    """A context in which tf2onnx writes the same file in every process.

    It returns nodes in the order of sets, which depends on memory addresses and on the seed of the
    hashes of texts. Which of several equal constants remains, and its name, depended on that.
    """
    from tf2onnx.graph import Graph

    extract, consumers = Graph.extract_sub_graph_nodes, Graph.find_output_consumers

    def in_order(graph: Any, *arguments: Any, **options: Any) -> list[Any]:
        positions = {id(node): position for position, node in enumerate(graph.get_nodes())}
        nodes: list[Any] = extract(graph, *arguments, **options)
        return sorted(nodes, key=lambda node: positions.get(id(node), len(positions)))

    def by_name(graph: Any, *arguments: Any, **options: Any) -> list[Any]:
        return sorted(consumers(graph, *arguments, **options), key=lambda node: str(node.name))

    Graph.extract_sub_graph_nodes, Graph.find_output_consumers = in_order, by_name
    try:
        yield
    finally:
        Graph.extract_sub_graph_nodes, Graph.find_output_consumers = extract, consumers


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


def operation_handlers() -> dict[str, Any]:
    """Those of TensorFlow operations without an ONNX operator of the same name."""
    functions = {
        "Erfc": _erfc,
        "Expm1": _expm1,
        "FloorDiv": _floor_div,
        "FloorMod": _floor_mod,
        "SelectV2": _select,
    }
    return {name: (function, []) for name, function in functions.items()}


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``erfc(x) = 1 - erf(x)``, which GELU uses."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node("Sub", [one.output[0], erf.output[0]], **target)


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``expm1(x) = exp(x) - 1``, which CELU uses, with an error of the rounding of 1."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    exp = ctx.make_node("Exp", [x])
    ctx.make_node("Sub", [exp.output[0], one.output[0]], **target)


def _floor_div(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``floor(x / y)``. tf2onnx truncates quotients of integers: ``-1 // 3`` would be 0."""
    (x, y), target = _removed(ctx, node)
    if target["dtypes"][0] in _FLOATS:
        ctx.make_node("Floor", [ctx.make_node("Div", [x, y]).output[0]], **target)
        return
    rest = ctx.make_node("Mod", [x, y])
    ctx.make_node("Div", [ctx.make_node("Sub", [x, rest.output[0]]).output[0], y], **target)


def _floor_mod(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Mod of integers has the sign of ``y``, as in Python. That of floats has the sign of ``x``:
    ``y`` is added if the signs differ. Unlike ``x - floor(x / y) * y``, it is exact."""
    (x, y), target = _removed(ctx, node)
    if target["dtypes"][0] not in _FLOATS:
        ctx.make_node("Mod", [x, y], **target)
        return
    rest = ctx.make_node("Mod", [x, y], attr={"fmod": 1}).output[0]
    signs = [ctx.make_node("Sign", [value]).output[0] for value in (rest, y)]
    product = ctx.make_node("Mul", signs).output[0]
    zero = ctx.make_const(f"{name}/zero", np.array(0, np.float32)).output[0]
    differ = ctx.make_node("Less", [product, zero]).output[0]
    ctx.make_node("Where", [differ, ctx.make_node("Add", [rest, y]).output[0], rest], **target)


def _select(ctx: Any, node: Any, name: str, args: Any) -> None:
    """One Where: tf2onnx's own product with the mask turns an unselected infinity to NaN."""
    (mask, yes, no), target = _removed(ctx, node)
    if target["dtypes"] != [_BOOL]:
        ctx.make_node("Where", [mask, yes, no], **target)
        return
    # onnxruntime has no Where of booleans.
    first = ctx.make_node("And", [mask, yes])
    second = ctx.make_node("And", [ctx.make_node("Not", [mask]).output[0], no])
    ctx.make_node("Or", [first.output[0], second.output[0]], **target)


def _removed(ctx: Any, node: Any) -> tuple[list[str], dict[str, Any]]:
    """Remove a node of one output: its inputs, and the arguments that recreate the output."""
    inputs, output = list(node.input), node.output[0]
    target = {
        "outputs": [output],
        "shapes": [ctx.get_shape(output)],
        "dtypes": [ctx.get_dtype(output)],
    }
    ctx.remove_node(node.name)
    return inputs, target
