"""Devices that report results which they did not compute, or send malformed replies."""

from __future__ import annotations

from dataclasses import replace

import artifacts
import numpy as np
import pytest
from local_device import OPTIONS, LocalWorker, deploy, function_runner, serving

from edgeattn.deployment.on_device import steps
from edgeattn.errors import ArtifactError, DeviceError, RuntimeUnavailableError
from edgeattn.runners import isolated


class HostileWorker(LocalWorker):
    """A device that replaces the results of some functions: ``replies[name](result, arrays)``."""

    def __init__(self, **replies):
        super().__init__()
        self._replies = replies

    def call(self, function, arguments=None, tensors=None, *, timeout=None):
        result, arrays = super().call(function, arguments, tensors, timeout=timeout)
        reply = self._replies.get(function.partition(":")[2])
        return (result, arrays) if reply is None else reply(result, arrays)


def fail_with(error):
    def reply(result, arrays):
        raise error

    return reply


def changed(result, arrays):
    return result, {name: array + np.float32(0.01) for name, array in arrays.items()}


@pytest.fixture
def old_device(home, old):
    """The home folder of a device on which an old version serves."""
    assert deploy(old).state == "serves now"
    return home


def test_a_device_cannot_report_checks(old_device, new):
    """Only outputs come from the device: no verdict, value or limit."""
    worker = LocalWorker()
    result = deploy(new, worker)
    assert (result.state, result.verdict) == ("serves now", "pass")
    labels = [item.artifact.label for item in result.report.artifacts]
    assert labels == [artifact.label for artifact in new.manifest.artifacts]
    assert worker.calls.count("load_artifact") == len(labels)
    assert not hasattr(steps, "validate")


@pytest.mark.parametrize(
    ("reply", "metric"),
    [
        (changed, "tolerance_ratio"),
        (lambda result, arrays: (result, {}), "missing"),
        (lambda result, arrays: (result, {"other": arrays["score"]}), "missing"),
        (lambda result, arrays: (result, {"score": arrays["score"][:, :1]}), "wrong_shape"),
        (lambda result, arrays: (result, {"score": arrays["score"][:1]}), "wrong_shape"),
        (lambda result, arrays: (result, {"score": arrays["score"] * np.nan}), "non_finite"),
    ],
)
def test_outputs_that_are_not_those_of_keras_are_refused(old_device, old, new, reply, metric):
    result = deploy(new, HostileWorker(run_artifact=reply))
    assert (result.state, result.exit_code) == ("refused", 1)
    assert metric in {check.metric for check in result.report.artifacts[0].failed}
    assert serving(old_device) == artifacts.sha256(old.path / "manifest.json")


@pytest.mark.parametrize(
    ("error", "verdict", "code"),
    [
        (RuntimeUnavailableError("none here"), "not run", 5),
        (ArtifactError("cannot load"), "fail", 1),
    ],
)
def test_one_artifact_that_does_not_run(old_device, new, monkeypatch, error, verdict, code):
    """The others pass. An artifact that was selected and did not run proves nothing."""

    def runner(folder, artifact, worker, **_):
        if artifact.format == "onnx":
            raise error
        return function_runner(artifact)

    monkeypatch.setattr(isolated, "IsolatedRunner", runner)
    result = deploy(new)
    assert (result.state, result.verdict, result.exit_code) == ("refused", verdict, code)
    assert result.to_json()["verdict"] == verdict
    assert {item.verdict for item in result.report.artifacts} == {"pass", verdict}
    # Without that artifact the version is accepted.
    assert deploy(new, options=replace(OPTIONS, formats=("tflite",))).state == "serves now"


def test_every_selected_format_needs_a_runtime(old_device, new):
    checks = [{"format": "tflite", "state": "pass"}, {"format": "onnx", "state": "not installed"}]
    checks = [{**check, "reason": None} for check in checks]
    worker = HostileWorker(check_runtimes=lambda *_: (checks, {}))
    result = deploy(new, worker)
    assert result.exit_code == 5
    assert "No runtime for onnx files works" in result.error.message
    assert "--format tflite" in result.error.hint
    assert "add_piece" not in worker.calls


def test_complex_outputs_are_refused(old_device, new):
    worker = HostileWorker(
        run_artifact=lambda result, arrays: (result, {"score": arrays["score"] + 1j})
    )
    result = deploy(new, worker)
    assert (result.state, result.exit_code) == ("refused", 1)


BENCH = {"format": "onnx", "scheme": "float32", "p50_ms": 1.0}


@pytest.mark.parametrize(
    "bench",
    [
        *(None, [], {}, {"artifacts": 3}, {"artifacts": [3]}, {"artifacts": [{}]}),
        *(
            {"artifacts": [{**BENCH, **change}]}
            for change in (
                {"p50_ms": "1"},
                {"p50_ms": -1},
                {"p50_ms": float("nan")},
                {"p50_ms": True},
                {"scheme": "int8"},
                {"format": ["onnx"]},
                {"threads": 0},
                {"threads": "2"},
                {"threads": True},
            )
        ),
    ],
)
def test_malformed_measurements(old_device, old, new, monkeypatch, bench):
    monkeypatch.setattr("edgeattn.benchmark.latency.measure_latency", lambda *_, **__: Measured())
    worker = HostileWorker(measure=lambda *_: (bench, {}))
    result = deploy(new, worker, replace(OPTIONS, measure=True))
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "malformed reply: a measurement" in result.error.message
    assert serving(old_device) == artifacts.sha256(old.path / "manifest.json")


class Measured:
    def to_json(self):
        return {}


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("open_folder", None),
        ("open_folder", {"edgeattn": 7}),
        ("check_runtimes", [{"format": "onnx"}]),
        ("check_runtimes", 5),
        ("missing_files", {"../../etc/passwd": 0}),
        ("missing_files", {"0" * 64: 0}),
        ("missing_files", 5),
        ("add_version", "0001-000000000000"),
        ("add_version", "\x1b[2J"),
        ("add_version", None),
        ("load_artifact", None),
        ("prune", 3),
        ("prune", ["\x1b[2J"]),
    ],
)
def test_malformed_replies(old_device, new, step, reply):
    """One error of one device, whatever it sends, without internal errors."""
    result = deploy(new, HostileWorker(**{step: lambda *_: (reply, {})}))
    assert (result.state, result.exit_code) == ("failed", 5)
    assert isinstance(result.error, DeviceError)
    assert "\x1b" not in result.error.message


def test_a_failing_device_is_one_result(old_device, new):
    worker = HostileWorker(load_artifact=fail_with(DeviceError("gone")))
    assert deploy(new, worker).exit_code == 5
    assert worker.calls.count("load_artifact") == 1
