"""Isolated, accumulated and explained noise, worked by hand; and the words for each cause."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from opened import chain

from edgeattn.diagnosis.causes import (
    COARSE,
    CUT,
    NO_ROUNDING,
    ROUNDING,
    SETTINGS,
    SHIFT,
    WEIGHTS,
)
from edgeattn.diagnosis.graph import Encoding, ideal
from edgeattn.diagnosis.measure import measure
from edgeattn.diagnosis.messages import told
from edgeattn.diagnosis.results import GraphComparison

X = {"x": np.array([[3.0, -4.0], [1.0, 2.0]], np.float32)}
RIGHT = (("MUL", 2.0), ("ADD", 1.0), ("NEG", None))


def compared(judged: Any, limit: float = 20.0) -> GraphComparison:
    found = measure(chain(*RIGHT), judged, X, limit)
    # What travels between processes is the same afterwards.
    assert GraphComparison.from_json(found.to_json()) == found
    return found


def words(
    found: GraphComparison, scheme: str = "int8", verdict: str = "fail", stages: Any = ()
) -> Any:
    artifact: Any = SimpleNamespace(scheme=scheme, format="tflite", label=f"tflite {scheme}")
    against: Any = SimpleNamespace(scheme="float32", label="tflite float32")
    return told(found, artifact, verdict, 20.0, against, "model.h5", stages)


def test_what_is_the_same_is_exact():
    found = compared(chain(*RIGHT))
    assert [item.isolated_db for item in found.operators] == [math.inf] * 3
    assert found.outputs_db == {"y": math.inf}
    said = words(found, verdict="pass")
    assert said.operator is None
    assert "Nothing stands out" in said.message


def test_a_wrong_constant_is_the_fault_of_one_operator_and_the_noise_of_all_behind_it():
    found = compared(chain(("MUL", 2.0), ("ADD", 1.5), ("NEG", None)))
    times, plus, minus = found.operators
    assert times.isolated_db == times.accumulated_db == math.inf
    # 2x + 1 is 7, -7, 3 and 5, and 0.5 is added to each: 10 log10(132 / 1).
    hand = 10 * math.log10((49 + 49 + 9 + 25) / (4 * 0.25))
    assert plus.isolated_db == pytest.approx(hand)
    assert plus.accumulated_db == pytest.approx(hand)
    assert minus.isolated_db == math.inf
    assert minus.accumulated_db == pytest.approx(hand)
    assert [item.cause for item in found.operators] == [None, "weights", None]
    assert plus.detail == {"share": 1.0, "largest": 0.5, "count": 1.0}
    said = words(found)
    assert said.operator == plus
    assert "--force" in said.remedy


def test_another_operator_is_no_rounding():
    found = compared(chain(("MUL", 2.0), ("ADD", 1.0), ("ABS", None)))
    assert [item.cause for item in found.operators] == [None, None, "no rounding"]
    # |v| for -v of 7, -7, 3, 5: off by 14, 0, 6, 10.
    hand = 10 * math.log10(132 / (196 + 36 + 100))
    assert found.operators[2].isolated_db == pytest.approx(hand)


def integers(scale: float, zero_point: int = 0) -> Any:
    return chain(*RIGHT, stored={"t1": Encoding("int8", scale, zero_point)})


def test_rounding_that_dtypes_mean_is_explained():
    # Steps of a sixteenth keep 7, -7, 3 and 5 as they are.
    assert compared(integers(1 / 16)).operators[1].cause is None
    # Steps of 0.08: 7 is kept as 7.04, 3 as 3.04, 5 as 4.96.
    plus = compared(integers(0.08)).operators[1]
    noise = 0.04**2 + 0.04**2 + 0.04**2 + 0.04**2
    assert plus.isolated_db == pytest.approx(10 * math.log10(132 / noise), abs=1e-3)
    assert plus.cause is None


def test_what_is_beyond_the_range_is_cut_off():
    found = compared(integers(0.01))
    plus = found.operators[1]
    assert plus.cause == "cut off"
    # From -1.28 to 1.27.
    assert plus.detail["kept_low"] == pytest.approx(-1.28)
    assert plus.detail["kept_high"] == pytest.approx(1.27)
    assert (plus.detail["low"], plus.detail["high"]) == (-7.0, 7.0)
    assert "--calibration" in words(found).remedy
    # A pass is not reproached with it.
    assert words(found, verdict="pass").operator is None


def test_a_range_for_a_few_values_leaves_few_steps_for_the_others():
    found = compared(integers(1e9 / 255))
    assert found.operators[1].cause == "coarse"
    said = words(found)
    assert "1 integer step for themselves" in said.message
    assert "--scheme int16x8" in said.remedy


def test_a_zero_point_off_by_one_is_a_shift():
    class Shifted(type(integers(0.25))):  # type: ignore[misc]
        def apart(self, tensors: Any, constants: Any) -> Any:
            run = super().apart(tensors, constants)
            return lambda feeds: {**(made := run(feeds)), "t1": made["t1"] + 0.25}

    found = compared(Shifted(integers(0.25).graph))
    assert found.operators[1].cause == "shifted"
    assert found.operators[1].detail == {"steps": pytest.approx(1.0)}
    assert "+1.0 integer steps" in words(found).message


def test_many_small_roundings_are_no_operators_fault():
    found = compared(integers(0.08))
    said = words(found)
    assert said.operator is None
    assert "--scheme int16x8" in said.remedy


def test_where_only_the_map_fails_what_rounds_most_in_attention_is_named():
    judged = chain(*RIGHT, stored={"t1": Encoding("int8", 0.08)})
    found = measure(chain(*RIGHT), judged, X, 20.0, ("y",))
    said = words(found, stages={"attention"})
    assert (said.operator.kind, said.operator.attention) == ("ADD", True)
    assert "--attention-precision float32" in said.remedy


def test_constants_as_well_as_a_dtype_can_keep_them():
    value = np.array([[1.0, 0.1], [-0.5, 0.254]], np.float32)
    whole = ideal(value, Encoding("int8", 0.3))
    np.testing.assert_allclose(whole, np.rint(value * 127) / 127, atol=1e-7)
    rows = ideal(value, Encoding("int8", None, 0, 1))
    np.testing.assert_allclose(rows[:, 1], np.rint(value[:, 1] / 0.002) * 0.002, atol=1e-7)
    np.testing.assert_array_equal(ideal(value, Encoding("float32")), value)


def test_a_pass_by_a_broken_file_is_told():
    """A file with a wrong weight may pass on the samples there are; the weight is wrong still."""
    said = words(compared(chain(("MUL", 2.0), ("ADD", 1.5), ("NEG", None))), verdict="pass")
    assert said.operator is not None


def test_the_page_tells_every_cause():
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text("utf-8")
    for cause in (WEIGHTS, SETTINGS, SHIFT, CUT, COARSE, NO_ROUNDING, ROUNDING):
        assert f"| `{cause}` |" in page
