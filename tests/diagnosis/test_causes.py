"""Differences that rounding explains, although they exceed half a step of the best scale."""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.diagnosis import causes
from edgeattn.diagnosis.causes import TensorNoise
from edgeattn.diagnosis.comparison import _Classifier
from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.matching import GraphPair

LIMIT_DB = 20.0


def pair_of(
    kind: str, values: list[float], wanted: list[float], encoding: Encoding, output: Encoding
) -> GraphPair:
    """An operator of an input and a constant: ``values`` in the artifact, instead of ``wanted``."""
    operator = Operator(0, kind, ("x", "c"), ("y",))
    graphs = [
        Graph((operator,), {"c": constant}, {"x": "x"}, {"y": "y"}, {"y": stored})
        for constant, stored in (
            (Constant(np.float32(wanted), Encoding("float32")), Encoding("float32")),
            (Constant(np.float32(values), encoding), output),
        )
    ]
    return GraphPair.of(*graphs)


@pytest.mark.parametrize(("bias", "cause"), [(3.4e-4, None), (0.01, causes.WEIGHTS)])
def test_a_bias_below_a_step_of_the_products(bias: float, cause: str | None) -> None:
    """Typical results are 0.5, of which 3e-4 is less than a thousandth."""
    int32 = Encoding("int32", 1.0)
    pair = pair_of("Conv", [bias], [3.17e-4], int32, Encoding("float32"))
    noise = TensorNoise("y", count=4, signal=1.0)
    found, _ = causes.find_cause(pair.artifact.operators[0], [noise], pair, LIMIT_DB)
    assert found == cause


@pytest.mark.parametrize(
    ("values", "output", "cause"),
    [
        ([0.0, 0.12], Encoding("int8", 0.02), None),
        ([0.0, 0.14], Encoding("int8", 0.02), causes.WEIGHTS),
        ([0.0, 0.12], Encoding("int8", 0.01), causes.WEIGHTS),
    ],
)
def test_a_table_in_the_scale_of_its_output(
    values: list[float], output: Encoding, cause: str | None
) -> None:
    """Of 0.009 and 0.111, the nearest multiples of 0.02 are 0 and 0.12."""
    pair = pair_of("GATHER", values, [0.009, 0.111], Encoding("int8", 0.02), output)
    found, _ = causes.find_cause(pair.artifact.operators[0], [], pair, LIMIT_DB)
    assert found == cause


@pytest.mark.parametrize(("factor", "cause"), [(1, None), (5, causes.UNEXPLAINED)])
def test_rounding_to_the_stored_scale(factor: int, cause: str | None) -> None:
    """The best scale of values from 2 to 2.55 is 0.01, but calibration had other values."""
    reference = Graph((Operator(0, "Neg", ("x",), ("y",)),), {}, {"x": "x"}, {"y": "y"})
    quantize = Operator(1, "QuantizeLinear", ("a",), ("q",), recodes=True)
    operators = (Operator(0, "Neg", ("x",), ("a",)), quantize)
    encodings = {"q": Encoding("int8", 0.3)}
    artifact = Graph(operators, {}, {"x": "x"}, {"y": "q"}, encodings)
    classifier = _Classifier(GraphPair.of(reference, artifact), LIMIT_DB, (), set())
    # A rounding error has the power step^2 / 12.
    isolated = factor * 12 * 0.3**2 / 12
    noise = TensorNoise("q", 12, 12 * 2.3**2, isolated, isolated, low=2.0, high=2.55)
    assert classifier.compare(quantize, [noise]).cause == cause
