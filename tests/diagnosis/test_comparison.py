"""Isolated, accumulated and explained errors, computed by hand, and the message for each cause."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from elementwise_model import ElementwiseModel, chain

from edgeattn.diagnosis import causes
from edgeattn.diagnosis.comparison import compare_models
from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator, round_constant
from edgeattn.diagnosis.messages import Comparison, Diagnosis, diagnosis_of
from edgeattn.diagnosis.results import GraphComparison

SAMPLES = {"x": np.array([[3.0, -4.0], [1.0, 2.0]], np.float32)}
REFERENCE = (("MUL", 2.0), ("ADD", 1.0), ("NEG", None))


def compare(artifact: ElementwiseModel, maps: tuple[str, ...] = ()) -> GraphComparison:
    comparison = compare_models(chain(*REFERENCE), artifact, SAMPLES, 20.0, maps)
    # Results survive the way from the worker.
    assert GraphComparison.from_json(comparison.to_json()) == comparison
    return comparison


def diagnose(graphs: GraphComparison, verdict: str = "fail", failed_stages: Any = ()) -> Diagnosis:
    artifact: Any = SimpleNamespace(scheme="int8", format="tflite", label="tflite int8")
    reference: Any = SimpleNamespace(scheme="float32", label="tflite float32")
    return diagnosis_of(
        Comparison(graphs, artifact, reference, verdict, 20.0, "model.h5", failed_stages)
    )


def test_equal_models_are_exact():
    comparison = compare(chain(*REFERENCE))
    assert [operator.isolated_db for operator in comparison.operators] == [math.inf] * 3
    assert comparison.outputs_db == {"y": math.inf}
    diagnosis = diagnose(comparison, verdict="pass")
    assert diagnosis.operator is None
    assert "No faults" in diagnosis.message


def test_wrong_constant_is_isolated_and_accumulates():
    comparison = compare(chain(("MUL", 2.0), ("ADD", 1.5), ("NEG", None)))
    mul, add, neg = comparison.operators
    assert mul.isolated_db == mul.accumulated_db == math.inf
    # 2x + 1 is 7, -7, 3 and 5, and 0.5 is added to each: 10 log10(132 / 1).
    expected = 10 * math.log10((49 + 49 + 9 + 25) / (4 * 0.25))
    assert add.isolated_db == pytest.approx(expected)
    assert add.accumulated_db == pytest.approx(expected)
    assert neg.isolated_db == math.inf
    assert neg.accumulated_db == pytest.approx(expected)
    assert [operator.cause for operator in comparison.operators] == [None, "weights", None]
    assert add.detail == {"share": 1.0, "largest": 0.5, "count": 1.0}
    diagnosis = diagnose(comparison)
    assert diagnosis.operator == add
    assert "--force" in str(diagnosis.remedy)


def test_operator_of_another_kind_is_unexplained():
    comparison = compare(chain(("MUL", 2.0), ("ADD", 1.0), ("ABS", None)))
    assert [operator.cause for operator in comparison.operators] == [None, None, "unexplained"]
    # |v| instead of -v for 7, -7, 3 and 5: off by 14, 0, 6 and 10.
    expected = 10 * math.log10(132 / (196 + 36 + 100))
    assert comparison.operators[2].isolated_db == pytest.approx(expected)


def quantized(scale: float, zero_point: int = 0) -> ElementwiseModel:
    return chain(*REFERENCE, encodings={"t1": Encoding("int8", scale, zero_point)})


def test_rounding_is_explained():
    # Steps of 1/16 represent 7, -7, 3 and 5 exactly.
    assert compare(quantized(1 / 16)).operators[1].cause is None
    # Steps of 0.08: 7 becomes 7.04, 3 becomes 3.04, 5 becomes 4.96.
    add = compare(quantized(0.08)).operators[1]
    noise = 0.04**2 + 0.04**2 + 0.04**2 + 0.04**2
    assert add.isolated_db == pytest.approx(10 * math.log10(132 / noise), abs=1e-3)
    assert add.cause is None


def test_values_outside_the_range_are_clipped():
    comparison = compare(quantized(0.01))
    add = comparison.operators[1]
    assert add.cause == "clipping"
    # From -1.28 to 1.27.
    assert add.detail["kept_low"] == pytest.approx(-1.28)
    assert add.detail["kept_high"] == pytest.approx(1.27)
    assert (add.detail["low"], add.detail["high"]) == (-7.0, 7.0)
    assert "--calibration" in str(diagnose(comparison).remedy)
    # Clipping is not a fault of an artifact that passes.
    assert diagnose(comparison, verdict="pass").operator is None


def test_range_for_outliers_is_coarse():
    comparison = compare(quantized(1e9 / 255))
    assert comparison.operators[1].cause == "coarse"
    diagnosis = diagnose(comparison)
    assert "span only 1 integer step," in diagnosis.message
    assert "--scheme int16x8" in str(diagnosis.remedy)


def test_wrong_zero_point_is_an_offset():
    class OffsetModel(ElementwiseModel):
        def isolate(self, boundaries: Any, constants: Any) -> Any:
            run = super().isolate(boundaries, constants)
            return lambda values: {**(results := run(values)), "t1": results["t1"] + 0.25}

    comparison = compare(OffsetModel(quantized(0.25).graph))
    assert comparison.operators[1].cause == "offset"
    assert comparison.operators[1].detail == {"steps": pytest.approx(1.0)}
    assert "+1.0 integer steps" in diagnose(comparison).message


def test_sum_of_rounding_errors_names_no_operator():
    diagnosis = diagnose(compare(quantized(0.08)))
    assert diagnosis.operator is None
    assert "--scheme int16x8" in str(diagnosis.remedy)


def test_failed_map_names_the_largest_error_in_attention():
    diagnosis = diagnose(compare(quantized(0.08), maps=("y",)), failed_stages={"attention"})
    assert diagnosis.operator is not None
    assert (diagnosis.operator.kind, diagnosis.operator.attention) == ("ADD", True)
    assert "--attention-precision float32" in str(diagnosis.remedy)


def test_round_constant_uses_the_best_scale():
    values = np.array([[1.0, 0.1], [-0.5, 0.254]], np.float32)
    per_tensor = round_constant(values, Encoding("int8", 0.3))
    np.testing.assert_allclose(per_tensor, np.rint(values * 127) / 127, atol=1e-7)
    per_column = round_constant(values, Encoding("int8", None, 0, 1))
    expected = np.rint(values[:, 1] / 0.002) * 0.002
    np.testing.assert_allclose(per_column[:, 1], expected, atol=1e-7)
    np.testing.assert_array_equal(round_constant(values, Encoding("float32")), values)


def test_weights_of_a_quantized_reference_have_rounding_of_their_own():
    """Of the same weights, one file has a scale for each row, the other one for each column."""
    weights = np.random.default_rng(4).normal(size=(8, 6)) * np.geomspace(0.01, 1, 8)[:, None]
    weights[:, 3] *= 20
    rows, columns = (
        Constant(round_constant(weights, encoding), encoding)
        for encoding in (Encoding("int8", None, 0, axis) for axis in (0, 1))
    )
    assert causes._weight_difference(rows, columns) is None
    assert causes._weight_difference(columns, rows) is None
    wrong = columns.values.copy()
    wrong[5, 3] *= 1.1
    difference = causes._weight_difference(rows, Constant(wrong, columns.encoding))
    assert difference is not None
    assert difference["share"] == 1 / 48


def test_fault_of_an_artifact_that_passes_is_reported():
    """A wrong weight is a fault even if the samples do not reveal it."""
    comparison = compare(chain(("MUL", 2.0), ("ADD", 1.5), ("NEG", None)))
    assert diagnose(comparison, verdict="pass").operator is not None


def test_every_cause_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text("utf-8")
    names = ("WEIGHTS", "ATTRIBUTES", "OFFSET", "CLIPPING", "COARSE", "UNEXPLAINED", "ROUNDING")
    for cause in (getattr(causes, name) for name in names):
        assert f"| `{cause}` |" in page


@pytest.mark.parametrize(
    ("stored", "cause"),
    [
        # -3.5 is outside of the 8 bits from -128 * 0.01 to 127 * 0.01.
        ([1.0, -1.28, 0.5], "clipping"),
        # A value that the scale can represent is wrong.
        ([1.0, -1.28, 0.1], "weights"),
        # The file could store -1.28, and has something else.
        ([1.0, 0.0, 0.5], "weights"),
    ],
)
def test_a_table_with_the_scale_of_calibrated_rows_is_not_a_faulty_file(
    stored: list[float], cause: str
) -> None:
    """GATHER gives the table the scale of its output: rows of rare words may be outside of it."""
    encoding = Encoding("int8", 0.01)
    operator = Operator(0, "GATHER", ("table", "x"), ("rows",))
    table, expected = np.array(stored, np.float32), np.array([1.0, -3.5, 0.5], np.float32)
    pair: Any = SimpleNamespace(
        artifact=Graph((operator,), {}, {}, {}, {"table": encoding, "rows": encoding}),
        constant_pairs=lambda _: [
            (Constant(table, encoding), Constant(expected, Encoding("float32")))
        ],
    )
    found, detail = causes.find_cause(operator, (), pair, 20.0)
    assert found == cause
    if cause == "clipping":
        assert {name: detail[name] for name in ("low", "high", "kept_low", "kept_high")} == (
            pytest.approx({"low": -3.5, "high": 1.0, "kept_low": -1.28, "kept_high": 1.27})
        )
    # Constants with a scale of their own are not clipped by calibration.
    pair.artifact = Graph((operator,), {}, {}, {}, {"table": encoding})
    assert causes.find_cause(operator, (), pair, 20.0)[0] == "weights"
