"""Runners in a child process: what a crash of the runtime looks like from outside."""

import os
import signal
import threading

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.errors import ArtifactError
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner


def test_runtime_is_told(dense_bundle, child):
    for entry in dense_bundle.manifest.artifacts:
        runner = IsolatedRunner(dense_bundle.path, entry, child)
        assert runner.runtime.split()[0] in ("ai-edge-litert", "onnxruntime")
        assert (runner.inputs, runner.outputs) == (entry.inputs, entry.outputs)


def test_a_crash_while_running_is_one_line_and_the_next_artifact_runs(dense_bundle, child):
    first, second = dense_bundle.manifest.artifacts
    runner = IsolatedRunner(dense_bundle.path, first, child)
    os.kill(child._process.pid, signal.SIGSEGV)
    with pytest.raises(ArtifactError, match=r"died of SIGSEGV while running dense.float32.tflite"):
        runner.run({"x": samples()})
    with pytest.raises(ArtifactError, match="not loaded any more"):
        runner.run({"x": samples()})
    runner.close()
    got = IsolatedRunner(dense_bundle.path, second, child).run({"x": samples()})["score"]
    np.testing.assert_array_equal(got, dense(samples()))


def test_a_crash_while_loading(dense_bundle):
    (entry, *_) = dense_bundle.manifest.artifacts
    command = ["sh", "-c", "kill -ABRT $$"]
    with Worker(command=command) as child, pytest.raises(ArtifactError, match="SIGABRT while load"):
        IsolatedRunner(dense_bundle.path, entry, child)


def test_a_runtime_that_does_not_come_back(tmp_path, child):
    artifacts.write_slow_onnx(tmp_path / "m.onnx")
    entry = artifacts.artifact(tmp_path / "m.onnx")
    runner = IsolatedRunner(tmp_path, entry, child, timeout=1)
    with pytest.raises(ArtifactError, match="longer than 1 s while running"):
        runner.run({"x": samples()})


def test_killed_in_the_middle(tmp_path, child):
    artifacts.write_slow_onnx(tmp_path / "m.onnx")
    runner = IsolatedRunner(tmp_path, artifacts.artifact(tmp_path / "m.onnx"), child)
    timer = threading.Timer(0.3, child._process.kill)
    timer.start()
    with pytest.raises(ArtifactError, match="SIGKILL while running"):
        runner.run({"x": samples()})
    timer.join()


def test_a_file_that_is_wrong(tmp_path, child, dense_bundle):
    (entry, *_) = dense_bundle.manifest.artifacts
    (dense_bundle.path / entry.path).write_bytes(b"garbage")
    with pytest.raises(ArtifactError, match="cannot load"):
        IsolatedRunner(dense_bundle.path, entry, child)
