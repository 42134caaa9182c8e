"""Timings: when a percentile is told, that artifacts take turns, and what makes runs void."""

from __future__ import annotations

import numpy as np
import pytest
from artifacts import rehash, write_dense_bundle

from edgeattn import progress
from edgeattn.benchmark import latency as benchmark
from edgeattn.benchmark.latency import Timing, measure_latency
from edgeattn.bundle.bundle import Bundle
from edgeattn.device import info as device
from edgeattn.errors import BundleError
from edgeattn.targets.target import local_target


def test_percentiles_are_told_where_enough_runs_support_them():
    def told(count):
        timing = Timing(tuple(range(count, 0, -1)))
        return [timing.percentile_ms(percent) for percent in (50, 90, 99)]

    assert told(0) == [None, None, None]
    assert told(1) == [1e-6, None, None]
    assert told(63)[1:] == [None, None]
    assert told(64) == [32e-6, 58e-6, None]  # ranks 32 and ceil(57.6)
    assert told(661)[2] is None
    assert told(662) == [331e-6, 596e-6, 656e-6]  # ranks 331, ceil(595.8), ceil(655.38)


def test_bench(dense_bundle):
    found = measure_latency(
        dense_bundle, dense_bundle.select(), local_target(dense_bundle), threads=(1, 2), runs=70
    )
    assert found.exit_code == 0
    assert [(m.artifact.format, m.threads) for m in found.results] == [
        ("tflite", 1),
        ("onnx", 1),
        ("tflite", 2),
        ("onnx", 2),
    ]
    for item in found.results:
        told = item.to_json()
        assert (told["runs"], told["void"], told["reason"]) == (70, 0, None)
        assert 0 < told["p50_ms"] <= told["p90_ms"]
        assert told["p99_ms"] is None
        assert 0 < told["load_ms"] < told["cold_start_ms"]
        assert told["memory_bytes"] > 10**6
    assert found.to_json()["energy"] == "not measurable"


def test_artifacts_take_turns(dense_bundle, monkeypatch):
    monkeypatch.setattr(benchmark, "ROUND_RUNS", 3)
    seen = []
    with progress.shown_by(
        lambda line: seen.append(line.split(":")[0]) if " runs" in line else None
    ):
        measure_latency(dense_bundle, dense_bundle.select(), local_target(dense_bundle), runs=7)
    assert seen == ["tflite float32", "onnx float32"] * 3


def test_it_ends_in_time_and_every_artifact_has_had_a_turn(dense_bundle):
    found = measure_latency(
        dense_bundle, dense_bundle.select(), local_target(dense_bundle), runs=10**6, seconds=0
    )
    assert [len(item.timing.nanoseconds) for item in found.results] == [64, 64]


def test_one_artifact_that_cannot_be_loaded_spoils_no_other(tmp_path):
    made = write_dense_bundle(tmp_path / "b.edge")
    file = made.artifact_path(made.manifest.artifacts[0])
    file.write_bytes(b"no model")
    rehash(made.path)
    made = Bundle.open(made.path)
    found = measure_latency(made, made.select(), local_target(made), runs=5)
    broken, whole = found.results
    assert "cannot load" in broken.reason
    assert broken.to_json()["p50_ms"] is None
    assert len(whole.timing.nanoseconds) == 5
    assert found.exit_code == 5


def test_a_bundle_that_was_changed_is_not_timed(dense_bundle):
    file = dense_bundle.artifact_path(dense_bundle.manifest.artifacts[0])
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(BundleError, match="differs from the manifest"):
        measure_latency(dense_bundle, dense_bundle.select(), local_target(dense_bundle), runs=5)


class Answering:
    """A child whose board is throttled in some rounds."""

    def __init__(self, throttled):
        self._throttled = iter(throttled)

    def call(self, function, arguments=None, tensors=None, *, timeout=None):
        if function.endswith(":prepare"):
            return {"runtime": "none", "load_ms": 1.0}, {}
        count = arguments["count"]
        told = {"throttled": next(self._throttled), "temperature_c": 60.0, "memory_bytes": 1}
        return told, {"nanoseconds": np.full(count, 5)}


def test_throttled_runs_are_void(dense_bundle):
    (artifact,) = dense_bundle.select(("onnx",))
    # The first answer is to the warming up.
    child = Answering([True, False, True, False])
    stand = benchmark._Stand(artifact, 1, child, "", dense_bundle.reference())
    benchmark._take_turns([stand], 100, 60)
    told = stand.measured().to_json()
    assert (told["runs"], told["void"], told["throttled"]) == (100, 36, True)
    assert told["temperature_c"] == 60.0


def test_a_board_that_is_always_throttled_has_no_figures(dense_bundle):
    (artifact,) = dense_bundle.select(("onnx",))
    child = Answering([True] * 9)
    stand = benchmark._Stand(artifact, 1, child, "", dense_bundle.reference())
    benchmark._take_turns([stand], 100, 0)
    told = stand.measured().to_json()
    assert (told["runs"], told["p50_ms"], told["void"]) == (0, None, 64)
    assert "void" in told["reason"]


def test_what_is_measured_says_whether_the_board_was_slowed(dense_bundle, monkeypatch):
    bits = iter([0, 0, 0, 0x40000])
    monkeypatch.setattr(device, "throttled", lambda: next(bits))
    monkeypatch.setattr(device, "temperature", lambda: None)
    monkeypatch.setattr(benchmark, "_samples", [])
    monkeypatch.setattr(benchmark, "_loaded", {})
    (artifact,) = dense_bundle.select(("onnx",))
    inputs = {"x": dense_bundle.reference()["input/x"]}
    benchmark.prepare(str(dense_bundle.path), artifact.to_json(), 1, inputs)
    told, arrays = benchmark.measure(3, 60)
    assert (told["throttled"], arrays["nanoseconds"].shape) == (False, (3,))
    told, arrays = benchmark.measure(3, 0)
    assert (told["throttled"], arrays["nanoseconds"].shape) == (True, (1,))
