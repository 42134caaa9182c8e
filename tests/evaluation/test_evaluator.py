"""Evaluation batch by batch: the same result for any number of workers and interruptions."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn import progress
from edgeattn.errors import ArtifactError, SampleError, UsageError
from edgeattn.evaluation import checkpoint as checkpoints
from edgeattn.evaluation import dataset as datasets
from edgeattn.evaluation import evaluator
from edgeattn.evaluation.checkpoint import Checkpoint, Stored
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.evaluation.shards import Shard
from edgeattn.metrics.limits import Limit
from edgeattn.validation.validate import ValidationOptions, validate, validate_isolated

COUNT = 330
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(datasets, "BATCH_SIZE", 64)
    monkeypatch.setattr(checkpoints, "SAVE_INTERVAL_S", 0.0)


def write_data(path, labels=True):
    x = artifacts.samples(COUNT)
    x[:, 1] += np.arange(COUNT) / 4
    y = artifacts.dense(x).argmax(1)
    y[::7] = 1 - y[::7]
    np.savez(path, x=x, **({"y": y} if labels else {}))
    return path


@pytest.fixture
def bundle(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "test.npz")


def right(tensors):
    return {"score": artifacts.dense(tensors["x"])}


def noisy(tensors):
    """Outputs with errors that depend on the sample only."""
    score = artifacts.dense(tensors["x"])
    score[tensors["x"][:, 0] > 7] *= -1
    return {"score": score + np.float32(1e-3) * np.sin(tensors["x"][:, :1])}


def opener(function, tflite_function=right):
    """Opens runners of ``function`` in place of the ONNX file."""

    def open_function(artifact):
        chosen = tflite_function if artifact.format == "tflite" else function
        return FunctionRunner(chosen, artifact.inputs, artifact.outputs)

    return open_function


def evaluated(bundle, dataset, function=noisy, checkpoint=None):
    return validate(
        bundle,
        bundle.manifest.artifacts,
        opener(function),
        dataset=dataset,
        options=ValidationOptions(checkpoint=checkpoint),
    )


def text(report):
    return json.dumps(report.to_json(), sort_keys=True, allow_nan=False)


# Workers and interruptions


def test_the_number_of_workers_does_not_change_the_report(bundle, data):
    one, three = (
        validate_isolated(
            bundle,
            bundle.manifest.artifacts,
            dataset=open_dataset(data, bundle),
            options=ValidationOptions(jobs=jobs),
        )
        for jobs in (1, 3)
    )
    assert text(one) == text(three)
    (_, other) = one.artifacts
    assert other.task.results[0].samples == COUNT


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit(143)])
def test_interrupted_work_resumes(bundle, data, tmp_path, interrupt):
    whole = text(evaluated(bundle, open_dataset(data, bundle)))
    checkpoint, sizes = tmp_path / "checkpoint.npz", []

    def interrupted(tensors):
        sizes.append(len(tensors["x"]))
        if sizes.count(64) == 3:
            raise interrupt
        return noisy(tensors)

    dataset = open_dataset(data, bundle)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluated(bundle, dataset, interrupted, checkpoint)
    assert checkpoint.is_file()
    before, sizes[:] = list(sizes), []

    def counted(tensors):
        sizes.append(len(tensors["x"]))
        return noisy(tensors)

    assert text(evaluated(bundle, dataset, counted, checkpoint)) == whole
    # Two of the six batches were finished.
    assert (before.count(64), sizes.count(64), sizes.count(COUNT % 64)) == (3, 3, 1)
    # The finished work is stored until the caller has stored the report.
    sizes.clear()
    assert text(evaluated(bundle, dataset, counted, checkpoint)) == whole
    assert sizes.count(64) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"shards": np.arange(3)},
        {"shards": np.array([[0, 1.5]])},
        {"shards": np.array([[-1, 2]])},
        {"shards": np.array([[2, 2]])},
        {"shards": np.array([[0, 2], [1, 3]])},
        {"shards": np.zeros((0, 2), int)},
        {"stopped": np.frombuffer(b"[1]", np.uint8)},
        {"stopped": np.frombuffer(b'[[1, {"a": "b"}]]', np.uint8)},
        {"stopped": np.frombuffer(b'[[0, {"a": 1}]]', np.uint8)},
        {"stopped": np.frombuffer(b'{"a": 1}', np.uint8)},
        {"stopped": np.frombuffer(b"[" * 100_000, np.uint8)},
        {"key": np.frombuffer(b"\xff", np.uint8)},
    ],
)
def test_malformed_checkpoints(tmp_path, change):
    path = tmp_path / "checkpoint.npz"
    shards = (Shard(0, 3),)
    stored = Stored(shards, {shards[0]: {"onnx float32": "crashed"}}, {})
    Checkpoint(path, "key").save(stored)
    assert Checkpoint(path, "key").load() == stored
    np.savez(path, **{**np.load(path), **change})
    with pytest.raises(UsageError, match="is not an unfinished validation"):
        Checkpoint(path, "key").load()


def test_killed_work_resumes(bundle, data, tmp_path):
    """SIGKILL during the fourth batch, in a process of its own."""
    whole = text(evaluated(bundle, open_dataset(data, bundle)))
    checkpoint = tmp_path / "checkpoint.npz"
    program = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
        import test_evaluator as t
        from edgeattn.bundle.bundle import Bundle
        t.datasets.BATCH_SIZE, t.checkpoints.SAVE_INTERVAL_S = 64, 0.0
        sizes = []
        def killed(tensors):
            sizes.append(len(tensors["x"]))
            if sizes.count(64) == 4 and sys.argv[1] == "kill":
                os.kill(os.getpid(), 9)
            return t.noisy(tensors)
        bundle = Bundle.open(Path({str(bundle.path)!r}))
        dataset = t.open_dataset(Path({str(data)!r}), bundle)
        print(t.text(t.evaluated(bundle, dataset, killed, Path({str(checkpoint)!r}))))
    """)

    def run(mode):
        command = [sys.executable, "-c", program, mode]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("kill").returncode == -signal.SIGKILL
    assert checkpoint.is_file()
    assert np.load(checkpoint)["shards"].tolist() == [[0, 3]]
    resumed = run("resume")
    assert resumed.stdout.strip() == whole, resumed.stderr


def test_a_checkpoint_of_other_work_is_refused(bundle, data, tmp_path):
    path = tmp_path / "checkpoint.npz"
    Checkpoint(path, "another").save(Stored((Shard(0, 1),), {}, {}))
    with pytest.raises(UsageError, match="of other artifacts, data or limits"):
        evaluated(bundle, open_dataset(data, bundle), checkpoint=path)
    for content in (b"", b"not this"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not an unfinished validation"):
            evaluated(bundle, open_dataset(data, bundle), checkpoint=path)
    assert path.read_bytes() == b"not this"


def test_a_broken_artifact_stays_broken_after_resuming(bundle, data, tmp_path):
    checkpoint, dataset, sizes = tmp_path / "checkpoint.npz", open_dataset(data, bundle), []

    def breaks(tensors):
        sizes.append(len(tensors["x"]))
        if sizes.count(64) == 2:
            raise ArtifactError("out of breath")
        return right(tensors)

    def stops(tensors):
        if len(sizes) > 3 and len(tensors["x"]) < 64:
            raise KeyboardInterrupt
        return right(tensors)

    with pytest.raises(KeyboardInterrupt):
        validate(
            bundle,
            bundle.manifest.artifacts,
            opener(breaks, stops),
            dataset=dataset,
            options=ValidationOptions(checkpoint=checkpoint),
        )
    report = evaluated(bundle, dataset, right, checkpoint)
    _, other = report.artifacts
    assert (other.verdict, other.reason) == ("fail", "out of breath")
    assert other.task.results == ()


def test_samples_run_in_batches_of_several_sizes(bundle, data):
    """The fallback reference runs them one by one, as a device does."""
    sizes = {}

    class Recording(FunctionRunner):
        def run(self, tensors, batch_sizes=()):
            # The reference has 7 samples, a block of the dataset 64.
            if len(np.unique(tensors["x"], axis=0)) == 64:
                sizes.setdefault(self.outputs[0].shape[0], set()).add(tuple(batch_sizes))
            return super().run(tensors, batch_sizes)

    validate(
        bundle,
        bundle.manifest.artifacts,
        lambda artifact: Recording(right, artifact.inputs, artifact.outputs),
        dataset=open_dataset(data, bundle),
    )
    # The TFLite file with a batch size of 1 is the fallback reference.
    assert sizes == {1: {()}, None: {(1, 2, 3, 7, 64)}}


# Limits and failures


def test_limits_apply_with_keras_and_with_the_fallback_reference(bundle, data):
    dataset = open_dataset(data, bundle)

    class Keras:
        def __call__(self, inputs):
            return {**right(inputs), "another": inputs["x"]}

        def close(self):
            closed.append(True)

    closed = []
    _, with_fallback = evaluated(bundle, dataset).artifacts
    _, with_keras = evaluated(bundle, dataset.with_keras(Keras())).artifacts
    assert closed == [True]
    for report in (with_fallback, with_keras):
        failed = {(check.metric, check.data) for check in report.failed}
        assert ("tolerance_ratio", "test.npz") in failed
    assert with_fallback.task.reference_name.endswith("(fallback reference)")
    assert with_keras.task.reference_name == "Keras"
    assert with_keras.to_json()["checks"][-1]["data"] == "test.npz"


def test_without_labels_outputs_are_checked_and_the_task_is_not_run(bundle, tmp_path):
    dataset = open_dataset(write_data(tmp_path / "x.npz", labels=False), bundle)
    report = evaluated(bundle, dataset.with_keras(right), right)
    for item in report.artifacts:
        assert (item.verdict, item.stages["task"]) == ("pass", "not run")
        assert item.task.reason == "x.npz contains no labels."
        assert max(c.value for c in item.checks if c.data and c.metric == "max_abs_error") == 0


def test_an_output_of_another_shape_fails_the_artifact(bundle, data):
    def flat(tensors):
        score = artifacts.dense(tensors["x"])
        return {"score": score if len(score) < 50 else score[:, :1]}

    _, other = evaluated(bundle, open_dataset(data, bundle), flat).artifacts
    assert other.verdict == "fail"
    assert "(64, 1)" in other.reason


def test_without_the_fallback_reference_the_task_is_not_run(bundle, data):
    def stops(tensors):
        if len(tensors["x"]) == 64:
            raise ArtifactError("out of breath")
        return right(tensors)

    report = validate(
        bundle,
        bundle.manifest.artifacts,
        opener(right, stops),
        dataset=open_dataset(data, bundle),
    )
    fallback, other = report.artifacts
    assert fallback.verdict == "fail"
    assert "stopped: out of breath" in fallback.reason
    assert other.task.verdict == "not run"
    assert "fallback reference tflite float32 stopped: out of breath" in other.task.reason
    # It was to be compared on the data, and was not.
    assert other.verdict == "inconclusive"


def test_a_file_that_changes_while_it_is_read_is_refused(bundle, data):
    dataset = open_dataset(data, bundle)

    def touches(tensors):
        os.utime(data, ns=(1, 1))
        return right(tensors)

    with pytest.raises(SampleError, match="changed while it was read"):
        evaluated(bundle, dataset, touches)


def test_batch_size_is_bounded_by_memory(bundle):
    artifact = bundle.manifest.artifacts[0]
    assert datasets.batch_size(artifact, {"x": (10**6, 3)}) == 64
    # 16 MiB divided by 8 bytes for each of 500 x 1024 inputs and 8 bytes of outputs.
    assert datasets.batch_size(artifact, {"x": (10**6, 500, 1024)}) == 4


def test_progress_shows_finished_samples_and_the_remaining_time(bundle, data, monkeypatch):
    messages = []
    monkeypatch.setattr(evaluator.time, "monotonic", lambda: 0.0)
    with progress.shown_by(messages.append):
        evaluated(bundle, open_dataset(data, bundle))
    assert "reading test.npz: 64 of 330 samples" in messages
    assert "test.npz: 0 of 330 samples" in messages
    assert "test.npz: 330 of 330 samples, 0 s left" in messages
    assert evaluator._duration(89) == "89 s"
    assert evaluator._duration(600) == "10 min"
    assert evaluator._duration(7200) == "2.0 h"


# The command


def test_the_checkpoint_is_beside_the_bundle_unless_named(
    edgeattn, bundle, data, tmp_path, monkeypatch
):
    written, save = [], Checkpoint.save

    def recorded(self, *args):
        written.append(self.path.name)
        save(self, *args)

    monkeypatch.setattr(Checkpoint, "save", recorded)
    for options in (("--resume",), ("--resume-file", tmp_path / "named.npz"), ()):
        result = edgeattn("validate", bundle.path, "--data", data, "--jobs", 1, *options)
        assert result.code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.edge", "test.npz"]
    assert set(written) == {"dense.edge.test.unfinished.npz", "named.npz"}
    assert edgeattn("validate", bundle.path, "--resume").code == 2
    missing = edgeattn("validate", bundle.path, "--data", data, "--resume-file", "no/such/folder")
    assert missing.code == 2


def test_without_labels_and_keras_outputs_are_compared_with_the_fallback_reference(
    edgeattn, bundle, tmp_path
):
    unlabelled = write_data(tmp_path / "x.npz", labels=False)
    result = edgeattn("validate", bundle.path, "--data", unlabelled)
    assert result.code == 0
    name = "tflite float32 of this bundle (fallback reference)"
    assert result.out.startswith(f"On x.npz (330 samples), compared with {name}:\n")
    assert "task not run. x.npz contains no labels." in result.out


def test_a_loose_limit_does_not_make_a_wrong_artifact_the_reference(bundle, data):
    """An artifact that agrees with Keras only within the user's limits is no reference."""

    def off(tensors):
        return {"score": artifacts.dense(tensors["x"]) + 1}

    report = validate(
        bundle,
        bundle.manifest.artifacts,
        opener(right, off),
        dataset=open_dataset(data, bundle),
        options=ValidationOptions(limits=(Limit("atol", 2.0),)),
    )
    assert [item.stages["numbers"] for item in report.artifacts] == ["pass", "pass"]
    tflite, onnx = report.artifacts
    assert onnx.task.reason == "onnx float32 is the reference itself."
    assert tflite.task.reference_name == "onnx float32 of this bundle (fallback reference)"


def test_maps_of_earlier_versions() -> None:
    """A map that has two axes of queries, 2 x 3, and two of keys, 5 x 7, instead of one of each."""
    old = {"map": np.arange(4 * 6 * 35.0).reshape(4, 2, 3, 5, 7), "y": np.ones((4, 2, 3, 5, 7))}
    new = {"map": np.arange(4 * 6 * 35.0).reshape(4, 6, 35)}
    actual = evaluator._in_shapes_of(new, old, {"map"})
    np.testing.assert_array_equal(actual["map"], new["map"])
    assert actual["y"] is old["y"]
    with pytest.raises(ArtifactError, match="has the shape"):
        evaluator._in_shapes_of({"y": np.ones((4, 6, 35))}, old, {"map"})
    with pytest.raises(ArtifactError, match="has the shape"):
        evaluator._in_shapes_of({"map": np.ones((4, 35, 6))}, old, {"map"})
