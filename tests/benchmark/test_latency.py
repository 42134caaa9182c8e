"""Percentiles, the turns of the artifacts, and runs that are void."""

from __future__ import annotations

import numpy as np
import pytest
from artifacts import rehash, write_dense_bundle

from edgeattn import progress
from edgeattn.benchmark import artifact_worker, latency
from edgeattn.benchmark.artifact_worker import ArtifactWorker
from edgeattn.benchmark.latency import Timing, measure_latency
from edgeattn.bundle.bundle import Bundle
from edgeattn.device import info
from edgeattn.errors import BundleError
from edgeattn.targets.target import local_target


def test_percentiles_require_enough_runs():
    def percentiles(count):
        timing = Timing(tuple(range(count, 0, -1)))
        return [timing.percentile_ms(percent) for percent in (50, 90, 99)]

    assert percentiles(0) == [None, None, None]
    assert percentiles(1) == [1e-6, None, None]
    assert percentiles(63)[1:] == [None, None]
    assert percentiles(64) == [32e-6, 58e-6, None]  # ranks 32 and ceil(57.6)
    assert percentiles(661)[2] is None
    assert percentiles(662) == [331e-6, 596e-6, 656e-6]  # ranks 331, ceil(595.8), ceil(655.38)


def measure(bundle, **options):
    return measure_latency(bundle, bundle.select(), local_target(bundle), **options)


def test_measure_latency(dense_bundle):
    report = measure(dense_bundle, threads=(1, 2), runs=70)
    assert report.exit_code == 0
    assert [(result.artifact.format, result.threads) for result in report.results] == [
        ("tflite", 1),
        ("onnx", 1),
        ("tflite", 2),
        ("onnx", 2),
    ]
    for result in report.results:
        document = result.to_json()
        assert (document["runs"], document["void"], document["reason"]) == (70, 0, None)
        assert 0 < document["p50_ms"] <= document["p90_ms"]
        assert document["p99_ms"] is None
        assert 0 < document["load_ms"] < document["cold_start_ms"]
        assert document["memory_bytes"] > 10**6
    assert report.to_json()["energy"] == "not measurable"


def test_artifacts_take_turns(dense_bundle, monkeypatch):
    monkeypatch.setattr(latency, "ROUND_RUNS", 3)
    turns = []
    with progress.shown_by(
        lambda message: turns.append(message.split(":")[0]) if " runs" in message else None
    ):
        measure(dense_bundle, runs=7)
    assert turns == ["tflite float32", "onnx float32"] * 3


def test_every_artifact_gets_one_round_after_the_time_limit(dense_bundle):
    report = measure(dense_bundle, runs=10**6, seconds=0)
    assert [len(result.timing.nanoseconds) for result in report.results] == [64, 64]


def test_artifact_that_cannot_be_loaded_does_not_affect_others(tmp_path):
    bundle = write_dense_bundle(tmp_path / "b.edge")
    bundle.artifact_path(bundle.manifest.artifacts[0]).write_bytes(b"no model")
    rehash(bundle.path)
    report = measure(Bundle.open(bundle.path), runs=5)
    broken, intact = report.results
    assert "cannot load" in broken.reason
    assert broken.to_json()["p50_ms"] is None
    assert len(intact.timing.nanoseconds) == 5
    assert report.exit_code == 3


def test_changed_bundle_is_refused(dense_bundle):
    file = dense_bundle.artifact_path(dense_bundle.manifest.artifacts[0])
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(BundleError, match="differs from the manifest"):
        measure(dense_bundle, runs=5)


class ThrottledWorker:
    """A worker on a board that is throttled during some calls of ``time_runs``."""

    def __init__(self, throttled):
        self._throttled = iter(throttled)

    def call(self, function, arguments=None, tensors=None, *, timeout=None, memory=None):
        if function.endswith(":load"):
            return {"runtime": "none", "load_ms": 1.0}, {}
        durations = np.full(arguments["count"], 5)
        throttled = next(self._throttled)
        conditions = {"throttled": throttled, "temperature_c": 60.0, "memory_bytes": 1}
        return conditions, {"nanoseconds": durations}


def measure_throttled(bundle, throttled, *, seconds):
    """Return the JSON result of 100 runs; ``throttled`` begins with the warm-up."""
    (artifact,) = bundle.select(("onnx",))
    worker = ArtifactWorker(artifact, 1, ThrottledWorker(throttled), "", bundle.reference())
    recorder = latency._Recorder(worker)
    latency._run_rounds([recorder], 100, seconds)
    return recorder.result().to_json()


def test_throttled_runs_are_void(dense_bundle):
    result = measure_throttled(dense_bundle, [True, False, True, False], seconds=10**6)
    assert (result["runs"], result["void"], result["throttled"]) == (100, 36, True)
    assert result["temperature_c"] == 60.0


def test_no_figures_if_the_board_is_always_throttled(dense_bundle):
    result = measure_throttled(dense_bundle, [True] * 9, seconds=0)
    assert (result["runs"], result["p50_ms"], result["void"]) == (0, None, 64)
    assert "void" in result["reason"]


def test_time_runs_reports_throttling(dense_bundle, monkeypatch):
    flags = iter([0, 0, 0, 0x40000])
    monkeypatch.setattr(info, "throttling_flags", lambda: next(flags))
    monkeypatch.setattr(info, "temperature_c", lambda: None)
    monkeypatch.setattr(artifact_worker, "_batches", [])
    monkeypatch.setattr(artifact_worker, "_models", {})
    (artifact,) = dense_bundle.select(("onnx",))
    inputs = {"x": dense_bundle.reference()["input/x"]}
    artifact_worker.load(str(dense_bundle.path), artifact.to_json(), 1, inputs)
    conditions, arrays = artifact_worker.time_runs(3, 10**6)
    assert (conditions["throttled"], arrays["nanoseconds"].shape) == (False, (3,))
    conditions, arrays = artifact_worker.time_runs(3, 0)
    assert (conditions["throttled"], arrays["nanoseconds"].shape) == (True, (1,))
