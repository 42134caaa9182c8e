"""The operators that update the states of recurrent steps, in hand-made graphs."""

from __future__ import annotations

from benchmarks.operator_files import Graph
from edgeattn_converters.quantization.state_updates import state_updates

SHAPE = (1, 4)


def _apply(graph: Graph, kind: str, *inputs: int) -> int:
    result = graph.tensor("FLOAT32", SHAPE)
    graph.operator(kind, list(inputs), [result])
    return result


def test_cell_of_an_lstm() -> None:
    """``c = f * c + i * g``: the sum and the product with the cell, but not that of two gates."""
    graph = Graph(SHAPE)
    x, cell = graph.first, graph.tensor("FLOAT32", SHAPE)
    f, i, o, g = (_apply(graph, kind, x) for kind in ("LOGISTIC", "LOGISTIC", "LOGISTIC", "TANH"))
    kept = _apply(graph, "MUL", f, cell)
    added = _apply(graph, "MUL", i, g)
    new = _apply(graph, "ADD", kept, added)
    _apply(graph, "MUL", o, _apply(graph, "TANH", new))
    assert state_updates(graph.file, graph.file.main) == {kept, new}


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
