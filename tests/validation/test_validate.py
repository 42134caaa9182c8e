"""Validation: outputs that pass, and above all outputs that must fail."""

import json
import math
import shutil
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import KERNEL, X, Y, dense, samples
from function_runner import FunctionRunner

from edgeattn.errors import ArtifactError, BundleError, EdgeattnError, RuntimeUnavailableError
from edgeattn.metrics.limits import LIMITS, Check
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.tensors import TensorSpec
from edgeattn.validation.comparison import comparison_checks
from edgeattn.validation.report import ArtifactReport, Report
from edgeattn.validation.validate import validate, validate_isolated

KEYS = 5
MAP = TensorSpec("attention/a", (None, KEYS), "float32")


def attention(count=7):
    """Maps that sum to one: row i has 1/2 on key i mod 5 and 1/8 on the others."""
    weights = np.full((count, KEYS), 0.125, np.float32)
    weights[np.arange(count), np.arange(count) % KEYS] = 0.5
    return weights


@pytest.fixture
def bundle(tmp_path):
    """Two outputs of one shape, ``score`` and ``other`` (its negative), and an attention map."""
    outputs = (Y, TensorSpec("other", Y.shape, "float32"), MAP)
    entries = artifacts.declared_artifacts(tmp_path, tuple(LIMITS), outputs)
    x = samples()
    return artifacts.write_bundle(
        tmp_path,
        entries,
        {
            "input/x": x,
            "output/score": dense(x),
            "output/other": -dense(x),
            "attention/a": attention(),
        },
    )


def right(tensors):
    x = tensors["x"]
    rows = [int(np.flatnonzero((samples() == row).all(1))[0]) for row in x]
    return {"score": dense(x), "other": -dense(x), "attention/a": attention()[rows]}


def validated(bundle, function, scheme="float32", runner=FunctionRunner):
    """The report on ``function`` in place of the artifact of a scheme."""
    artifacts = bundle.select(schemes=(scheme,))
    report = validate(bundle, artifacts, lambda a: runner(function, a.inputs, a.outputs))
    (item,) = report.artifacts
    assert report.verdict == item.verdict
    return item


def failed(report):
    return {(check.metric, check.output) for check in report.failed}


def with_changes(**changes):
    """The right outputs, each changed by a function."""

    def function(tensors):
        outputs = dict(right(tensors))
        for name, change in changes.items():
            name = {"map": "attention/a"}.get(name, name)
            outputs[name] = change(outputs[name].copy())
        return outputs

    return function


def replaced(value, at=(3, 0)):
    def change(array):
        if len(array) > at[0]:
            array[at] = value
        return array

    return change


# One artifact


@pytest.mark.parametrize("scheme", LIMITS)
def test_right_passes(bundle, scheme):
    report = validated(bundle, right, scheme)
    assert report.verdict == PASS
    assert report.stages == {
        "structure": PASS,
        "numbers": PASS,
        "attention": PASS,
        "task": NOT_RUN,
        "device": NOT_RUN,
    }
    assert report.max_abs_error == 0
    assert report.runtime == "function"


@pytest.mark.parametrize("scheme", LIMITS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["score", "other", "map"])
def test_not_finite_fails(bundle, scheme, value, output):
    report = validated(bundle, with_changes(**{output: replaced(value)}), scheme)
    assert report.verdict == FAIL
    assert ("non_finite", {"map": "attention/a"}.get(output, output)) in failed(report)
    json.dumps(report.to_json(), allow_nan=False)


def test_the_shortcoming_is_what_decided(bundle):
    """Tables of sweeps have it in one cell."""
    assert validated(bundle, right).shortcoming is None
    report = validated(bundle, with_changes(score=lambda score: score + 1.0))
    # The first check that fails; the other ones are in the report.
    assert report.shortcoming == report.failed[0].comparison
    found = Check("a", "numbers", "snr_db", 7.5, 20.0, ">=", "score", data="test.npz")
    assert found.comparison == "snr_db of score on test.npz is 7.5 (limit >= 20)"
    assert replace(found, detail="2 samples").comparison.endswith("(limit >= 20): 2 samples")
    stopped = ArtifactReport(bundle.manifest.artifacts[0], None, (), reason="No runtime.")
    assert (stopped.verdict, stopped.shortcoming) == (NOT_RUN, "No runtime.")


def test_the_same_infinity_as_keras_passes(bundle):
    x = samples()
    expected = {"score": dense(x), "other": -dense(x), "attention/a": attention()}
    expected["score"][0] = [np.nan, np.inf]
    entry = bundle.select(schemes=("float32",))[0]

    def verdict(actual):
        again = {name: array[:1] for name, array in actual.items()}
        return ArtifactReport(
            entry, "r", tuple(comparison_checks(entry, expected, actual, again))
        ).verdict

    assert verdict(dict(expected)) == PASS
    for value in ([np.nan, -np.inf], [np.nan, 7.0], [7.0, np.inf], [np.inf, np.inf]):
        other = expected["score"].copy()
        other[0] = value
        assert verdict({**expected, "score": other}) == FAIL


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[:-1],
        lambda array: array[:, :1],
        lambda array: array.T,
        lambda array: array[..., None],
        lambda array: array.reshape(-1),
        lambda array: array[:0],
    ],
)
@pytest.mark.parametrize("output", ["score", "map"])
def test_wrong_shape_fails(bundle, change, output):
    report = validated(bundle, with_changes(**{output: change}))
    assert report.verdict == FAIL
    assert [check.metric for check in report.failed] == ["wrong_shape"]


def test_swapped_outputs_fail(bundle):
    def swapped(tensors):
        outputs = right(tensors)
        return {**outputs, "score": outputs["other"], "other": outputs["score"]}

    for scheme in LIMITS:
        report = validated(bundle, swapped, scheme)
        assert {output for _, output in failed(report)} == {"score", "other"}


def test_outputs_are_matched_by_name_not_by_order(bundle):
    report = validated(bundle, lambda tensors: dict(reversed(right(tensors).items())))
    assert report.verdict == PASS


def test_missing_output_fails(bundle):
    class Incomplete(FunctionRunner):
        def run(self, tensors, batch_sizes=()):
            return {name: self._function(tensors)[name] for name in ("score", "attention/a")}

    report = validated(bundle, right, runner=Incomplete)
    assert failed(report) == {("missing", "other")}
    report = validated(bundle, lambda tensors: {"score": dense(tensors["x"])})
    assert (report.verdict, report.reason) == (FAIL, "The function returned no output 'other'.")


def test_state_carried_over_fails(bundle):
    """Outputs that are right at first and wrong when a sequence is repeated."""
    calls = []

    def stateful(tensors):
        calls.append(len(tensors["x"]))
        outputs = right(tensors)
        return {**outputs, "score": outputs["score"] + 1e-5 * (len(calls) - 1)}

    report = validated(bundle, stateful)
    assert calls == [7, 1]
    assert failed(report) == {("repeat_error", "score")}


def test_samples_in_another_order_fail(bundle):
    report = validated(bundle, with_changes(score=lambda array: array[::-1]))
    assert report.verdict == FAIL


@pytest.mark.parametrize("scheme", LIMITS)
def test_signal_to_noise_limits(bundle, scheme):
    """An output passes just above the limit of its scheme and fails just below it."""
    limit = LIMITS[scheme].snr_db

    def noisy(db):
        def change(array):
            # In proportion to each value, so that none of them is lost.
            size = np.sqrt((dense(samples()).astype(np.float64) ** 2).mean(0) / 10 ** (db / 10))
            return array + size * np.where(np.arange(array.size) % 2, 1, -1).reshape(array.shape)

        return with_changes(score=change)

    if scheme == "float32":
        assert validated(bundle, noisy(130), scheme).verdict == PASS
        assert failed(validated(bundle, noisy(60), scheme)) == {("tolerance_ratio", "score")}
    else:
        assert validated(bundle, noisy(limit + 0.5), scheme).verdict == PASS
        assert failed(validated(bundle, noisy(limit - 0.5), scheme)) == {("snr_db", "score")}


@pytest.mark.parametrize("scheme", LIMITS)
def test_attention_limits(bundle, scheme):
    limit = LIMITS[scheme].attention_max_abs

    def moved(by):
        """Move the weight ``by`` from the first key to the second, in the first row."""

        def change(array):
            array[0, 0] -= by
            array[0, 1] += by
            return array

        return with_changes(map=change)

    assert validated(bundle, moved(0.9 * limit), scheme).verdict == PASS
    report = validated(bundle, moved(1.1 * limit), scheme)
    assert ("max_abs_error", "attention/a") in failed(report)
    assert report.stages["attention"] == FAIL
    assert report.stages["numbers"] == PASS
    assert report.verdict == FAIL


def test_a_shifted_attention_map_fails(bundle):
    for scheme in LIMITS:
        report = validated(
            bundle, with_changes(map=lambda array: np.roll(array, 1, axis=-1)), scheme
        )
        assert {metric for metric, _ in failed(report)} == {
            "max_abs_error",
            "jensen_shannon",
            "worst_jensen_shannon",
        }


def test_the_predicted_class_of_probabilities_is_checked(tmp_path):
    entries = artifacts.declared_artifacts(tmp_path, ("int8",), (Y,))
    x = samples(count=11)
    scores = np.full((11, 2), 0.46, np.float32)
    scores[:, 0] = 0.54
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, "output/score": scores})

    def two_flip(tensors):
        got = scores[: len(tensors["x"])].copy()
        if len(got) > 4:
            got[3:5] = got[3:5, ::-1]
        return {"score": got}

    report = validated(bundle, two_flip, "int8")
    # 23 dB pass, but 9 of 11 classes are fewer than the limit of 98%, and not by chance.
    assert failed(report) == {("top1_agreement", "score")}


def test_booleans_and_integers_are_compared(tmp_path):
    artifacts.write_kinds_onnx(tmp_path / "m.onnx")
    outputs = (TensorSpec("sign", (None, 3), "bool"), TensorSpec("best", (None,), "int64"))
    entries = [artifacts.artifact(tmp_path / "m.onnx", outputs=outputs)]
    x = samples()
    truth = {"output/sign": x > 0, "output/best": x.argmax(1)}
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, **truth})
    assert validate_isolated(bundle, bundle.manifest.artifacts).verdict == PASS
    for name in truth:
        wrong = {**truth, name: truth[name].copy()}
        wrong[name][2:3] = ~wrong[name][2:3] if name == "output/sign" else 2 - wrong[name][2:3] + 1
        bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, **wrong})
        report = validate_isolated(bundle, bundle.manifest.artifacts)
        assert {check.output for check in report.artifacts[0].failed} == {name.split("/")[1]}


@pytest.mark.parametrize(("others", "verdict"), [(0, PASS), (1, INCONCLUSIVE), (5, FAIL)])
def test_classes_are_judged_by_the_share_of_equal_values(tmp_path, others, verdict):
    best = TensorSpec("best", (None,), "int64")
    entries = artifacts.declared_artifacts(tmp_path, ("int8",), (best,))
    # 3000 instead of 0 would be an error of any size: which class it is does not matter.
    x, truth = samples(count=11), np.zeros(11, np.int64)
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, "output/best": truth})
    wrong = x.reshape(11, -1)[:others, 0]

    def predict(tensors):
        first = tensors["x"].reshape(len(tensors["x"]), -1)[:, 0]
        return {"best": np.where(np.isin(first, wrong), 3000, 0)}

    item = validated(bundle, predict, "int8")
    metrics = {check.metric for check in item.checks if check.output == "best"}
    assert metrics == {"non_finite", "repeat_error", "batch_equal_values", "equal_values"}
    assert item.verdict == verdict
    assert item.headline["equal_values"] == (11 - others) / 11
    assert item.headline["snr_db"] is None


# Artifacts that do not run


def test_without_a_runtime_the_verdict_is_not_run(bundle):
    def unavailable(_):
        raise RuntimeUnavailableError("nothing here")

    report = validate(bundle, bundle.manifest.artifacts[:1], unavailable)
    (item,) = report.artifacts
    assert (report.verdict, report.exit_code, item.reason) == (NOT_RUN, 5, "nothing here")
    assert set(item.stages.values()) == {NOT_RUN}
    assert item.max_abs_error is None


def test_an_artifact_that_does_not_load_fails(bundle):
    def broken(_):
        raise ArtifactError("does not load")

    report = validate(bundle, bundle.manifest.artifacts[:1], broken)
    assert (report.verdict, report.exit_code) == (FAIL, 1)
    assert report.artifacts[0].stages["numbers"] == NOT_RUN


def test_intact_files_alone_do_not_pass(bundle):
    entry = bundle.manifest.artifacts[0]
    structure = Check(entry.label, "structure", "changed_files", 0.0, 0.0)
    attention_check = Check(entry.label, "attention", "max_abs_error", 0.0, 1.0)
    without_limit = Check(entry.label, "numbers", "max_abs_error", 0.0)
    assert ArtifactReport(entry, "r", (structure,)).verdict == NOT_RUN
    assert (
        ArtifactReport(entry, "r", (structure, attention_check, without_limit)).verdict == NOT_RUN
    )
    assert ArtifactReport(entry, "r", ()).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        ([PASS, PASS], PASS, 0),
        ([PASS, NOT_RUN], PASS, 0),
        ([NOT_RUN, NOT_RUN], NOT_RUN, 5),
        ([], NOT_RUN, 5),
        ([PASS, FAIL], FAIL, 1),
        ([NOT_RUN, FAIL], FAIL, 1),
    ],
)
def test_overall_verdict(bundle, verdicts, verdict, code):
    entry = bundle.manifest.artifacts[0]
    by_verdict = {
        PASS: ArtifactReport(entry, "r", (Check("a", "numbers", "m", 0.0, 0.0),)),
        FAIL: ArtifactReport(entry, "r", (Check("a", "numbers", "m", 1.0, 0.0),)),
        NOT_RUN: ArtifactReport(entry, None, ()),
    }
    report = Report(tuple(by_verdict[name] for name in verdicts))
    assert [item.verdict for item in report.artifacts] == verdicts
    assert (report.verdict, report.exit_code) == (verdict, code)
    assert INCONCLUSIVE not in verdicts


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("relation", ["<=", ">="])
def test_check(value, relation):
    passed = Check("a", "numbers", "m", value, 1.0, relation).passed
    if math.isnan(value):
        assert passed is False
    else:
        assert passed is (value <= 1 if relation == "<=" else value >= 1)
    assert Check("a", "numbers", "m", value).passed is None
    document = Check("a", "numbers", "m", value, math.inf, relation).to_json()
    json.dumps(document, allow_nan=False)


# The reference


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("input/x"),
        lambda arrays: arrays.pop("output/score"),
        lambda arrays: arrays.clear(),
        lambda arrays: arrays.update({"output/score": arrays["output/score"][:-1]}),
        lambda arrays: arrays.update({"input/x": arrays["input/x"][:3]}),
        lambda arrays: arrays.update({"input/x": np.float32(1)}),
        lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items()}),
    ],
)
def test_an_incomplete_reference_is_refused(tmp_path, change):
    bundle = artifacts.write_dense_bundle(tmp_path)
    arrays = dict(bundle.reference())
    change(arrays)
    bundle = artifacts.write_bundle(tmp_path, bundle.manifest.artifacts, arrays)
    with pytest.raises(BundleError, match="The reference of"):
        validate_isolated(bundle, bundle.manifest.artifacts)


# In the real runtimes


def test_both_runtimes_pass(dense_bundle):
    report = validate_isolated(dense_bundle, dense_bundle.manifest.artifacts)
    assert report.verdict == PASS
    assert [item.runtime.split()[0] for item in report.artifacts] == [
        "ai-edge-litert",
        "onnxruntime",
    ]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_wrong_value_fails(tmp_path, format):
    bias = artifacts.BIAS + np.array([0, 1e-2], np.float32)
    bundle = artifacts.write_dense_bundle(tmp_path, formats=(format,), bias=bias)
    (report,) = validate_isolated(bundle, bundle.manifest.artifacts).artifacts
    assert failed(report) == {("tolerance_ratio", "score")}
    assert report.max_abs_error == pytest.approx(1e-2, rel=1e-3)


def test_state_carried_over_by_a_real_file_fails(tmp_path):
    artifacts.write_counter_tflite(tmp_path / "m.tflite")
    entry = artifacts.artifact(
        tmp_path / "m.tflite", inputs=(artifacts.COUNTER_X,), outputs=(artifacts.COUNTER_Y,)
    )
    x = np.arange(1, 6, dtype=np.float32)[:, None]
    bundle = artifacts.write_bundle(tmp_path, [entry], {"input/x": x, "output/total": x})
    (report,) = validate_isolated(bundle, (entry,)).artifacts
    in_outputs = {("repeat_error", "total"), ("tolerance_ratio", "total")}
    assert failed(report) == {*in_outputs, ("state_variables", None)}
    # With one sequence, the first call agrees with Keras, and the second does not.
    bundle = artifacts.write_bundle(tmp_path, [entry], {"input/x": x[:1], "output/total": x[:1]})
    (report,) = validate_isolated(bundle, (entry,)).artifacts
    assert failed(report) == {("repeat_error", "total"), ("state_variables", None)}


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, "half"])
def test_a_broken_file_fails_and_the_other_is_judged(dense_bundle, format, content):
    file = dense_bundle.path / f"dense.float32.{format}"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    artifacts.rehash(dense_bundle.path)
    bundle = type(dense_bundle).open(dense_bundle.path)
    report = validate_isolated(bundle, bundle.manifest.artifacts)
    verdicts = {item.artifact.format: item.verdict for item in report.artifacts}
    assert verdicts == {"tflite": PASS, "onnx": PASS, format: FAIL}
    assert report.verdict == FAIL
    assert all(item.reason for item in report.artifacts if item.verdict == FAIL)


def test_a_manifest_with_other_tensor_names_fails(dense_bundle):
    def change(data):
        for entry in data["artifacts"]:
            entry["inputs"][0]["name"] = "unknown"

    artifacts.edit_manifest(dense_bundle.path, change)
    bundle = type(dense_bundle).open(dense_bundle.path)
    arrays = dict(bundle.reference())
    arrays["input/unknown"] = arrays["input/x"]
    bundle = artifacts.write_bundle(bundle.path, bundle.manifest.artifacts, arrays)
    report = validate_isolated(bundle, bundle.manifest.artifacts)
    assert {item.verdict for item in report.artifacts} == {FAIL}


def test_inputs_of_another_shape_fail(dense_bundle):
    arrays = dict(dense_bundle.reference())
    arrays["input/x"] = np.concatenate([arrays["input/x"]] * 2, axis=1)
    bundle = artifacts.write_bundle(dense_bundle.path, dense_bundle.manifest.artifacts, arrays)
    report = validate_isolated(bundle, bundle.manifest.artifacts)
    assert {item.verdict for item in report.artifacts} == {FAIL}
    assert all("failed during inference" in item.reason for item in report.artifacts)


def test_swapped_outputs_of_a_real_file_fail(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", outputs=("other", "score"))
    outputs = (Y, TensorSpec("other", Y.shape, "float32"))
    entry = artifacts.artifact(tmp_path / "m.onnx", outputs=outputs)
    x = samples()
    arrays = {"input/x": x, "output/score": dense(x), "output/other": -dense(x)}
    bundle = artifacts.write_bundle(tmp_path, [entry], arrays)
    (report,) = validate_isolated(bundle, (entry,)).artifacts
    assert {output for _, output in failed(report)} == {"score", "other"}
    arrays = {"input/x": x, "output/score": -dense(x), "output/other": dense(x)}
    bundle = artifacts.write_bundle(tmp_path, [entry], arrays)
    assert validate_isolated(bundle, (entry,)).verdict == PASS


def test_a_moved_bundle_is_judged(dense_bundle, tmp_path):
    moved = tmp_path / "with space" / "b.edge"
    shutil.copytree(dense_bundle.path, moved)
    bundle = type(dense_bundle).open(moved)
    assert validate_isolated(bundle, bundle.manifest.artifacts).verdict == PASS


def test_an_error_of_a_runner_is_raised(bundle):
    def raises(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        validated(bundle, raises)
    assert issubclass(ArtifactError, EdgeattnError)


def test_the_expected_outputs_are_those_of_the_kernel():
    # [2, 4, -8] @ [[1, -2], [.5, 4], [-.25, 8]] + [.125, -1] = [2+2+2+.125, -4+16-64-1].
    assert dense(np.array([[2, 4, -8]], np.float32)).tolist() == [[6.125, -53.0]]
    assert KERNEL.shape == (3, 2)
    assert X.shape == (None, 3)
