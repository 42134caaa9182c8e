"""Finding the operators of attention, in a hand-written graph."""

from __future__ import annotations

from edgeattn_converters.quantization.float_operators import AttentionGraph, Node

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


def test_graph_without_softmax() -> None:
    assert AttentionGraph(CHAIN[:4]).region() == set()
