"""Verdicts on artifacts that know no more than a constant of some values of an output."""

from __future__ import annotations

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import SAMPLES, SYNTHETIC
from edgeattn.cli.artifact_lines import failure_lines
from edgeattn.deployment.on_device import update_module
from edgeattn.deployment.results import DeploymentResult
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.metrics.limits import Limit
from edgeattn.metrics.verdict import (
    FAIL,
    INCONCLUSIVE,
    LOST,
    NOT_PROVEN,
    PASS,
    RIGHT,
    combined,
)
from edgeattn.tensors import TensorSpec
from edgeattn.validation.recommendation import recommend_reported
from edgeattn.validation.report import Report
from edgeattn.validation.validate import ValidationOptions, validate

SCORE = TensorSpec("score", (None, 3), "float32")
MAP = TensorSpec("attention/a", (None, 4), "float32")
STEP = 8.0


def keras(tensors):
    """Three values, the second of which is a thousandth of the others, and a map."""
    x = np.asarray(tensors["x"], np.float64)
    weights = np.full((len(x), 4), 0.25)
    weights[:, 0] += 0.02 * np.tanh(x[:, 0])
    weights[:, 1] -= 0.02 * np.tanh(x[:, 0])
    return {"score": (x * [400.0, 0.4, 400.0]).astype("f4"), MAP.name: weights.astype("f4")}


def coarse(tensors):
    """One scale for all values, as in int8."""
    outputs = keras(tensors)
    return outputs | {"score": np.rint(outputs["score"] / STEP) * np.float32(STEP)}


def constant_map(tensors):
    return keras(tensors) | {MAP.name: np.full((len(tensors["x"]), 4), 0.25, np.float32)}


def bundle_of(folder, kind=SAMPLES, schemes=("float16", "int8"), inputs=None, rounding=None):
    folder.mkdir()
    options = {} if inputs is None else {"inputs": inputs}
    entries = artifacts.declared_artifacts(folder, schemes, (SCORE, MAP), **options)
    x = np.random.default_rng(1).uniform(-4, 4, (40, 3)).astype(np.float32)
    expected = keras({"x": x})
    arrays = {"input/x": x, "output/score": expected["score"], MAP.name: expected[MAP.name]}
    bundle = artifacts.write_bundle(folder, entries, arrays)
    bundle.manifest.reference["kind"] = kind
    if rounding is not None:
        bundle.manifest.reference["rounding"] = rounding
    return bundle


def validated(bundle, function=coarse, dataset=None, limits=()):
    """The reports on float16, which equals Keras, and on int8, which is ``function``."""
    return validate(
        Bundle(bundle.path, bundle.manifest),
        bundle.manifest.artifacts,
        lambda a: FunctionRunner(keras if a.scheme == "float16" else function, a.inputs, a.outputs),
        dataset=dataset,
        options=ValidationOptions(limits=limits),
    )


def data(bundle, folder, scale=1.0, **labels):
    """Other samples, the second value of which is ``scale`` times as large as in the reference."""
    x = np.random.default_rng(2).uniform(-4, 4, (300, 3)).astype(np.float32)
    x[:, 1] *= scale
    labels = {name: function(keras({"x": x})["score"]) for name, function in labels.items()}
    np.savez(folder / "test.npz", x=x, **labels)
    return open_dataset(folder / "test.npz", bundle).with_keras(keras)


def test_an_artifact_without_a_value_does_not_pass_and_is_not_recommended(tmp_path):
    bundle = bundle_of(tmp_path / "b.edge")
    float16, int8 = validated(bundle).artifacts
    assert (float16.verdict, int8.verdict) == (PASS, INCONCLUSIVE)
    assert int8.stages["numbers"] == INCONCLUSIVE
    assert int8.verdict_reason == LOST
    # The signal-to-noise ratio of the whole output is far above its limit of 20 dB.
    assert int8.headline["snr_db"] > 40
    assert recommend_reported((float16, int8), bundle.manifest).artifact.scheme == "float16"
    assert recommend_reported((int8,), bundle.manifest).artifact is None
    assert failure_lines(int8) == [
        f"onnx int8: {LOST}. lost_values of score is 1 (limit <= 0): index 1 of 3, no better than "
        "a constant, but changing in the reference. Make them an output of their own, choose a "
        "more precise scheme, or accept them with --limit score:lost_values=1"
    ]


def test_other_commands_name_the_reason(tmp_path):
    """`tune` of a candidate, and a device that refuses an update."""
    _, report = validated(bundle_of(tmp_path / "b.edge")).artifacts
    evaluation = pytest.importorskip("edgeattn_converters.tuning.evaluation")
    assert evaluation.shortfall(report) == "lost_values of score is 1 (limit <= 0)"
    result = DeploymentResult("pi", "refused", report=Report((report,)))
    assert update_module._reason(result) == "onnx int8: lost_values is 1."


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        (Limit("lost_values", 1.0, "score"), PASS),
        (Limit("lost_values", 1.0), PASS),
        (Limit("lost_values", 0.0, "score"), FAIL),
        (Limit("lost_values", 0.0, MAP.name), INCONCLUSIVE),
    ],
)
def test_a_limit_of_the_user_decides(tmp_path, limit, verdict):
    _, report = validated(bundle_of(tmp_path / "b.edge"), limits=(limit,)).artifacts
    assert report.verdict == verdict
    assert [check.metric for check in report.failed] == ["lost_values"] * (verdict == FAIL)


def test_a_map_that_is_the_same_for_every_sample(tmp_path):
    """Its weights change by 0.04, which is less than the limit of 0.05."""
    _, report = validated(bundle_of(tmp_path / "b.edge"), constant_map).artifacts
    assert (report.stages["numbers"], report.stages["attention"]) == (PASS, INCONCLUSIVE)
    (line,) = failure_lines(report)
    assert "lost_values of attention/a is 1 (limit <= 0): head 0 of 1, no better" in line


def test_synthetic_samples_prove_nothing(tmp_path):
    _, report = validated(bundle_of(tmp_path / "b.edge", SYNTHETIC)).artifacts
    assert (report.verdict, report.verdict_reason) == (INCONCLUSIVE, NOT_PROVEN)


def test_the_state_of_a_stream_is_no_output(tmp_path):
    state = TensorSpec("x", (None, 3), "float32", state="score")
    bundle = bundle_of(tmp_path / "b.edge", inputs=(state,))
    _, report = validated(bundle).artifacts
    assert report.verdict == PASS


def test_rounding_of_weights_says_nothing_about_single_values(tmp_path):
    """An artifact with the errors of rounded weights is converted right, whatever it loses."""
    divergence = {"max_abs_error": 0.1, "jensen_shannon": 1.0, "worst_jensen_shannon": 1.0}
    rounding = {"int8": {"score": {"snr_db": 40.0}, MAP.name: divergence}}
    bundle = bundle_of(tmp_path / "b.edge", rounding=rounding)
    _, report = validated(bundle).artifacts
    assert (report.conversion, report.verdict) == (RIGHT, INCONCLUSIVE)


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, INCONCLUSIVE), (40.0, PASS)])
def test_the_data_of_the_user_decide(tmp_path, scale, verdict):
    bundle = bundle_of(tmp_path / "b.edge")
    _, report = validated(bundle, dataset=data(bundle, tmp_path, scale)).artifacts
    assert report.verdict == verdict
    lines = failure_lines(report)
    assert len(lines) == (verdict == INCONCLUSIVE)
    assert all("lost_values of score on test.npz is 1" in line for line in lines)


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        # The class is that of the largest value, which is never the lost one.
        (lambda score: score.argmax(-1), PASS),
        # R2 is that of all values together.
        (lambda score: score, INCONCLUSIVE),
    ],
)
def test_the_answers_of_a_task_decide(tmp_path, labels, verdict):
    bundle = bundle_of(tmp_path / "b.edge")
    dataset = data(bundle, tmp_path, y=labels)
    limits = (Limit("max_drop", 0.2),)
    float16, int8 = validated(bundle, dataset=dataset, limits=limits).artifacts
    assert int8.task.verdict == PASS
    assert combined((float16.verdict, int8.verdict)) == int8.verdict == verdict
