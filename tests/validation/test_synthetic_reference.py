"""Verdicts if the reference consists of synthetic samples: what they prove, and what they do not.

The model is ``score = x @ KERNEL + BIAS``; noise of known amplitude sets the signal-to-noise ratio.
"""

from xml.etree import ElementTree

import artifacts
import numpy as np
import pytest
from artifacts import Y, dense, samples
from function_runner import FunctionRunner

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import CALIBRATION, SAMPLES, SYNTHETIC
from edgeattn.errors import BundleError
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn.report.junit import write_junit
from edgeattn.tensors import TensorSpec
from edgeattn.validation.validate import validate

QUANTIZED = [scheme for scheme in LIMITS if scheme != "float32"]
MAP = TensorSpec("attention/a", (None, 4), "float32")
COUNT = 7


def right(tensors):
    x = tensors["x"]
    return {"score": dense(x), "attention/a": np.full((len(x), 4), 0.25, np.float32)}


def noisy(db):
    """The right scores with alternating noise that leaves this signal-to-noise ratio."""

    def function(tensors):
        outputs = right(tensors)
        score = outputs["score"]
        signs = np.array([1, -1])
        # In proportion to each value, so that none of them is lost.
        size = np.sqrt((dense(samples(COUNT)).astype(float) ** 2).mean(0) / 10 ** (db / 10))
        return {**outputs, "score": (score + size * signs).astype(np.float32)}

    return function


def uneven_map(tensors):
    outputs = right(tensors)
    outputs["attention/a"][:, :2] += np.float32([0.2, -0.2])
    return outputs


def write(folder, *, kind=None, source="seeded", outputs=(Y, MAP), scheme=None):
    """A bundle of every scheme, or of one, whose reference is of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = artifacts.declared_artifacts(folder, (scheme,) if scheme else tuple(LIMITS), outputs)
    x = samples(COUNT)
    expected = right({"x": x})
    arrays = {"input/x": x, "output/score": expected["score"]}
    if MAP in outputs:
        arrays |= {MAP.name: expected[MAP.name]}
    artifacts.write_bundle(folder, entries, arrays)

    def change(data):
        data["reference"]["source"] = source
        if kind is not None:
            data["reference"]["kind"] = kind

    artifacts.edit_manifest(folder, change)
    return Bundle.open(folder)


def validated(bundle, function, scheme, dataset=None):
    chosen = bundle.select(schemes=(scheme,))
    report = validate(
        bundle, chosen, lambda a: FunctionRunner(function, a.inputs, a.outputs), dataset=dataset
    )
    return report, report.artifacts[0]


def below(scheme):
    return noisy(LIMITS[scheme].snr_db - 3)


@pytest.mark.parametrize("scheme", QUANTIZED)
@pytest.mark.parametrize(
    ("kind", "source", "verdict", "code"),
    [
        (SYNTHETIC, "seeded", INCONCLUSIVE, 6),
        (None, "seeded", INCONCLUSIVE, 6),  # written by an earlier version
        (SAMPLES, "test.npz", FAIL, 1),
        (CALIBRATION, "calibration.npz", FAIL, 1),
        (None, "test.npz", FAIL, 1),
    ],
)
def test_a_limit_missed_by_a_quantized_artifact(tmp_path, scheme, kind, source, verdict, code):
    bundle = write(tmp_path, kind=kind, source=source)
    report, item = validated(bundle, below(scheme), scheme)
    assert (item.verdict, item.stages["numbers"]) == (verdict, verdict)
    assert report.exit_code == code
    missed = item.unproven if verdict == INCONCLUSIVE else item.failed
    assert {check.metric for check in missed} == {"snr_db"}
    expected = "not proven: no real samples" if verdict == INCONCLUSIVE else None
    assert item.to_json()["reason"] == expected


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_an_attention_map_beyond_its_limit(tmp_path, scheme):
    for kind, verdict in ((SYNTHETIC, INCONCLUSIVE), (SAMPLES, FAIL)):
        _, item = validated(write(tmp_path, kind=kind), uneven_map, scheme)
        assert (item.verdict, item.stages["attention"]) == (verdict, verdict)
        assert item.stages["numbers"] == PASS


def test_float32_must_equal_keras_on_any_input(tmp_path):
    bundle = write(tmp_path, kind=SYNTHETIC)
    for function in (noisy(60), uneven_map):
        _, item = validated(bundle, function, "float32")
        assert (item.verdict, item.unproven) == (FAIL, ())


def test_float32_where_keras_itself_is_unstable(tmp_path):
    write(tmp_path, kind=SYNTHETIC)
    artifacts.edit_manifest(tmp_path, lambda data: data["reference"].update(stable=False))
    _, item = validated(Bundle.open(tmp_path), noisy(60), "float32")
    assert item.verdict == INCONCLUSIVE
    assert {check.metric for check in item.unproven} == {"tolerance_ratio"}


@pytest.mark.parametrize(("cost", "verdict"), [(70.0, FAIL), (None, INCONCLUSIVE)])
def test_errors_that_rounding_cannot_explain_fail(tmp_path, cost, verdict):
    """Keras with weights rounded to float16 reaches 70 dB, the artifact 47 dB."""
    write(tmp_path, kind=SYNTHETIC, outputs=(Y,))
    rounding = {"float16": {"score": {"snr_db": cost}}} if cost else {}
    artifacts.edit_manifest(tmp_path, lambda data: data["reference"].update(rounding=rounding))
    _, item = validated(Bundle.open(tmp_path), noisy(47), "float16")
    assert item.verdict == verdict


def infinite(tensors):
    outputs = right(tensors)
    outputs["score"][0, 0] = np.inf
    return outputs


def too_narrow(tensors):
    outputs = right(tensors)
    return {**outputs, "score": outputs["score"][:, :1]}


def not_repeatable(tensors):
    outputs = right(tensors)
    return {**outputs, "score": outputs["score"] + np.float32(len(tensors["x"]) == 1)}


@pytest.mark.parametrize("scheme", LIMITS)
@pytest.mark.parametrize(
    ("function", "metric"),
    [(infinite, "non_finite"), (too_narrow, "wrong_shape"), (not_repeatable, "repeat_error")],
)
def test_faults_on_any_input_fail(tmp_path, scheme, function, metric):
    _, item = validated(write(tmp_path, kind=SYNTHETIC), function, scheme)
    assert item.verdict == FAIL
    assert metric in {check.metric for check in item.failed}


def real_data(folder, bundle, keras=True, labels=False):
    """400 samples that are not in the reference, with Keras as their reference or without."""
    x = samples(400) + np.float32(0.125)
    arrays = {"x": x, **({"y": dense(x).argmax(1)} if labels else {})}
    np.savez(folder / "real.npz", **arrays)
    dataset = open_dataset(folder / "real.npz", bundle)
    return dataset.with_keras(right) if keras else dataset


def mixed(on_reference, on_data):
    """A function for rows of the reference, which are quarters, and another one for the data."""

    def function(tensors):
        known = (tensors["x"] * 4 % 1 == 0).all(axis=1)[:, None]
        one, other = on_reference(tensors), on_data(tensors)
        return {name: np.where(known, one[name], other[name]) for name in one}

    return function


def test_real_data_decides(tmp_path):
    bundle = write(tmp_path, kind=SYNTHETIC, outputs=(Y,))
    dataset = real_data(tmp_path, bundle)
    for function, verdict in (
        (mixed(below("int8"), right), PASS),
        (mixed(right, noisy(10)), FAIL),
        (below("int8"), FAIL),
    ):
        _, item = validated(bundle, function, "int8", dataset)
        assert (item.verdict, item.stages["numbers"]) == (verdict, verdict)
        assert item.unproven == ()


def test_a_retained_score_decides_about_outputs(tmp_path):
    """The passed task, and outputs compared with the fallback reference, replace missed limits."""
    bundle = write(tmp_path, kind=SYNTHETIC, outputs=(Y,))
    dataset = real_data(tmp_path, bundle, keras=False, labels=True)

    def opener(artifact):
        function = mixed(below("int8"), right) if artifact.scheme == "int8" else right
        return FunctionRunner(function, artifact.inputs, artifact.outputs)

    chosen = bundle.select(schemes=("int8",))
    (item,) = validate(bundle, chosen, opener, dataset=dataset).artifacts
    assert item.task.verdict == PASS
    assert (item.verdict, item.unproven) == (PASS, ())


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(BundleError):
        write(tmp_path, kind="invented")


@pytest.fixture
def wrong_bias(tmp_path):
    """A float16 bundle whose file misses its limit on synthetic samples."""
    folder = tmp_path / "m.edge"
    write(folder, kind=SYNTHETIC, outputs=(Y,), scheme="float16")
    artifacts.write_dense_onnx(folder / "m.float16.onnx", bias=artifacts.BIAS + np.float32(0.5))
    artifacts.rehash(folder)
    return folder


def test_the_command_line_names_the_command_that_decides(edgeattn, wrong_bias):
    done = edgeattn("validate", wrong_bias)
    assert done.code == 6
    assert "onnx float16: not proven: no real samples. snr_db of score is " in done.out
    assert f"edgeattn validate {wrong_bias} --data FILE" in done.out
    assert "on 7 synthetic samples (no real samples were given) and 0 edge cases." in done.out
    assert done.out.splitlines()[-1] == "Verdict: inconclusive"


def test_inspect_says_what_the_reference_is(edgeattn, tmp_path):
    for kind, source, text in (
        (SYNTHETIC, "seeded", "7 synthetic samples (no real samples were given)"),
        (CALIBRATION, "c.npz", "7 samples (c.npz, not calibrated on)"),
        (SAMPLES, "test.npz", "7 samples (test.npz)"),
    ):
        write(tmp_path / "m.edge", kind=kind, source=source)
        assert f"reference: {text}, 0 edge cases" in edgeattn("inspect", tmp_path / "m.edge").out


def test_junit_reports_an_error(wrong_bias, tmp_path):
    from edgeattn.validation.validate import validate_isolated

    bundle = Bundle.open(wrong_bias)
    report = validate_isolated(bundle, bundle.manifest.artifacts)
    write_junit(tmp_path / "r.xml", bundle, report)
    (suite,) = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")
    (error,) = suite.iter("error")
    assert error.get("message").startswith("snr_db")
