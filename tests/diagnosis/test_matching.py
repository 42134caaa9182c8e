"""Two graphs of one lowering, laid side by side."""

from __future__ import annotations

import numpy as np
from opened import chain

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.matching import match


def test_what_only_rounds_stands_for_what_it_rounds():
    right = chain(("MUL", 2.0), ("NEG", None)).graph
    kept = chain(("QUANTIZE", None), ("MUL", 2.0), ("DEQUANTIZE", None), ("NEG", None), names="q")
    found = match(right, kept.graph)
    assert found.tensors == {
        "x": "x",
        "q0": "x",
        "q1": "t0",
        "q2": "t0",
        "q3": "t1",
    }
    assert found.operators == {1: 0, 3: 1}
    assert found.constants == {"c1": "c0"}


def branches(*order: int, weights: tuple[Constant, ...]) -> Graph:
    """Products of one input with several weights, in some order."""
    return Graph(
        tuple(Operator(k, "MUL", ("x", f"w{w}"), (f"p{w}",)) for k, w in enumerate(order)),
        {f"w{k}": constant for k, constant in enumerate(weights)},
        {"x": "x"},
        {},
    )


def test_of_operators_with_the_same_inputs_the_weights_tell():
    values = [np.array(v, np.float32) for v in ([1, 2, 3], [3, -1, 0], [0, 0, 5])]
    exact = tuple(Constant(v, Encoding("float32")) for v in values)
    # Rounded, one of them to half its size: still more like itself than like the others.
    rounded = tuple(
        Constant(v * f, Encoding("int8", 0.1)) for v, f in zip(values, (1, 0.5, 1), strict=True)
    )
    right = branches(0, 1, 2, weights=exact)
    found = match(right, branches(2, 0, 1, weights=rounded))
    assert found.tensors == {"x": "x", "p0": "p0", "p1": "p1", "p2": "p2"}


def test_an_operator_of_another_kind_is_the_like_of_the_one_in_whose_place_it_is():
    found = match(
        chain(("MUL", 2.0), ("ABS", None), ("ADD", 1.0)).graph,
        chain(("MUL", 2.0), ("NEG", None), ("ADD", 1.0)).graph,
    )
    assert found.operators == {0: 0, 1: 1, 2: 2}


def test_one_too_many_has_no_like():
    right = chain(("MUL", 2.0), ("ADD", 1.0)).graph
    longer = chain(("MUL", 2.0), ("NEG", None), ("ABS", None), ("ADD", 1.0)).graph
    assert [o.kind for o in match(right, longer).without(longer)] != []


def ends(first: str, second: str, outputs: tuple[str, str]) -> Graph:
    operators = (Operator(0, "NEG", (first,), ("n",)), Operator(1, "ABS", (second,), ("a",)))
    return Graph(operators, {}, {"l": "left", "r": "right"}, dict(zip("no", outputs, strict=True)))


def test_ends_by_each_others_names():
    right = ends("left", "right", ("n", "a"))
    assert match(right, ends("left", "right", ("a", "n"))).misnamed == {"n": "o", "o": "n"}
    assert match(right, ends("right", "left", ("n", "a"))).swapped == (("l", "r"),)
    same = match(right, right)
    assert (same.misnamed, same.swapped) == ({}, ())


def test_tflite_has_two_operators_for_a_product_with_weights():
    def product(kind: str, settings: str) -> Graph:
        operator = Operator(0, kind, ("x", "w", ""), ("y",), settings=settings)
        weights = {"w": Constant(np.eye(3, dtype=np.float32), Encoding("float32"))}
        return Graph((operator,), weights, {"x": "x"}, {"y": "y"})

    right = product("BATCH_MATMUL", "")
    found = match(right, product("FULLY_CONNECTED", "fusedActivationFunction=0"))
    assert found.operators == {0: 0}
