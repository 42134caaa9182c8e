"""Matching of two graphs made from the same model."""

from __future__ import annotations

import numpy as np
import pytest
from elementwise_model import chain

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.matching import match_graphs


def test_recoded_tensors_match_their_source():
    reference = chain(("MUL", 2.0), ("NEG", None)).graph
    steps = ("QUANTIZE", None), ("MUL", 2.0), ("DEQUANTIZE", None), ("NEG", None)
    match = match_graphs(reference, chain(*steps, prefix="q").graph)
    assert match.tensors == {
        "x": "x",
        "q0": "x",
        "q1": "t0",
        "q2": "t0",
        "q3": "t1",
    }
    assert match.operators == {1: 0, 3: 1}
    assert match.constants == {"c1": "c0"}


def quantized(*steps: tuple[str, str, str]) -> Graph:
    """Return a graph of one input ``x`` from steps of a kind, an input and an output."""
    operators = tuple(
        Operator(position, kind, (before,), (after,), kind.endswith("Linear"))
        for position, (kind, before, after) in enumerate(steps)
    )
    return Graph(operators, {}, {"x": "x"}, {"y": steps[-1][2]})


CLIPPED = quantized(("Conv", "x", "a"), ("Relu", "a", "b"), ("Conv", "b", "y"))


@pytest.mark.parametrize("kind", ["Relu", "Clip"])
def test_integers_that_clip_match_the_result_of_the_clipping_operator(kind):
    """Without that operator, the second convolution of the artifact would have no counterpart."""
    reference = quantized(("Conv", "x", "a"), (kind, "a", "b"), ("Conv", "b", "y"))
    steps = ("QuantizeLinear", "A", "q"), ("DequantizeLinear", "q", "d")
    match = match_graphs(reference, quantized(("Conv", "x", "A"), *steps, ("Conv", "d", "y")))
    assert match.tensors == {"x": "x", "A": "a", "q": "b", "d": "b", "y": "y"}
    assert match.operators == {0: 0, 3: 2}


def test_clipping_operator_of_the_artifact_matches_itself():
    steps = ("QuantizeLinear", "A", "q"), ("DequantizeLinear", "q", "d")
    artifact = quantized(("Conv", "x", "A"), *steps, ("Relu", "d", "B"), ("Conv", "B", "y"))
    match = match_graphs(CLIPPED, artifact)
    assert match.tensors == {"x": "x", "A": "a", "q": "a", "d": "a", "B": "b", "y": "y"}


def test_tensor_that_is_not_only_clipped_matches_itself():
    reference = quantized(("Conv", "x", "a"), ("Neg", "a", "n"), ("Relu", "a", "y"))
    steps = ("QuantizeLinear", "A", "q"), ("DequantizeLinear", "q", "d")
    match = match_graphs(reference, quantized(("Conv", "x", "A"), *steps, ("Neg", "d", "N")))
    assert match.tensors["q"] == "a"
    assert match.operators == {0: 0, 3: 1}


def branches(*order: int, weights: tuple[Constant, ...]) -> Graph:
    """Return products of one input with several weights, in the given order."""
    return Graph(
        tuple(Operator(k, "MUL", ("x", f"w{w}"), (f"p{w}",)) for k, w in enumerate(order)),
        {f"w{k}": constant for k, constant in enumerate(weights)},
        {"x": "x"},
        {},
    )


def test_operators_with_the_same_inputs_are_matched_by_weights():
    values = [np.array(v, np.float32) for v in ([1, 2, 3], [3, -1, 0], [0, 0, 5])]
    exact = tuple(Constant(v, Encoding("float32")) for v in values)
    # The second one is also halved, but is still more similar to itself than to the others.
    rounded = tuple(
        Constant(v * f, Encoding("int8", 0.1)) for v, f in zip(values, (1, 0.5, 1), strict=True)
    )
    reference = branches(0, 1, 2, weights=exact)
    match = match_graphs(reference, branches(2, 0, 1, weights=rounded))
    assert match.tensors == {"x": "x", "p0": "p0", "p1": "p1", "p2": "p2"}


def test_operator_of_another_kind_matches_the_one_it_replaces():
    match = match_graphs(
        chain(("MUL", 2.0), ("ABS", None), ("ADD", 1.0)).graph,
        chain(("MUL", 2.0), ("NEG", None), ("ADD", 1.0)).graph,
    )
    assert match.operators == {0: 0, 1: 1, 2: 2}


def test_additional_operator_has_no_match():
    reference = chain(("MUL", 2.0), ("ADD", 1.0)).graph
    longer = chain(("MUL", 2.0), ("NEG", None), ("ABS", None), ("ADD", 1.0)).graph
    assert match_graphs(reference, longer).unmatched(longer) != []


def test_operator_before_one_of_the_reference_replaces_nothing():
    """Integer files limit what an exponential reads, whose values would match those of others."""
    reference = quantized(("Conv", "x", "a"), ("Exp", "a", "b"), ("Neg", "b", "y"))
    steps = ("QuantizeLinear", "B", "q"), ("Exp", "q", "C"), ("Neg", "C", "y")
    longer = quantized(("Conv", "x", "A"), ("Min", "A", "B"), *steps)
    match = match_graphs(reference, longer)
    assert match.operators == {0: 0}
    assert [operator.kind for operator in match.unmatched(longer)] == ["Min", "Exp", "Neg"]
    # In front of a second one, it may replace the first.
    reference = quantized(("Conv", "x", "a"), ("Exp", "a", "b"), ("Exp", "b", "y"))
    replaced = quantized(("Conv", "x", "A"), ("Min", "A", "B"), ("Exp", "B", "y"))
    assert match_graphs(reference, replaced).operators == {0: 0, 1: 1, 2: 2}


def two_branches(first: str, second: str, outputs: tuple[str, str]) -> Graph:
    operators = (Operator(0, "NEG", (first,), ("n",)), Operator(1, "ABS", (second,), ("a",)))
    return Graph(operators, {}, {"l": "left", "r": "right"}, dict(zip("no", outputs, strict=True)))


def test_interchanged_inputs_and_outputs():
    reference = two_branches("left", "right", ("n", "a"))
    swapped_outputs = two_branches("left", "right", ("a", "n"))
    assert match_graphs(reference, swapped_outputs).misnamed == {"n": "o", "o": "n"}
    swapped_inputs = two_branches("right", "left", ("n", "a"))
    assert match_graphs(reference, swapped_inputs).swapped == (("l", "r"),)
    same = match_graphs(reference, reference)
    assert (same.misnamed, same.swapped) == ({}, ())


def test_tflite_operators_for_products_with_weights_are_equivalent():
    def product(kind: str, variant: str) -> Graph:
        operator = Operator(0, kind, ("x", "w", ""), ("y",), variant=variant)
        weights = {"w": Constant(np.eye(3, dtype=np.float32), Encoding("float32"))}
        return Graph((operator,), weights, {"x": "x"}, {"y": "y"})

    reference = product("BATCH_MATMUL", "")
    match = match_graphs(reference, product("FULLY_CONNECTED", "fusedActivationFunction=0"))
    assert match.operators == {0: 0}
