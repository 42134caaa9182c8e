"""Labelled samples: the reference they are compared with, what is excluded and what is refused."""

import hashlib
import json
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn import progress
from edgeattn.bundle.manifest import write_manifest
from edgeattn.errors import SampleError, UsageError
from edgeattn.evaluation import dataset as datasets
from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.evaluation.keras_reference import find_original
from edgeattn.validation.validate import validate

COUNT = 400


@pytest.fixture
def bundle(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def data(tmp_path):
    """Samples labelled with the class that the dense model predicts."""
    x = artifacts.samples(COUNT)
    x[:, 1] += np.arange(COUNT) / 4
    path = tmp_path / "test.npz"
    np.savez(path, x=x, y=artifacts.dense(x).argmax(1))
    return path


def right(tensors):
    return {"score": artifacts.dense(tensors["x"])}


def evaluated(bundle, dataset, function=right, tflite_function=right):
    """The report on ``function`` in place of the ONNX file and ``tflite_function`` in the other."""

    def open_function(artifact):
        chosen = tflite_function if artifact.format == "tflite" else function
        return FunctionRunner(chosen, artifact.inputs, artifact.outputs)

    return validate(bundle, bundle.manifest.artifacts, open_function, dataset=dataset)


# The reference


def test_a_float32_artifact_is_the_fallback_reference(bundle, data):
    report = evaluated(bundle, read_dataset(data, bundle))
    fallback, other = report.artifacts
    assert fallback.task.verdict == "not run"
    assert "is the reference itself" in fallback.task.reason
    assert other.task.verdict == "pass"
    assert other.task.reference_name == "tflite float32 of this bundle (fallback reference)"
    assert report.verdict == "pass"
    document = json.loads(json.dumps(other.to_json(), allow_nan=False))
    assert document["task"]["reference"] == other.task.reference_name
    assert document["task"]["outputs"][0]["samples"] == COUNT


def test_the_fallback_reference_must_agree_with_keras(bundle, data):
    def wrong(tensors):
        return {"score": artifacts.dense(tensors["x"]) + 1}

    report = evaluated(bundle, read_dataset(data, bundle), wrong, wrong)
    for item in report.artifacts:
        assert item.task.verdict == "not run"
        assert "no reference" in item.task.reason


def test_outputs_of_keras_are_preferred(bundle, data):
    sizes = []

    def keras(tensors):
        sizes.append(len(tensors["x"]))
        return right(tensors)

    dataset = read_dataset(data, bundle).with_keras_outputs(keras)
    assert sum(sizes) == COUNT
    report = evaluated(bundle, dataset)
    assert [item.task.reference_name for item in report.artifacts] == ["Keras", "Keras"]
    assert report.verdict == "pass"


def test_a_lost_score_fails_although_the_reference_passes(bundle, data):
    def lossy(tensors):
        score = artifacts.dense(tensors["x"])
        if len(score) > 50:
            score[::5] = score[::5, ::-1]
        return {"score": score}

    _, other = evaluated(bundle, read_dataset(data, bundle), lossy).artifacts
    assert (other.stages["numbers"], other.stages["task"]) == ("pass", "fail")
    assert other.verdict == "fail"


def test_too_few_samples_are_inconclusive(bundle, data):
    dataset = read_dataset(data, bundle)
    few = replace(
        dataset,
        inputs={"x": dataset.inputs["x"][:9]},
        labels={"score": dataset.labels["score"][:9]},
    )

    def noisy(tensors):
        return {"score": artifacts.dense(tensors["x"]) + np.float32(1e-6)}

    report = evaluated(bundle, few, noisy)
    assert report.verdict == "inconclusive"
    assert report.exit_code == 6
    assert report.artifacts[1].task.results[0].needed_samples > 1000


def test_keras_runs_batch_by_batch(bundle, data, monkeypatch):
    monkeypatch.setattr(datasets, "BATCH_SIZE", 64)
    sizes, messages = [], []

    def keras(tensors):
        sizes.append(len(tensors["x"]))
        return right(tensors)

    with progress.shown_by(messages.append):
        dataset = read_dataset(data, bundle).with_keras_outputs(keras)
    assert sizes == [64] * 6 + [16]
    assert "running Keras: 64 of 400 samples" in messages
    assert dataset.reference_outputs["score"].tolist() == right(dataset.inputs)["score"].tolist()


# What is excluded


def test_calibration_samples_are_excluded_and_counted(bundle, data):
    x = np.load(data)["x"]
    fingerprints = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in x[:30]]
    entries = [
        replace(item, achieved={"calibration": {"digests": fingerprints}})
        for item in bundle.manifest.artifacts
    ]
    write_manifest(bundle.path, replace(bundle.manifest, artifacts=tuple(entries)))
    calibrated = type(bundle).open(bundle.path)
    dataset = read_dataset(data, calibrated)
    assert len(dataset) == COUNT - 30
    assert dataset.notes == ("30 of 400 samples excluded, used for calibration",)
    np.savez(data, x=x[:30], y=np.zeros(30, int))
    with pytest.raises(SampleError, match="calibrated on all 30 samples"):
        read_dataset(data, calibrated)


def test_samples_of_the_reference_are_noted(bundle, tmp_path):
    x = artifacts.samples(7)
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(7, int))
    assert read_dataset(tmp_path / "d.npz", bundle).notes == (
        "7 of 7 samples are also in the bundle's reference",
    )


# What is refused


def test_samples_without_labels_are_refused(bundle, tmp_path):
    np.savez(tmp_path / "d.npz", x=artifacts.samples())
    with pytest.raises(SampleError, match="no labels"):
        read_dataset(tmp_path / "d.npz", bundle)
    np.save(tmp_path / "d.npy", artifacts.samples())
    with pytest.raises(SampleError, match="no labels"):
        read_dataset(tmp_path / "d.npy", bundle)


def test_the_original_model_is_recognized_by_its_hash(bundle, tmp_path):
    model = tmp_path / "hand.h5"
    model.write_bytes(b"weights")
    assert find_original(bundle, None) is None
    with pytest.raises(UsageError, match="another file than hand"):
        find_original(bundle, model)
    with pytest.raises(UsageError, match="No such file"):
        find_original(bundle, tmp_path / "none.h5")

    def change(manifest):
        manifest["model"]["sha256"] = hashlib.sha256(b"weights").hexdigest()

    artifacts.edit_manifest(bundle.path, change)
    known = type(bundle).open(bundle.path)
    assert find_original(known, None) == model
    assert find_original(known, model) == model


# The command


def test_validate_with_data(edgeattn, bundle, data):
    result = edgeattn("validate", bundle.path, "--data", data, "--json")
    assert result.code == 0
    tasks = [item["task"] for item in result.document["artifacts"]]
    assert [item["verdict"] for item in tasks] == ["not run", "pass"]
    result = edgeattn("validate", bundle.path, "--data", data)
    assert "Task: accuracy of score on test.npz (400 samples)" in result.out
    assert "Reference: tflite float32 of this bundle (fallback reference)" in result.out
    assert "is the reference itself" in result.out


def test_validate_writes_html_and_xml(edgeattn, bundle, data, tmp_path):
    pytest.importorskip("matplotlib")
    html, xml = tmp_path / "r.html", tmp_path / "r.xml"
    result = edgeattn(
        "validate", bundle.path, "--data", data, "--report", html, "--junit", xml, "--quiet"
    )
    assert result.code == 0
    assert html.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert xml.read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    "options",
    [
        ("--limit", "snr=3"),
        ("--limit", "snr_db"),
        ("--limit", "snr_db=much"),
        ("--model", "m.h5"),
        ("--data", "none.npz"),
        ("--report", "no/such/folder.html"),
        ("--bench", "b.json"),
        ("--vocabulary", "w.txt"),
        ("--report", "r.html", "--bench", "none.json"),
        ("--report", "r.html", "--vocabulary", "none.txt"),
        ("--resume",),
        ("--resume-file", "f"),
        ("--jobs", "0"),
    ],
)
def test_invalid_options_are_refused(edgeattn, bundle, options):
    result = edgeattn("validate", bundle.path, *options)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_limits_for_all_outputs_or_for_one(edgeattn, tmp_path):
    bias = artifacts.BIAS + np.float32(1 / 64)
    off = artifacts.write_dense_bundle(tmp_path / "off.edge", formats=("onnx",), bias=bias)
    assert edgeattn("validate", off.path).code == 1
    for limit, code in (("atol=0.02", 0), ("score:atol=0.02", 0), ("other:atol=0.02", 1)):
        assert edgeattn("validate", off.path, "--limit", limit).code == code
    both = ("--limit", "score:atol=0.001", "--limit", "atol=0.02")
    assert edgeattn("validate", off.path, *both).code == 1
