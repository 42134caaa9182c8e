"""Sustained load: windows, void windows, temperature and energy."""

from __future__ import annotations

import json

import pytest
from artifacts import rehash, write_dense_bundle

from edgeattn.benchmark import sustained
from edgeattn.benchmark.sustained import SustainedResult, Window, measure_sustained
from edgeattn.bundle.bundle import Bundle
from edgeattn.cli.bench import format_sustained
from edgeattn.cli.main import cli
from edgeattn.targets.target import local_target


def test_every_artifact_runs_in_windows(dense_bundle):
    target = local_target(dense_bundle)
    results = measure_sustained(dense_bundle, dense_bundle.select(), target, seconds=0.3)
    assert [result.artifact.format for result in results] == ["tflite", "onnx"]
    for result in results:
        assert result.runs == sum(window.runs for window in result.windows) > 0
        assert result.first_ms > 0
        starts = [window.start for window in result.windows]
        assert starts == sorted(starts)


def test_artifact_that_cannot_be_loaded_is_reported(tmp_path):
    bundle = write_dense_bundle(tmp_path / "b.edge")
    bundle.artifact_path(bundle.manifest.artifacts[0]).write_bytes(b"no model")
    rehash(bundle.path)
    bundle = Bundle.open(bundle.path)
    broken, intact = measure_sustained(bundle, bundle.select(), local_target(bundle), seconds=0.1)
    assert "cannot load" in broken.reason
    assert broken.windows == ()
    assert intact.runs > 0


def windows(*values):
    """Return windows of one second and 100 runs: p50 (ms), temperature, throttled, power (W)."""
    return tuple(
        Window(float(k), 1.0, 100, p50, celsius, throttled, watts)
        for k, (p50, celsius, throttled, watts) in enumerate(values)
    )


def test_throttled_windows_are_void(dense_bundle):
    (artifact, *_) = dense_bundle.select()
    result = SustainedResult(
        artifact,
        1,
        windows(
            (1.0, 50.0, False, 4.0),
            (1.0, 60.0, False, 4.0),
            (1.1, 70.0, False, 4.0),
            (9.0, 85.0, True, 9.0),
            (1.2, 80.0, False, 4.0),
            (1.4, 80.0, False, 4.0),
            (1.4, 80.0, False, 4.0),
        ),
        idle_watts=3.0,
    )
    # Six valid windows: the first third is two, the last third is two.
    assert (result.first_ms, result.last_ms) == (1.0, 1.4)
    assert (result.runs, result.void) == (600, 100)
    assert result.temperature_c == (50.0, 85.0)
    # 4 W for 6 s are 24 J over 600 runs; the idle board takes 18 J of them.
    assert result.millijoules == pytest.approx((40.0, 10.0))
    row = format_sustained((result,)).splitlines()[1]
    assert "50 to 85" in row
    assert row.split()[-2:] == ["40", "10"]


def test_no_figures_if_all_windows_are_void(dense_bundle):
    (artifact, *_) = dense_bundle.select()
    result = SustainedResult(artifact, 1, windows((9.0, 85.0, True, None)))
    figures = (result.runs, result.first_ms, result.last_ms, result.millijoules)
    assert figures == (0, None, None, None)


def test_values_of_the_worker_are_in_the_windows(dense_bundle, monkeypatch):
    """A board with power readings that is throttled in its second window."""
    conditions = iter([(False, 55.0), (True, 82.0), (False, 81.0)])
    now = 0.0

    class BoardWorker:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def call(self, name, arguments, tensors=None, *, timeout=None, memory=None):
            nonlocal now
            if name.endswith(":load"):
                return {"runtime": "test", "load_ms": 1.0}, {}
            if name.endswith(":measure_idle_power"):
                return {"watts": 2.5}, {}
            throttled, celsius = next(conditions)
            now += 1.0
            return {
                "seconds": 1.0, "runs": 10, "p50_ms": 5.0, "temperature_c": celsius,
                "throttled": throttled, "watts": 3.5,
            }, {}  # fmt: skip

    class Board:
        name, folder = "a board", "/bundle"

        def start(self):
            return BoardWorker()

    monkeypatch.setattr(sustained, "identify", lambda *_: None)
    monkeypatch.setattr(sustained.time, "monotonic", lambda: now)
    (artifact, *_) = dense_bundle.select()
    (result,) = measure_sustained(dense_bundle, (artifact,), Board(), seconds=2.5)
    assert [window.void for window in result.windows] == [False, True, False]
    assert [window.start for window in result.windows] == [0.0, 1.0, 2.0]
    assert result.idle_watts == 2.5
    # One watt above idle, for one second of ten runs per window.
    assert result.millijoules == pytest.approx((350.0, 100.0))


@pytest.mark.long
def test_command_line(dense_bundle, capsys):
    code = cli.main(
        ["bench", str(dense_bundle.path), "--sustained", "0.1", "--json"],
        standalone_mode=False,
    )
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["energy"] == "not measurable"
    assert [entry["format"] for entry in document["sustained"]] == ["tflite", "onnx"]
    assert document["sustained"][0]["windows"][0]["runs"] > 0
    assert sustained.WINDOWS > sustained.FRACTIONS
