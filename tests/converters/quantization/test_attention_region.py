"""Finding the operators of attention and of what follows it, in hand-written graphs."""

from __future__ import annotations

from onnx import parser

from benchmarks.operator_files import Graph
from edgeattn_converters.quantization.attention_region import AttentionGraph, Node
from edgeattn_converters.quantization.float_operators import (
    FEW_SHARES,
    attention_graph,
    faster_in_float,
)

CHAIN = [
    Node("MatMul", ("x",), ("states",)),  # 0: before attention
    Node("move", ("states",), ("keys",)),  # 1
    Node("MatMul", ("keys", "query"), ("scores",)),  # 2
    Node("scale", ("scores",), ("scaled",)),  # 3
    Node("Softmax", ("scaled",), ("weights",)),  # 4
    Node("MatMul", ("weights", "states"), ("context",)),  # 5
    Node("MatMul", ("context",), ("logits",)),  # 6
    Node("Softmax", ("logits",), ("classes",)),  # 7: a classifier's
]


def test_region_from_scores_to_context() -> None:
    assert AttentionGraph(CHAIN).region() == {2, 3, 4, 5}


def test_final_softmax_is_attention_if_it_is_a_map() -> None:
    assert AttentionGraph(CHAIN, ["classes"]).region() == {2, 3, 4, 5, 6, 7}


def test_region_with_the_projections_of_keys() -> None:
    assert AttentionGraph(CHAIN).region(projections=True) == {0, 1, 2, 3, 4, 5}


def test_upstream_is_everything_before_the_scores() -> None:
    assert AttentionGraph(CHAIN).upstream() == {0, 1, 2, 3, 4, 5}


# A softmax of scores ``s`` as ``e / (sum(e) + c)`` with ``e = exp(s - max(s))``.
WRITTEN_BY_HAND = [
    Node("MatMul", ("x", "q"), ("s",)),  # 0
    Node("Max", ("s",), ("top",)),  # 1
    Node("Sub", ("s", "top"), ("d",)),  # 2
    Node("Exp", ("d",), ("e",)),  # 3
    Node("ReduceSum", ("e",), ("total",)),  # 4
    Node("Add", ("total", "c"), ("more",)),  # 5
    Node("Div", ("e", "more"), ("weights",)),  # 6
    Node("MatMul", ("weights", "x"), ("context",)),  # 7
]
# ``x / mean(x * x)``, which has no weights of attention.
SCALED = [
    Node("MatMul", ("u",), ("x",)),  # 0
    Node("Mul", ("x", "x"), ("squares",)),  # 1
    Node("ReduceMean", ("squares",), ("mean",)),  # 2
    Node("Div", ("x", "mean"), ("scaled",)),  # 3
    Node("MatMul", ("scaled",), ("y",)),  # 4
]
# ``exp(x) / (1 + exp(x))`` is a sigmoid: nothing is summed along an axis.
SIGMOID = [
    Node("Exp", ("x",), ("e",)),
    Node("Add", ("e", "one"), ("more",)),
    Node("Div", ("e", "more"), ("gate",)),
    Node("Mul", ("gate", "x"), ("y",)),
]


def test_softmax_that_is_written_as_a_quotient() -> None:
    graph = AttentionGraph(WRITTEN_BY_HAND)
    assert graph.region() == {0, 1, 2, 3, 4, 5, 6, 7}
    assert graph.upstream() == {0, 1, 2, 3, 4, 5, 6, 7}
    sigmoids = [Node("LOGISTIC", ("s",), ("e",)) if n.kind == "Exp" else n for n in WRITTEN_BY_HAND]
    assert 6 in AttentionGraph(sigmoids).region()


def test_other_quotients_are_not_attention() -> None:
    assert AttentionGraph(SCALED).region() == set()
    assert AttentionGraph(SIGMOID).region() == set()
    # That of a classifier: nothing reads it.
    assert AttentionGraph(WRITTEN_BY_HAND[:7]).region() == set()


def test_operands_of_a_quotient_up_to_exponentials_and_products() -> None:
    assert AttentionGraph(WRITTEN_BY_HAND).quotients() == {3, 4, 5, 6}
    assert AttentionGraph(SCALED).quotients() == {1, 2, 3}
    assert AttentionGraph(SIGMOID).quotients() == {0, 1, 2}
    assert AttentionGraph(CHAIN).quotients() == set()


def test_half_of_a_size_does_not_depend_on_values() -> None:
    """tf2onnx writes such quotients for the padding of convolutions."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        sizes (float[n, t] x, float[t, t] w) => (float[n, u] y) <int64[1] two = {2}> {
            h = MatMul(x, w)
            size = Shape(h)
            half = Div(size, two)
            y = Slice(h, half, size)
        }"""
    )
    assert attention_graph(model, ()).quotients() == {1, 2}


def test_graph_without_softmax() -> None:
    assert AttentionGraph(CHAIN[:4]).region() == set()


def test_operators_behind_float_ones_that_are_faster_in_float() -> None:
    """The context and the query are float32: joining them first needs one conversion."""
    graph = Graph((1, 4))

    def apply(kind: str, name: str, *inputs: int, size: int = 4) -> int:
        result = graph.tensor("FLOAT32", (1, size))
        graph.file.main.tensors[result].name = name
        graph.operator(kind, list(inputs), [result])
        return result

    context, other = (apply("MUL", name, graph.first, graph.first) for name in ("context", "other"))
    query = apply("RESHAPE", "query", context)
    joined = apply("CONCATENATION", "joined", context, query)
    apply("CONCATENATION", "mixed", joined, other)
    apply("SOFTMAX", "classes", apply("TANH", "vector", joined))
    apply("SOFTMAX", "words", other, size=FEW_SHARES + 1)
    assert faster_in_float(graph.file, {"context"}) == {"query", "joined", "classes"}
