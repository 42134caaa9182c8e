"""Finding the operators of attention, in a hand-written graph."""

from __future__ import annotations

from edgeattn_converters.quantization.attention_region import AttentionGraph, Node, OperatorTypes

TYPES = OperatorTypes("softmax", frozenset({"product"}))
CHAIN = [
    Node("product", ("x",), ("states",)),  # 0: before attention
    Node("move", ("states",), ("keys",)),  # 1
    Node("product", ("keys", "query"), ("scores",)),  # 2
    Node("scale", ("scores",), ("scaled",)),  # 3
    Node("softmax", ("scaled",), ("weights",)),  # 4
    Node("product", ("weights", "states"), ("context",)),  # 5
    Node("product", ("context",), ("logits",)),  # 6
    Node("softmax", ("logits",), ("classes",)),  # 7: a classifier's
]


def test_region_from_scores_to_context() -> None:
    assert AttentionGraph(CHAIN, TYPES).region() == {2, 3, 4, 5}


def test_final_softmax_is_attention_if_it_is_a_map() -> None:
    assert AttentionGraph(CHAIN, TYPES, ["classes"]).region() == {2, 3, 4, 5, 6, 7}


def test_region_with_the_projections_of_keys() -> None:
    assert AttentionGraph(CHAIN, TYPES).region(projections=True) == {0, 1, 2, 3, 4, 5}


def test_upstream_is_everything_before_the_scores() -> None:
    assert AttentionGraph(CHAIN, TYPES).upstream() == {0, 1, 2, 3, 4, 5}


def test_graph_without_softmax() -> None:
    assert AttentionGraph(CHAIN[:4], TYPES).region() == set()
