"""The operators of recurrent steps that update their states, and their products, made by hand."""

from __future__ import annotations

from benchmarks.operator_files import Graph
from edgeattn_converters.quantization.state_updates import state_updates, step_products

SHAPE = (1, 4)


def _apply(graph: Graph, kind: str, *inputs: int) -> int:
    result = graph.tensor("FLOAT32", SHAPE)
    graph.operator(kind, list(inputs), [result])
    return result


def test_cell_of_an_lstm() -> None:
    """``c = f * c + i * g``: the sum and the product with the cell, but not that of two gates."""
    graph = Graph(SHAPE)
    x = graph.first
    gates = [_apply(graph, kind, x) for kind in ("LOGISTIC", "TANH")]
    cell = _apply(graph, "MUL", *gates)  # of the first step, whose state is zero
    f, i, o, g = (_apply(graph, kind, x) for kind in ("LOGISTIC", "LOGISTIC", "LOGISTIC", "TANH"))
    kept = _apply(graph, "MUL", f, cell)
    added = _apply(graph, "MUL", i, g)
    new = _apply(graph, "ADD", kept, added)
    squashed = _apply(graph, "TANH", new)
    _apply(graph, "MUL", o, squashed)
    _apply(graph, "TANH", _apply(graph, "MUL", o, x))  # of attention, for example
    assert state_updates(graph.file, graph.file.main) == {kept, new}
    assert state_updates(graph.file, graph.file.main, functions=True) == {
        *(kept, new, added, g, squashed, cell, gates[1])
    }


def test_state_of_a_gru() -> None:
    """``n + z * (h - n)``, and not the sums and products before the candidate ``n``."""
    graph = Graph(SHAPE)
    product, state = graph.first, graph.tensor("FLOAT32", SHAPE)
    z, r = (_apply(graph, "LOGISTIC", product) for _ in range(2))
    inner = _apply(graph, "MUL", r, _apply(graph, "ADD", product, state))
    n = _apply(graph, "TANH", _apply(graph, "ADD", product, inner))
    difference = _apply(graph, "SUB", state, n)
    scaled = _apply(graph, "MUL", z, difference)
    new = _apply(graph, "ADD", n, scaled)
    assert state_updates(graph.file, graph.file.main) == {difference, scaled, new}
    assert state_updates(graph.file, graph.file.main, functions=True) == {
        *(difference, scaled, new, n)
    }


def test_products_with_a_state() -> None:
    """Not the input products of all steps, also if they read the states of another layer."""
    graph = Graph(SHAPE)

    def apply(kind: str, name: str, *inputs: int) -> int:
        result = _apply(graph, kind, *inputs)
        graph.file.main.tensors[result].name = name
        return result

    def product(x: int, name: str) -> int:
        return apply("FULLY_CONNECTED", name, x, graph.constant("FLOAT32", (4, 4)))

    x = product(graph.first, "lstm/MatMul")
    state = apply("MUL", "lstm/mul_2", x, x)
    moved = apply("RESHAPE", "lstm/Reshape", state)
    second = product(moved, "lstm/MatMul_1")
    again = apply("MUL", "other/add;lstm/mul_5", second, second)
    product(again, "lstm_1/MatMul")
    product(again, "dense/MatMul")
    assert step_products(graph.file, ("lstm", "gru")) == {"lstm/MatMul_1"}
    assert step_products(graph.file, ()) == set()
