"""Runners in a worker process: crashes of the runtime are errors in the caller."""

import hashlib
import os
import signal
import sys
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.errors import ArtifactError
from edgeattn.process import worker as worker_module
from edgeattn.process.limits import SECONDS, RunLimits, limited_to
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner


def test_the_runtime_is_reported(dense_bundle, worker):
    for entry in dense_bundle.manifest.artifacts:
        runner = IsolatedRunner(dense_bundle.path, entry, worker)
        assert runner.runtime.split()[0] in ("ai-edge-litert", "onnxruntime")
        assert (runner.inputs, runner.outputs) == (entry.inputs, entry.outputs)


def test_after_a_crash_the_next_artifact_runs(dense_bundle, worker):
    first, second = dense_bundle.manifest.artifacts
    runner = IsolatedRunner(dense_bundle.path, first, worker)
    os.kill(worker._process.pid, signal.SIGSEGV)
    with pytest.raises(ArtifactError, match=r"died of SIGSEGV while running dense.float32.tflite"):
        runner.run({"x": samples()})
    with pytest.raises(ArtifactError, match="no longer loaded"):
        runner.run({"x": samples()})
    runner.close()
    got = IsolatedRunner(dense_bundle.path, second, worker).run({"x": samples()})["score"]
    np.testing.assert_array_equal(got, dense(samples()))


def test_a_crash_while_loading(dense_bundle):
    (entry, *_) = dense_bundle.manifest.artifacts
    command = ["sh", "-c", "kill -ABRT $$"]
    with (
        Worker(command=command) as worker,
        pytest.raises(ArtifactError, match="SIGABRT while load"),
    ):
        IsolatedRunner(dense_bundle.path, entry, worker)


def test_a_runtime_that_exceeds_its_time_limit(tmp_path, worker):
    artifacts.write_slow_onnx(tmp_path / "m.onnx")
    entry = artifacts.artifact(tmp_path / "m.onnx")
    runner = IsolatedRunner(tmp_path, entry, worker)
    with (
        limited_to(RunLimits(seconds=0.5)),
        pytest.raises(ArtifactError, match=r"longer than 0.5 s while running m.onnx.*--timeout"),
    ):
        runner.run({"x": samples()})


def test_calls_have_a_time_limit_by_default(dense_bundle):
    timeouts = []

    class RecordingWorker:
        def call(self, *_, timeout, memory):
            timeouts.append(timeout)
            return "runtime", {}

    (entry, *_) = dense_bundle.manifest.artifacts
    IsolatedRunner(dense_bundle.path, entry, RecordingWorker()).run({"x": samples()})
    assert timeouts == [SECONDS, SECONDS]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory")
def test_a_runtime_that_exceeds_its_memory_limit(tmp_path, worker):
    artifacts.write_huge_onnx(tmp_path / "m.onnx")
    runner = IsolatedRunner(tmp_path, artifacts.artifact(tmp_path / "m.onnx"), worker)
    with (
        limited_to(RunLimits(memory=2**30)),
        pytest.raises(ArtifactError, match=r"over 1024 MiB while running m.onnx.*--memory"),
    ):
        runner.run({"x": samples()})


def test_killed_while_running(tmp_path, worker, monkeypatch):
    artifacts.write_slow_onnx(tmp_path / "m.onnx")
    runner = IsolatedRunner(tmp_path, artifacts.artifact(tmp_path / "m.onnx"), worker)
    write = worker_module.write

    def write_and_kill(stream, parts):
        write(stream, parts)
        worker.kill()

    monkeypatch.setattr(worker_module, "write", write_and_kill)
    with pytest.raises(ArtifactError, match="SIGKILL while running"):
        runner.run({"x": samples()})


def test_a_malformed_file(tmp_path, worker, dense_bundle):
    (entry, *_) = dense_bundle.manifest.artifacts
    (dense_bundle.path / entry.path).write_bytes(b"garbage")
    garbage = replace(entry, sha256=hashlib.sha256(b"garbage").hexdigest())
    with pytest.raises(ArtifactError, match="cannot load"):
        IsolatedRunner(dense_bundle.path, garbage, worker)
