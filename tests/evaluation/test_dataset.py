"""Labelled samples: the reference they are compared with, what is excluded and what is refused."""

import hashlib
import json
import re
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn import progress
from edgeattn.bundle.manifest import write_manifest
from edgeattn.errors import SampleError, UsageError
from edgeattn.evaluation import dataset as datasets
from edgeattn.evaluation import keras_reference
from edgeattn.evaluation.file_dataset import open_dataset, read_dataset
from edgeattn.evaluation.keras_reference import find_original
from edgeattn.tensors import TensorSpec
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
    assert other.stages["task"] == "fail"
    assert "test.npz" in {check.data for check in other.failed}
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
    assert report.artifacts[1].task.results[0].needed_samples == 183


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
    with pytest.raises(SampleError, match="calibrated on every sample in"):
        read_dataset(data, calibrated)


def test_samples_of_the_reference_are_noted(bundle, tmp_path):
    x = artifacts.samples(7)
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(7, int))
    assert read_dataset(tmp_path / "d.npz", bundle).notes == (
        "samples that the bundle's reference contains: 7 of 7",
    )


def test_repeated_samples_are_noted(bundle, tmp_path):
    """Nine samples, forty times each, say no more than nine."""
    x = np.tile(artifacts.samples(9) + 100, (40, *[1] * (artifacts.samples(9).ndim - 1)))
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(len(x), int))
    assert read_dataset(tmp_path / "d.npz", bundle).notes == (
        "samples that repeat others: 351 of 360; the intervals of the task assume that samples are "
        "independent",
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
    with pytest.raises(UsageError, match="another model than hand"):
        find_original(bundle, model)
    with pytest.raises(UsageError, match="No such file"):
        find_original(bundle, tmp_path / "none.h5")

    def change(manifest):
        manifest["model"]["sha256"] = hashlib.sha256(b"weights").hexdigest()

    artifacts.edit_manifest(bundle.path, change)
    known = type(bundle).open(bundle.path)
    assert find_original(known, None) == model
    assert find_original(known, model) == model


def test_an_original_folder_is_recognized_by_its_files(bundle, tmp_path):
    """The SHA-256 covers the names, sizes and contents of the files, in order of the names."""
    folder = tmp_path / "exported"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    expected = hashlib.sha256(b"saved_model.pb\x005\0graphvariables/data\x007\0weights")

    def change(manifest):
        manifest["model"].update(file="exported", sha256=expected.hexdigest())

    artifacts.edit_manifest(bundle.path, change)
    known = type(bundle).open(bundle.path)
    assert find_original(known, folder) == folder
    assert find_original(known, None) == folder
    (folder / "variables" / "data").write_bytes(b"Weights")
    assert find_original(known, None) is None
    with pytest.raises(UsageError, match="another model than exported"):
        find_original(known, folder)
    with pytest.raises(UsageError, match="another model than"):
        find_original(known, tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"lables": np.zeros(7)}, "nothing uses: 'lables'"),
        ({"y/other": np.zeros(7)}, "nothing uses: 'y/other'"),
        ({"y": np.zeros(7), "ids": np.arange(7)}, "nothing uses: 'ids'"),
        ({"y": np.array(["cat"] * 7)}, "not numbers"),
        ({"y": np.full(7, 2)}, "from 2 to 2"),
        ({"score": np.zeros(6)}, "7 samples, and the labels 'score'"),
    ],
)
def test_arrays_that_are_neither_inputs_nor_labels_are_refused(bundle, tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", x=artifacts.samples(7), **arrays)
    with pytest.raises(SampleError, match=message):
        open_dataset(tmp_path / "d.npz", bundle)


def test_labels_under_the_name_of_their_output(bundle, tmp_path):
    np.savez(tmp_path / "d.npz", x=artifacts.samples(7), score=np.arange(7) % 2, ids=np.arange(7))
    dataset = open_dataset(tmp_path / "d.npz", bundle, ignore=("ids",))
    (batch,) = dataset.batches()
    assert batch.labels["score"].tolist() == [0, 1, 0, 1, 0, 1, 0]


# The command


@pytest.fixture
def two_outputs(tmp_path):
    """``score`` and ``other``, which is its negative."""
    folder = tmp_path / "two.edge"
    folder.mkdir()
    outputs = (artifacts.Y, TensorSpec("other", artifacts.Y.shape, "float32"))
    entries = []
    for scheme in ("float32", "dynamic_int8"):
        path = folder / f"m.{scheme}.onnx"
        artifacts.write_dense_onnx(path, outputs=("score", "other"))
        entries.append(artifacts.artifact(path, scheme=scheme, outputs=outputs))
    x = artifacts.samples()
    score = artifacts.dense(x)
    arrays = {"input/x": x, "output/score": score, "output/other": -score}
    return artifacts.write_bundle(folder, entries, arrays)


def test_validate_with_labels_named_as_the_outputs(edgeattn, two_outputs, tmp_path):
    x = artifacts.samples(COUNT)
    labels = artifacts.dense(x).argmax(1)
    np.savez(tmp_path / "d.npz", x=x, score=labels, other=1 - labels)
    result = edgeattn("validate", two_outputs.path, "--data", tmp_path / "d.npz", "--json")
    assert result.code == 0
    _, item = result.document["artifacts"]
    assert {task["output"]: task["reference"] for task in item["task"]["outputs"]} == {
        "score": 1.0,
        "other": 1.0,
    }


def test_validate_refuses_arrays_that_nothing_uses(edgeattn, bundle, data, tmp_path):
    np.savez(tmp_path / "more.npz", **np.load(data), ids=np.arange(COUNT))
    command = ("validate", bundle.path, "--data", tmp_path / "more.npz")
    result = edgeattn(*command)
    assert result.code == 2
    assert "nothing uses: 'ids'. Labels can be of these outputs: score." in result.err
    assert "--ignore ids" in result.err
    assert edgeattn(*command, "--ignore", "ids").code == 0
    # The labels, too, can be left out.
    result = edgeattn(*command, "--ignore", "ids", "--ignore", "y")
    assert (result.code, "contains no labels" in result.out) == (0, True)
    result = edgeattn(*command, "--ignore", "ids", "--ignore", "nosuch")
    assert result.code == 2
    assert "--ignore nosuch: no such array in more.npz; the arrays: x, y, ids." in result.err


@pytest.mark.parametrize("limit", ["nosuch:snr_db=35", "attention_jsd=0.1", "top1_agreement=0.9"])
def test_limits_without_effect_are_refused(edgeattn, bundle, limit):
    result = edgeattn("validate", bundle.path, "--limit", limit)
    assert result.code == 2
    assert "Traceback" not in result.err


@pytest.mark.parametrize("limit", ["max_drop=0.1", "retention=0.9"])
def test_two_limits_of_the_task_are_refused(edgeattn, bundle, data, limit):
    command = ("validate", bundle.path, "--data", data, "--max-drop", 0.1)
    result = edgeattn(*command, "--limit", limit)
    assert result.code == 2
    assert "--max-drop has no effect beside --limit" in result.err
    assert edgeattn(*command, "--limit", f"score:{limit}").code == 0


def test_data_without_any_reference_is_refused(edgeattn, two_outputs, data):
    artifacts.edit_manifest(two_outputs.path, lambda m: m["artifacts"].pop(0))
    (two_outputs.path / "m.float32.onnx").unlink()
    result = edgeattn("validate", two_outputs.path, "--data", data)
    assert result.code == 2
    assert "--data has no reference" in result.err


def test_data_without_anything_to_compare_is_refused(edgeattn, bundle, data):
    """The only artifact would be the reference of itself."""
    command = ("validate", bundle.path, "--data", data)
    result = edgeattn(*command, "--format", "tflite")
    assert result.code == 2
    assert "tflite float32 would be compared with itself" in result.err
    # The other one is compared with the first.
    assert edgeattn(*command, "--format", "onnx").code == 0


def test_the_table_shows_the_errors_on_the_data(edgeattn, bundle, data):
    """The table, its title and the JSON are about the user's samples; the reference is second."""
    result = edgeattn("validate", bundle.path, "--data", data)
    title, *table = result.out.splitlines()[:4]
    header, fallback, onnx = (re.split("  +", line) for line in table)
    assert title.startswith("On test.npz (400 samples), compared with tflite float32")
    errors = slice(header.index("max abs error"), header.index("SNR (dB)") + 1)
    assert fallback[errors] == ["-", "-"]
    assert onnx[errors] == ["0", "inf"]
    assert "Also compared with Keras on the bundle's reference, 7 samples (by hand)" in result.out
    document = edgeattn("validate", bundle.path, "--data", data, "--json").document
    headline = document["artifacts"][1]["headline"]
    assert (headline["data"], headline["max_abs_error"]) == ("test.npz", 0.0)
    document = edgeattn("validate", bundle.path, "--json").document
    assert document["artifacts"][1]["headline"]["data"] is None


def test_validate_with_data(edgeattn, bundle, data):
    result = edgeattn("validate", bundle.path, "--data", data, "--json")
    assert result.code == 0
    tasks = [item["task"] for item in result.document["artifacts"]]
    assert [item["verdict"] for item in tasks] == ["not run", "pass"]
    result = edgeattn("validate", bundle.path, "--data", data)
    assert "Task: accuracy of score on test.npz (400 samples)" in result.out
    assert "Reference: tflite float32 of this bundle (fallback reference)" in result.out
    assert "is the reference itself" in result.out


def test_an_inconclusive_result_names_the_max_drop_with_which_it_passes(edgeattn, bundle, tmp_path):
    x = artifacts.samples(100)
    x[:, 1] += np.arange(100) / 4
    data = tmp_path / "few.npz"
    np.savez(data, x=x, y=artifacts.dense(x).argmax(1))
    result = edgeattn("validate", bundle.path, "--data", data)
    assert result.code == 6
    # (1 - p)^100 = 2.5%, and (1 - 0.02)^n = 2.5%.
    assert "0.00% of the answers changed (95% interval 0.00 to 3.62, 2.00 allowed)" in result.out
    assert "These samples pass with --max-drop 0.0363; about 183 samples would" in result.out
    assert edgeattn("validate", bundle.path, "--data", data, "--max-drop", "0.0363").code == 0
    assert edgeattn("validate", bundle.path, "--data", data, "--max-drop", "0.0362").code == 6
    output = result.out.splitlines()
    assert any("changed (%)" in line and "decided by" in line for line in output)


def test_validate_writes_html_and_xml(edgeattn, bundle, data, tmp_path):
    pytest.importorskip("matplotlib")
    html, xml = tmp_path / "r.html", tmp_path / "r.xml"
    result = edgeattn(
        "validate", bundle.path, "--data", data, "--report", html, "--junit", xml, "--quiet"
    )
    assert result.code == 0
    page = html.read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    own = page.index("test.npz, 400 samples, compared with tflite float32")
    assert own < page.index("Also compared with Keras on")
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
        ("--report", "report.pdf"),
        ("--bench", "b.json"),
        ("--vocabulary", "w.txt"),
        ("--report", "r.html", "--bench", "none.json"),
        ("--report", "r.html", "--vocabulary", "none.txt"),
        ("--resume",),
        ("--resume-file", "f"),
        ("--jobs", "0"),
        ("--limit", "nosuch:snr_db=3"),
        ("--limit", "retention=0.9"),
        ("--max-drop", "0.05"),
        ("--max-drop", "0"),
        ("--junit-inconclusive", "failure"),
        ("--limit", "snr_db=3", "--limit", "snr_db=4"),
        ("--ignore", "ids"),
        ("--custom-objects", "layers.py"),
        ("--architecture", "model.json"),
        ("--trust", "0" * 64),
        ("--ssh-config", "config"),
        ("--scheme", "float32", "--scheme", "int8"),
    ],
)
def test_invalid_options_are_refused(edgeattn, bundle, options):
    result = edgeattn("validate", bundle.path, *options)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_additions_to_the_report_without_effect_are_refused(edgeattn, bundle, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "words.txt").write_text("the\na\n")
    result = edgeattn("validate", bundle.path, "--report", "r.html", "--vocabulary", "words.txt")
    assert result.code == 2
    assert "no artifact has an attention map over tokens" in result.err
    latency = {"format": "tflite", "scheme": "float32", "threads": 1, "runs": 1, "p50_ms": 2.0}
    (tmp_path / "bench.json").write_text(json.dumps({"artifacts": [latency]}))
    command = ("validate", bundle.path, "--report", "r.html", "--bench", "bench.json")
    result = edgeattn(*command, "--format", "onnx")
    assert result.code == 2
    assert "no latencies of the selected artifacts" in result.err
    assert edgeattn(*command).code == 0


def test_mistakes_in_the_data_are_reported_before_keras_starts(
    edgeattn, bundle, tmp_path, monkeypatch
):
    model = tmp_path / "hand.h5"
    model.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    artifacts.edit_manifest(bundle.path, lambda m: m["model"].update(sha256=sha256))
    monkeypatch.setattr(keras_reference, "open_keras", lambda *_: pytest.fail("Keras was opened"))
    x = artifacts.samples(7)
    for arrays, message in (
        ({"x": x[:, :2]}, "expected the shape"),
        ({"x": np.where(x > 0, np.nan, x)}, "NaN or infinite"),
        ({"x": x, "y": np.array(["a"] * 7)}, "not numbers"),
        ({"x": x, "y": np.full(7, 5)}, "has 2 classes"),
        ({"x": x, "labels": np.zeros(7)}, "nothing uses"),
    ):
        np.savez(tmp_path / "wrong.npz", **arrays)
        result = edgeattn("validate", bundle.path, "--data", tmp_path / "wrong.npz")
        assert result.code == 2
        assert message in result.err


def test_limits_for_all_outputs_or_for_one(edgeattn, tmp_path):
    bias = artifacts.BIAS + np.float32(1 / 64)
    off = artifacts.write_dense_bundle(tmp_path / "off.edge", formats=("onnx",), bias=bias)
    assert edgeattn("validate", off.path).code == 1
    for limit, code in (("atol=0.02", 0), ("score:atol=0.02", 0), ("other:atol=0.02", 2)):
        assert edgeattn("validate", off.path, "--limit", limit).code == code
    both = ("--limit", "score:atol=0.001", "--limit", "atol=0.02")
    assert edgeattn("validate", off.path, *both).code == 1
