"""Attention maps, and outputs that never change, on the user's data."""

import json

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.evaluation import checkpoint as checkpoints
from edgeattn.evaluation import dataset as datasets
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.metrics.limits import Limit
from edgeattn.tensors import TensorSpec
from edgeattn.validation.validate import ValidationOptions, validate

STEPS = 5
MAP = TensorSpec("attention/a", (None, STEPS), "float32")
COUNT = 200


def weights(x):
    """Maps with most of the weight on a step that depends on the sample."""
    maps = np.full((len(x), STEPS), 0.05, np.float32)
    maps[np.arange(len(x)), np.abs(x[:, 0] * 4).astype(int) % STEPS] = 0.8
    return maps


def right(tensors):
    x = tensors["x"]
    return {"score": artifacts.dense(x), MAP.name: weights(x)}


def uniform_on_seven(tensors):
    """Equal weights on 7 of the 200 samples, none of which is in the reference."""
    outputs = right(tensors)
    wrong = (tensors["x"][:, 1] * 4).astype(int) % 29 == 11
    wrong &= tensors["x"][:, 1] > 50
    outputs[MAP.name][wrong] = 1 / STEPS
    return outputs


@pytest.fixture
def bundle(tmp_path):
    """Two files with one output and one map; functions run in their place."""
    folder = tmp_path / "maps.edge"
    folder.mkdir()
    entries = artifacts.declared_artifacts(folder, ("float32", "int8"), (artifacts.Y, MAP))
    x = artifacts.samples()
    reference = {"input/x": x, "output/score": artifacts.dense(x), MAP.name: weights(x)}
    return artifacts.write_bundle(folder, entries, reference)


@pytest.fixture
def data(tmp_path):
    x = artifacts.samples(COUNT)
    x[:, 1] = np.arange(COUNT) / 4 + 50
    np.savez(tmp_path / "test.npz", x=x)
    assert (x[:, 1] * 4).astype(int).tolist() == list(range(200, 200 + COUNT))
    return tmp_path / "test.npz"


def evaluated(bundle, dataset, function, checkpoint=None, limits=()):
    def open_function(artifact):
        chosen = right if artifact.scheme == "float32" else function
        return FunctionRunner(chosen, artifact.inputs, artifact.outputs)

    return validate(
        bundle,
        bundle.manifest.artifacts,
        open_function,
        dataset=dataset,
        options=ValidationOptions(limits, checkpoint=checkpoint),
    )


@pytest.mark.parametrize("with_keras", [True, False])
def test_seven_uniform_maps_of_200_fail(bundle, data, with_keras):
    dataset = open_dataset(data, bundle)
    if with_keras:
        dataset = dataset.with_keras(right)
    sound = evaluated(bundle, dataset, right)
    assert sound.verdict == "pass"
    _, item = evaluated(bundle, dataset, uniform_on_seven).artifacts
    wrong = np.isclose(uniform_on_seven(dict(np.load(data)))[MAP.name], 1 / STEPS).all(1)
    assert wrong.sum() == 7
    assert item.stages["attention"] == "fail"
    assert {check.data for check in item.failed} == {"test.npz"}
    assert {check.metric for check in item.failed} >= {
        "max_abs_error",
        "exceeding_maps",
        "worst_jensen_shannon",
    }
    name = "Keras" if with_keras else "onnx float32 of this bundle (fallback reference)"
    assert item.task.reference_name == name
    assert item.headline["attention_max_abs_error"] == pytest.approx(0.6)
    assert item.to_json()["headline"]["data"] == "test.npz"


@pytest.mark.parametrize(("limit", "verdict"), [(None, "pass"), (0.05, "fail"), (0.1, "pass")])
def test_a_limit_of_the_user_holds_for_every_sample(bundle, data, limit, verdict):
    """One of 200 maps is off by 0.06, where int8 allows 0.05."""

    def off(tensors):
        outputs = right(tensors)
        first = tensors["x"][:, 1] == 50.0
        outputs[MAP.name][first] = outputs[MAP.name][first] * 0.9 + 0.02
        return outputs

    limits = () if limit is None else (Limit("attention_max_abs", limit),)
    report = evaluated(bundle, open_dataset(data, bundle), off, limits=limits)
    _, item = report.artifacts
    assert item.headline["attention_max_abs_error"] == pytest.approx(0.06, abs=1e-6)
    assert item.verdict == verdict


def test_maps_survive_an_interruption(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "BATCH_SIZE", 32)
    monkeypatch.setattr(checkpoints, "SAVE_INTERVAL_S", 0.0)
    dataset, calls = open_dataset(data, bundle), []
    whole = evaluated(bundle, dataset, uniform_on_seven)

    def interrupted(tensors):
        calls.append(len(tensors["x"]))
        if calls.count(32) == 4:
            raise KeyboardInterrupt
        return uniform_on_seven(tensors)

    checkpoint = tmp_path / "c.npz"
    with pytest.raises(KeyboardInterrupt):
        evaluated(bundle, dataset, interrupted, checkpoint)
    resumed = evaluated(bundle, dataset, uniform_on_seven, checkpoint)
    assert json.dumps(resumed.to_json()) == json.dumps(whole.to_json())


def test_a_reference_without_maps_is_noted(bundle, data):
    dataset = open_dataset(data, bundle).with_keras(
        lambda inputs: {"score": artifacts.dense(inputs["x"])}
    )
    warnings = evaluated(bundle, dataset, right).warnings
    missing = "'attention/a' of onnx int8 was not compared on test.npz: Keras has none"
    assert missing in warnings


def test_outputs_that_never_change_are_noted(bundle, data):
    def dead(tensors):
        return {**right(tensors), "score": np.zeros_like(artifacts.dense(tensors["x"]))}

    dataset = open_dataset(data, bundle)
    assert evaluated(bundle, dataset, right).warnings == ()
    # Of Keras: the artifact is right.
    report = evaluated(bundle, dataset.with_keras(dead), right)
    assert "output 'score' of Keras is the same for all 200 samples (test.npz)" in report.warnings
    # Of the artifact only, in the reference and on the data.
    report = evaluated(bundle, dataset.with_keras(right), dead)
    assert report.warnings == (
        "output 'score' of onnx int8 is the same for all 7 samples (by hand), that of Keras is not",
        "output 'score' of onnx int8 is the same for all 200 samples (test.npz), that of Keras is "
        "not",
    )
    assert report.to_json()["warnings"] == list(report.warnings)


def test_samples_on_which_keras_gives_nan_are_left_out_and_counted(bundle, tmp_path):
    x = artifacts.samples(COUNT)
    np.savez(tmp_path / "some.npz", x=x, y=artifacts.dense(x).argmax(1))

    def keras(tensors):
        outputs = right(tensors)
        outputs["score"][tensors["x"][:, 0] == x[3, 0]] = np.nan
        return outputs

    dataset = open_dataset(tmp_path / "some.npz", bundle).with_keras(keras)
    count = int((x[:, 0] == x[3, 0]).sum())
    report = evaluated(bundle, dataset, right)
    assert report.verdict == "pass"
    assert report.warnings == (
        f"left out for 'score', because Keras gives NaN: {count} of 200 samples (some.npz)",
    )
    assert {item.task.results[0].samples for item in report.artifacts} == {COUNT - count}

    # NaN where Keras has none is an error.
    report = evaluated(bundle, open_dataset(tmp_path / "some.npz", bundle).with_keras(right), keras)
    _, item = report.artifacts
    assert ("non_finite", "some.npz") in {(check.metric, check.data) for check in item.failed}


def test_equal_samples_say_nothing_about_an_output(bundle, tmp_path):
    x = np.repeat(artifacts.samples(1), 20, axis=0)
    np.savez(tmp_path / "same.npz", x=x)
    dataset = open_dataset(tmp_path / "same.npz", bundle)
    # Only of their number: 1 - 0.025 ** (1 / 20) = 0.168.
    (warning,) = evaluated(bundle, dataset, right).warnings
    assert warning.startswith("integer artifacts were compared on 20 samples: up to 17% of other")
