"""Converted right, and good enough: two answers about one artifact."""

import math
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import Y, dense, samples
from function_runner import FunctionRunner

from edgeattn.bundle.manifest import Artifact
from edgeattn.cli.artifact_lines import conversion_summary, cost_lines, failure_lines
from edgeattn.metrics.limits import Check, Limit
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS, PRECISION, RIGHT, UNKNOWN, WRONG
from edgeattn.tensors import TensorSpec
from edgeattn.validation.rounding import (
    conversion_result,
    explained_outputs,
    unknown_reason,
    with_wider_limits,
)
from edgeattn.validation.validate import ValidationOptions, validate

MAP = TensorSpec("attention/a", (None, 3), "float32")
WEIGHT = np.float32(1 / 3)


def write(folder, scheme, rounding):
    """One ONNX artifact whose reference names what rounding of its weights costs."""
    folder = folder / f"{scheme}.edge"
    folder.mkdir(exist_ok=True)
    entries = artifacts.declared_artifacts(folder, (scheme,), (Y, MAP))
    x = samples(20)
    arrays = {"input/x": x, "output/score": dense(x), MAP.name: np.full((20, 3), WEIGHT)}
    bundle = artifacts.write_bundle(folder, entries, arrays)
    if rounding is not None:
        bundle.manifest.reference["rounding"] = rounding
    return bundle


def costs(db, weight=0.0, weights="float16"):
    divergence = weight**2
    return {
        weights: {
            "score": {"snr_db": db},
            MAP.name: {
                "max_abs_error": weight,
                "jensen_shannon": divergence,
                "worst_jensen_shannon": divergence,
            },
        }
    }


def validated(bundle, db, moved=0.0, limits=()):
    """The report on outputs with this signal-to-noise ratio, and a map with ``moved`` weight."""

    def noisy(tensors):
        score = dense(tensors["x"]).astype(np.float64)
        # In proportion to each value, so that none of them is lost.
        size = np.sqrt((dense(samples(20)).astype(np.float64) ** 2).mean(0) / 10 ** (db / 10))
        weights = np.full((len(score), 3), WEIGHT)
        weights[:, 0] += np.float32(moved)
        weights[:, 1] -= np.float32(moved)
        # The sign depends on the sample alone.
        sign = np.where(tensors["x"][:, :1] > 0, 1, -1)
        return {"score": (score + size * sign).astype(np.float32), MAP.name: weights}

    (report,) = validate(
        bundle,
        bundle.manifest.artifacts,
        lambda a: FunctionRunner(noisy, a.inputs, a.outputs),
        options=ValidationOptions(limits=limits),
    ).artifacts
    return report


def test_a_limit_that_rounding_explains_is_not_a_failure(tmp_path):
    """float16 usually reaches 50 dB; if its rounding alone gives 48.5 dB, 48.4 dB is right."""
    report = validated(write(tmp_path, "float16", costs(48.5)), 48.4)
    assert (report.verdict, report.conversion) == (PASS, RIGHT)
    (check,) = report.explained
    assert (check.metric, check.limit) == ("snr_db", 50.0)
    (line,) = cost_lines(report)
    assert line == (
        "onnx float16: converted right; snr_db of score is 48.4 (usual limit >= 50), and rounding "
        "the weights to float16 alone gives 48.5"
    )
    assert report.to_json()["conversion"] == "right"
    assert report.to_json()["rounding"]["score"] == {"snr_db": 48.5}


def test_the_user_decides_whether_it_is_good_enough(tmp_path):
    bundle = write(tmp_path, "float16", costs(48.5))
    for limit in (Limit("snr_db", 50.0), Limit("snr_db", 50.0, "score")):
        report = validated(bundle, 48.4, limits=(limit,))
        assert (report.verdict, report.conversion) == (FAIL, RIGHT)
        assert [check.metric for check in report.failed] == ["snr_db"]
    other = validated(bundle, 48.4, limits=(Limit("attention_max_abs", 0.01),))
    assert other.verdict == PASS
    lower = validated(bundle, 30.0, limits=(Limit("snr_db", 29.0),))
    assert (lower.verdict, lower.conversion) == (PASS, WRONG)


def test_errors_that_rounding_does_not_explain_fail(tmp_path):
    """More than twice the error of rounding, which is 6.02 dB."""
    bundle = write(tmp_path, "float16", costs(48.5))
    assert validated(bundle, 42.6).conversion == RIGHT
    report = validated(bundle, 42.3)
    assert (report.verdict, report.conversion) == (FAIL, WRONG)
    assert report.explained == ()


def test_right_is_not_good_enough_below_the_widest_limit(tmp_path):
    """20 dB, that of int8. The user decides up to three times that error, which is 10.46 dB."""
    bundle = write(tmp_path, "float16", costs(15.0))
    report = validated(bundle, 15.0)
    assert (report.verdict, report.conversion) == (INCONCLUSIVE, RIGHT)
    assert report.failed == ()
    assert report.verdict_reason == PRECISION
    assert [(c.metric, c.limit) for _, c in report.open_limits] == [("snr_db", 20.0)]
    (line,) = cost_lines(report)
    assert line.endswith(
        "alone gives 15. Choose a more precise scheme, or decide with --limit score:snr_db=VALUE"
    )
    for limit, verdict in ((14.0, PASS), (16.0, FAIL)):
        assert validated(bundle, 15.0, limits=(Limit("snr_db", limit),)).verdict == verdict
    bundle = write(tmp_path, "float16", costs(10.0))
    for db, verdict in ((10.6, INCONCLUSIVE), (10.3, FAIL)):
        assert validated(bundle, db).verdict == verdict
    assert validated(write(tmp_path, "float16", costs(21.0)), 21.0).verdict == PASS


def test_a_failure_beyond_the_widest_limit_names_both_limits_once(tmp_path):
    """One line had "limit >= 20" and the next one "usual limit >= 50" for the same value."""
    report = validated(write(tmp_path, "float16", costs(10.0)), 9.0)
    assert (report.verdict, report.conversion) == (FAIL, RIGHT)
    assert failure_lines(report) == [
        "onnx float16: snr_db of score is 9 (limit >= 20; usual limit >= 50)"
    ]
    assert list(cost_lines(report)) == [
        "onnx float16: converted right; rounding the weights to float16 alone gives 10 for snr_db "
        "of score"
    ]


def test_maps_are_explained_by_rounding_too(tmp_path):
    """float16 maps are usually within 2e-3."""
    bundle = write(tmp_path, "float16", costs(60.0, weight=0.01))
    report = validated(bundle, 60.0, moved=0.012)
    assert (report.verdict, report.conversion) == (PASS, RIGHT)
    assert {check.metric for check in report.explained} == {
        *("max_abs_error", "jensen_shannon", "worst_jensen_shannon")
    }
    report = validated(bundle, 60.0, moved=0.025)
    assert (report.verdict, report.conversion) == (FAIL, WRONG)


@pytest.mark.parametrize("scheme", ["dynamic_int8", "int8"])
def test_rounding_can_explain_a_map_although_that_of_activations_is_unknown(tmp_path, scheme):
    """A map may move by 0.05 in int8, and by 0.15 if the weights alone move it by half of that."""
    bundle = write(tmp_path, scheme, costs(60.0, weight=0.09, weights="int8"))
    for moved, verdict in ((0.04, PASS), (0.08, INCONCLUSIVE), (0.149, INCONCLUSIVE), (0.16, FAIL)):
        report = validated(bundle, 35.0, moved=moved)
        assert (report.verdict, report.conversion) == (verdict, UNKNOWN)
    without = write(tmp_path, scheme, None)
    assert validated(without, 35.0, moved=0.08).verdict == FAIL
    smaller = write(tmp_path, scheme, costs(60.0, weight=0.03, weights="int8"))
    assert validated(smaller, 35.0, moved=0.08).verdict == FAIL


@pytest.mark.parametrize(("scheme", "limit"), [("int16x8", 40.0), ("dynamic_int8", 30.0)])
def test_rounding_of_int8_weights(tmp_path, scheme, limit):
    bundle = write(tmp_path, scheme, costs(limit - 3, weights="int8"))
    report = validated(bundle, limit - 4)
    assert (report.verdict, report.conversion) == (PASS, RIGHT)
    # Activations are rounded too, so that larger errors need not be faults.
    report = validated(bundle, limit - 12)
    assert (report.verdict, report.conversion) == (FAIL, UNKNOWN)


def test_costs_of_another_type_explain_nothing(tmp_path):
    report = validated(write(tmp_path, "float16", costs(48.5, weights="int8")), 48.4)
    assert (report.verdict, report.conversion) == (FAIL, UNKNOWN)


def test_float32_is_right_within_its_tolerance_only(tmp_path):
    bundle = write(tmp_path, "float32", costs(48.5))
    assert validated(bundle, 130.0).conversion == RIGHT
    report = validated(bundle, 60.0)
    assert (report.verdict, report.conversion) == (FAIL, WRONG)
    # A tolerance that the user widens makes it good enough, not right.
    report = validated(bundle, 60.0, limits=(Limit("rtol", 1.0), Limit("atol", 1.0)))
    assert (report.verdict, report.conversion) == (PASS, WRONG)


def test_an_unstable_model_is_not_called_wrong_on_synthetic_samples(tmp_path):
    """Its verdict is inconclusive, so nothing is known about the conversion."""
    bundle = write(tmp_path, "float32", costs(48.5))
    bundle.manifest.reference.update({"kind": "synthetic", "stable": False})
    report = validated(bundle, 60.0)
    assert (report.verdict, report.conversion) == (INCONCLUSIVE, UNKNOWN)
    assert not any("Wrong" in line for line in conversion_summary([report]))
    bundle.manifest.reference["stable"] = True
    report = validated(bundle, 60.0)
    assert (report.verdict, report.conversion) == (FAIL, WRONG)


def test_without_costs_the_limits_of_the_scheme_decide(tmp_path):
    """Bundles of earlier versions have none."""
    bundle = write(tmp_path, "float16", None)
    assert [validated(bundle, db).verdict for db in (50.5, 49.5)] == [PASS, FAIL]
    assert validated(bundle, 50.5).conversion == UNKNOWN


@pytest.mark.parametrize(
    "rounding",
    [
        7,
        [],
        {"float16": 7},
        {"float16": {"score": 7}},
        {"float16": {"score": {}, MAP.name: {}}},
        {"float16": {"score": {"snr_db": "nan"}, MAP.name: {"max_abs_error": "x"}}},
        {"float16": {"score": {"snr_db": None}}},
        {"float16": {"score": {"nosuch": 1.0}, MAP.name: {"nosuch": 1.0}}},
    ],
)
def test_malformed_costs_explain_nothing(tmp_path, rounding):
    report = validated(write(tmp_path, "float16", rounding), 49.0)
    assert report.verdict == FAIL
    assert report.conversion != RIGHT


def test_faults_that_are_no_rounding_are_never_explained(tmp_path):
    bundle = write(tmp_path, "float16", costs(-100.0, weight=1.0))

    def report_on(function):
        (report,) = validate(
            bundle,
            bundle.manifest.artifacts,
            lambda a: FunctionRunner(function, a.inputs, a.outputs),
        ).artifacts
        return report

    def right(tensors):
        count = len(tensors["x"])
        return {"score": dense(tensors["x"]), MAP.name: np.full((count, 3), WEIGHT)}

    def not_finite(tensors):
        outputs = right(tensors)
        outputs["score"][-1] = np.nan
        return outputs

    def lost_mass(tensors):
        outputs = right(tensors)
        outputs[MAP.name][:] = 0.3
        return outputs

    assert report_on(right).conversion == RIGHT
    for function in (not_finite, lost_mass):
        report = report_on(function)
        assert (report.verdict, report.conversion) == (FAIL, WRONG)


def test_the_summary_names_every_artifact(tmp_path):
    right = validated(write(tmp_path, "float16", costs(48.5)), 48.4)
    wrong = validated(write(tmp_path, "float32", None), 40.0)
    unknown = validated(write(tmp_path, "int8", None), 40.0)
    assert list(conversion_summary([right, wrong, unknown])) == [
        "Converted right: 1 of 3. Wrong: onnx float32. Unknown: onnx int8.",
        "Unknown for onnx int8: the bundle has no errors of Keras with weights rounded to int8.",
    ]


def test_the_summary_says_why_it_is_unknown(tmp_path):
    """One line for each reason; the costs of single outputs and maps are known."""
    right = validated(write(tmp_path, "float16", costs(48.5)), 48.4)
    output = validated(write(tmp_path, "int8", costs(48.5, weights="int8")), 40.0)
    both = validated(write(tmp_path, "int16x8", costs(48.5, weights="int8")), 40.0, moved=0.02)
    moved = validated(write(tmp_path, "dynamic_int8", costs(48.5, weights="int8")), 48.4, 0.02)
    assert [item.conversion for item in (right, output, both, moved)] == [RIGHT, *[UNKNOWN] * 3]
    measured = "other rounding is not measured."
    alone = "rounding of the weights alone does not explain the errors of"
    assert list(conversion_summary([right, output, both, moved]))[1:] == [
        f"Unknown for onnx int8: {alone} score; {measured}",
        f"Unknown for onnx int16x8: {alone} score and attention/a; {measured}",
        f"Unknown for onnx dynamic_int8: {alone} attention/a; {measured}",
    ]
    assert len(list(conversion_summary([right, output, output]))) == 2
    int4 = replace(output, artifact=replace(output.artifact, scheme="int4"), rounding={})
    assert list(conversion_summary([int4]))[1].endswith("weights rounded to int4.")


def test_a_file_that_does_not_run_is_a_reason():
    artifact = Artifact("onnx", "int8", "m.onnx", "", 0, (), (Y,), ())
    assert "could not load" in unknown_reason(artifact, (), {}, frozenset())


def test_an_unstable_reference_is_a_reason():
    """A check on the user's data is not one of the reference."""
    artifact = Artifact("onnx", "float32", "m.onnx", "", 0, (), (Y,), ())
    checks = [
        Check("onnx float32", "numbers", "tolerance_ratio", 2.0, 1.0, output=name, data=data)
        for name, data in (("a", None), ("b", None), ("c", "test.npz"))
    ]
    checks[1] = replace(checks[1], value=0.5)
    assert unknown_reason(artifact, checks, {}, frozenset()) == (
        "the errors of a are on synthetic samples, on which Keras itself is unstable"
    )


def test_the_summary_names_right_artifacts_that_fail(tmp_path):
    """10 dB is more than three times the error of the widest limit, 20 dB."""
    passing = validated(write(tmp_path, "float16", costs(48.5)), 48.4)
    failing = validated(write(tmp_path, "dynamic_int8", costs(10.0, weights="int8")), 10.0)
    assert (failing.verdict, failing.conversion) == (FAIL, RIGHT)
    assert list(conversion_summary([passing, failing])) == [
        "Converted right: 2 of 2. Right, but beyond the limits: onnx dynamic_int8 (rounding "
        "explains the errors)."
    ]


def float32_costs(ratio=0.0, weight=0.0):
    divergence = weight**2
    map_costs = {
        "max_abs_error": weight,
        "jensen_shannon": divergence,
        "worst_jensen_shannon": divergence,
    }
    return {"float32": {"score": {"tolerance_ratio": ratio}, MAP.name: map_costs}}


@pytest.mark.parametrize(
    ("cost", "moved", "conversion", "verdict"),
    [
        (1e-4, 6e-5, RIGHT, PASS),
        (4e-5, 6e-5, WRONG, FAIL),
        (0.0, 6e-5, WRONG, FAIL),
        (math.nan, 6e-5, WRONG, FAIL),
        # The limit of float16 is the largest.
        (0.1, 1.9e-3, RIGHT, PASS),
        (0.1, 5e-3, RIGHT, INCONCLUSIVE),
        (0.1, 2e-2, RIGHT, FAIL),
    ],
)
def test_limits_of_maps_in_float32_are_extended_by_the_cost(
    tmp_path, cost, moved, conversion, verdict
):
    bundle = write(tmp_path, "float32", float32_costs(weight=cost))
    report = validated(bundle, 160, moved)
    assert (report.conversion, report.verdict) == (conversion, verdict)


@pytest.mark.parametrize(
    ("cost", "share", "conversion"),
    [
        (1.0, 0.2, WRONG),
        (None, 0.2, WRONG),
        (math.nan, 0.2, WRONG),
        (0.95, 0.8, WRONG),
        (0.95, 0.92, RIGHT),
        (1.0, 1.0, RIGHT),
    ],
)
@pytest.mark.parametrize("metric", ["equal_values", "batch_equal_values"])
def test_other_integers_are_right_as_far_as_rounding_changes_those_of_keras(
    metric, cost, share, conversion
):
    artifact = Artifact("onnx", "float32", "m.onnx", "", 0, (), (Y,), ())
    costs = {} if cost is None else {"score": {"equal_values": cost}}
    check = Check("onnx float32", "numbers", metric, share, 1.0, ">=", "score")
    assert conversion_result(artifact, [check], costs) == conversion
    assert bool(explained_outputs([check], costs)) == (conversion == RIGHT and bool(costs))


@pytest.mark.parametrize("metric", ["row_sum_error", "max_abs_error", "masked_mass"])
@pytest.mark.parametrize("cost", [4e-5, 1e-4])
def test_sums_of_rows_in_float32_differ_by_rounding(metric, cost):
    """Keras' softmax over several axes has rows whose sum is not exactly 1."""
    check = Check("onnx float32", "attention", metric, 6e-5, 1e-5, output=MAP.name)
    explained = explained_outputs([check], {MAP.name: {metric: cost}})
    assert bool(explained) == (cost > 5e-5)
    (wider,), missed = with_wider_limits([check], explained, (), {MAP.name: {metric: cost}})
    assert wider.passed == bool(missed) == (cost > 5e-5 and metric != "masked_mass")


@pytest.mark.parametrize(
    ("cost", "db", "conversion", "verdict"),
    [
        (30.0, 95, RIGHT, PASS),
        (0.2, 95, WRONG, FAIL),
        (3000.0, 50, RIGHT, FAIL),
    ],
)
def test_limits_of_outputs_in_float32_are_extended_by_the_cost(
    tmp_path, cost, db, conversion, verdict
):
    report = validated(write(tmp_path, "float32", float32_costs(ratio=cost)), db)
    assert (report.conversion, report.verdict) == (conversion, verdict)


def test_a_limit_of_the_user_is_not_extended_in_float32(tmp_path):
    bundle = write(tmp_path, "float32", float32_costs(30.0, 1e-4))
    for limit in (Limit("atol", 1e-6), Limit("rtol", 1e-6)):
        assert validated(bundle, 85, limits=[limit]).verdict == FAIL
    assert validated(bundle, 160, 6e-5, [Limit("attention_max_abs", 2e-5)]).verdict == FAIL
    assert validated(bundle, 160, 6e-5).verdict == PASS


def test_an_extended_limit_of_float32_is_reported(tmp_path):
    report = validated(write(tmp_path, "float32", float32_costs(weight=1e-4)), 160, 6e-5)
    (line,) = cost_lines(report)
    assert "max_abs_error of attention/a is 6e-05 (usual limit <= 1e-05)" in line
    assert line.endswith("and rounding in float32 alone gives 0.0001")
