"""Which nodes are attention, on graphs drawn by hand."""

from __future__ import annotations

from edgeattn_converters.quantization.attention_region import Node, region

HEAVY = frozenset({"product"})


def _chain() -> list[Node]:
    return [
        Node("product", ("x",), ("states",)),  # 0: before attention
        Node("move", ("states",), ("keys",)),  # 1
        Node("product", ("keys", "query"), ("scores",)),  # 2
        Node("scale", ("scores",), ("scaled",)),  # 3
        Node("softmax", ("scaled",), ("weights",)),  # 4
        Node("product", ("weights", "states"), ("context",)),  # 5
        Node("product", ("context",), ("logits",)),  # 6
        Node("softmax", ("logits",), ("classes",)),  # 7: a classifier's
    ]


def test_from_scores_to_context() -> None:
    assert region(_chain(), "softmax", HEAVY) == {2, 3, 4, 5}


def test_a_softmax_that_is_shown_is_attention_though_nothing_follows() -> None:
    assert region(_chain(), "softmax", HEAVY, ["classes"]) == {2, 3, 4, 5, 6, 7}


def test_deep_goes_to_what_keys_are_made_of() -> None:
    assert region(_chain(), "softmax", HEAVY, deep=True) == {0, 1, 2, 3, 4, 5}


def test_no_softmax() -> None:
    assert region(_chain()[:4], "softmax", HEAVY) == set()
