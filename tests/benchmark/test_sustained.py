"""Load that lasts: windows, what makes one void, heat, and energy where a controller tells."""

from __future__ import annotations

import json
import time

import pytest
from artifacts import rehash, write_dense_bundle

from edgeattn.benchmark import sustained
from edgeattn.benchmark.sustained import SustainedResult, Window, measure_sustained
from edgeattn.bundle.bundle import Bundle
from edgeattn.cli.bench import sustained_text
from edgeattn.cli.main import cli
from edgeattn.device import power
from edgeattn.device.power import PowerSampler, watts
from edgeattn.targets.target import local_target

# As a Pi 5 writes it: three rails, the input's voltage and a battery's.
PI5 = """   3V7_WL_SW_A current(0)=0.10000000A
    VDD_CORE_A current(7)=2.00000000A
     3V3_SYS_A current(1)=0.50000000A
   3V7_WL_SW_V volt(8)=3.70000000V
    VDD_CORE_V volt(15)=0.80000000V
     3V3_SYS_V volt(9)=3.30000000V
       EXT5V_V volt(24)=5.15000000V
        BATT_V volt(25)=0.00000000V
"""


def test_the_power_of_all_rails():
    # 0.1 * 3.7 + 2 * 0.8 + 0.5 * 3.3; a voltage without a current is no power.
    assert watts(PI5) == pytest.approx(3.62)
    assert watts("VDD_CORE_A=1.5A\nVDD_CORE_V=0.5V\n") == pytest.approx(0.75)


@pytest.mark.parametrize(
    "told", [None, "", "error=1 error_msg=Command not registered", "A_A current(0)=1.0A"]
)
def test_a_board_that_does_not_tell_has_no_power(told):
    assert watts(told) is None


def test_power_is_sampled_while_something_runs(monkeypatch):
    monkeypatch.setattr(power, "EVERY", 0.01)
    with PowerSampler(lambda: "X_A=2A\nX_V=3V\n") as sampler:
        assert sampler.telling
        deadline = time.monotonic() + 10
        while sampler.watts is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert sampler.watts == pytest.approx(6.0)


def test_a_board_that_does_not_tell_is_asked_once():
    asked = []
    with PowerSampler(lambda: asked.append(1)) as sampler:
        time.sleep(0.05)
    assert (sampler.telling, sampler.watts, len(asked)) == (False, None, 1)


def test_every_artifact_is_run_in_windows(dense_bundle):
    told = measure_sustained(
        dense_bundle, dense_bundle.select(), local_target(dense_bundle), seconds=0.3
    )
    assert [item.artifact.format for item in told] == ["tflite", "onnx"]
    for item in told:
        assert item.runs == sum(window.runs for window in item.windows) > 0
        assert len(item.windows) >= 2
        assert item.first_ms > 0
        assert [window.start for window in item.windows] == sorted(w.start for w in item.windows)


def test_an_artifact_that_cannot_be_loaded_is_told_of(tmp_path):
    made = write_dense_bundle(tmp_path / "b.edge")
    made.artifact_path(made.manifest.artifacts[0]).write_bytes(b"no model")
    rehash(made.path)
    made = Bundle.open(made.path)
    broken, whole = measure_sustained(made, made.select(), local_target(made), seconds=0.1)
    assert "cannot load" in broken.reason
    assert broken.windows == ()
    assert whole.runs > 0


def windows(*figures):
    """Of a second each: median, degrees, throttled, watts."""
    return tuple(
        Window(float(k), 1.0, 100, p50, degrees, slowed, power)
        for k, (p50, degrees, slowed, power) in enumerate(figures)
    )


def test_what_was_throttled_is_void(dense_bundle):
    (artifact, *_) = dense_bundle.select()
    item = SustainedResult(
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
    # Six windows count: the first two and the last two.
    assert (item.first_ms, item.last_ms) == (1.0, 1.4)
    assert (item.runs, item.void) == (600, 100)
    assert item.temperature_c == (50.0, 85.0)
    # 4 W for 6 s are 24 J, over 600 runs; the idle board would have taken 18 J of them.
    assert item.millijoules == pytest.approx((40.0, 10.0))
    text = sustained_text((item,))
    assert "50 to 85" in text
    assert "10 of 40" in text


def test_where_all_was_throttled_nothing_is_told(dense_bundle):
    (artifact, *_) = dense_bundle.select()
    item = SustainedResult(artifact, 1, windows((9.0, 85.0, True, None)))
    assert (item.runs, item.first_ms, item.last_ms, item.millijoules) == (0, None, None, None)


def test_what_the_child_was_told_reaches_the_window(dense_bundle, monkeypatch):
    """The board of a test: it tells power, heat and, in its second window, throttling."""
    reports = iter([(False, 55.0), (True, 82.0), (False, 81.0)])

    class Answering:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def call(self, name, arguments, tensors=None, *, timeout=None):
            if name.endswith(":prepare"):
                return {"runtime": "test", "load_ms": 1.0}, {}
            if name.endswith(":rest"):
                return {"watts": 2.5}, {}
            slowed, degrees = next(reports)
            time.sleep(0.02)
            return {
                "seconds": 1.0, "runs": 10, "p50_ms": 5.0, "temperature_c": degrees,
                "throttled": slowed, "watts": 3.5,
            }, {}  # fmt: skip

    class Target:
        name, folder = "a board", "/there"

        def start(self):
            return Answering()

    monkeypatch.setattr("edgeattn.targets.target.identify", lambda *_: None)
    (artifact, *_) = dense_bundle.select()
    (item,) = measure_sustained(dense_bundle, (artifact,), Target(), seconds=0.05)
    assert [window.void for window in item.windows] == [False, True, False]
    assert item.idle_watts == 2.5
    # One watt more than idle, for a second of ten runs each.
    assert item.millijoules == pytest.approx((350.0, 100.0))


def test_the_command_line(dense_bundle, capsys):
    code = cli.main(
        ["bench", str(dense_bundle.path), "--sustained", "0.1", "--json"],
        standalone_mode=False,
    )
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["energy"] == "not measurable"
    assert [entry["format"] for entry in document["sustained"]] == ["tflite", "onnx"]
    assert document["sustained"][0]["windows"][0]["runs"] > 0
    assert sustained.WINDOWS > sustained.PART
