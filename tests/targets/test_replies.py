"""Malformed replies of another machine, to every command that connects to one."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest

from edgeattn.device.runtime_check import RuntimeCheck
from edgeattn.errors import DeviceError
from edgeattn.process.worker import Worker
from edgeattn.targets import replies, ssh
from edgeattn.targets.target import Target, cpu_count, identify

SNAPSHOT = {
    "files": {"proc/cpuinfo": "processor : 0\n"},
    "firmware": None,
    "machine": "aarch64",
    "bits": 64,
    "python": "3.11.2",
    "libc": "glibc 2.36",
    "cores": 4,
}
CHECK = {"format": "onnx", "state": "pass", "runtime": "x 1", "xnnpack": None, "reason": None}
IDENTITY = {"edgeattn": "1", "machine": "x86_64", "python": "3.11", "manifest": "0" * 64}


def test_a_machine() -> None:
    device = replies.parse_device(SNAPSHOT)
    assert (device.machine, device.cores, device.python) == ("aarch64", 1, "3.11.2")


@pytest.mark.parametrize(
    "reply",
    [
        *(None, [], {}, 7, "text"),
        *(
            {**SNAPSHOT, **change}
            for change in (
                {"files": 7},
                {"files": {"": "a folder"}},
                {"files": {"a\0b": "x"}},
                {"files": {"a" * 300: "x"}},
                {"files": {"a": "x", "a/b": "y"}},
                {"files": {"proc/meminfo": "MemTotal: " + "9" * 5000 + " kB"}},
                {"firmware": 7},
                {"bits": "many"},
                {"cores": "4"},
                {"machine": None},
                {"python": "three"},
                {"python": "\x1b[2J"},
                {"libc": ["glibc"]},
            )
        ),
    ],
)
def test_malformed_machines(reply: Any) -> None:
    with pytest.raises(DeviceError, match="malformed reply: a description of the machine"):
        replies.parse_device(reply)


def test_checks() -> None:
    parsed = replies.parse_checks([CHECK, {**CHECK, "state": "fail", "reason": "a\x1b[2J\nb"}])
    assert parsed[0] == RuntimeCheck("onnx", "pass", "x 1")
    assert parsed[1].reason == "a?[2J b"


@pytest.mark.parametrize(
    "reply",
    [
        *(5, None, [5], [{}], {"format": "onnx"}),
        *([{**CHECK, key: 7}] for key in CHECK),
        *([{**CHECK, key: "\x1b[2J"}] for key in ("format", "state")),
        *([{**CHECK, key: ["x"]}] for key in ("format", "state")),
    ],
)
def test_malformed_checks(reply: Any) -> None:
    with pytest.raises(DeviceError, match="malformed reply: checks of its runtimes"):
        replies.parse_checks(reply)


class Replying(Worker):
    """A process on another machine that returns ``reply`` for every call."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    def call(self, *_: Any, **__: Any) -> tuple[Any, Any]:
        return self._reply, {}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "reply", [None, [], {}, {**IDENTITY, "manifest": 7}, {**IDENTITY, "python": "\x1b[2J"}]
)
def test_malformed_identities(dense_bundle: Any, reply: Any) -> None:
    with pytest.raises(DeviceError, match="malformed reply: its versions"):
        identify(Target("pi", "folder", ("ssh",)), dense_bundle, Replying(reply))


@pytest.mark.parametrize("reply", [None, "4", 0, -1, 2**40, 1.5, True])
def test_malformed_numbers_of_processors(monkeypatch: pytest.MonkeyPatch, reply: Any) -> None:
    monkeypatch.setattr(Target, "start", lambda _: contextlib.nullcontext(Replying(reply)))
    with pytest.raises(DeviceError, match="malformed reply: the number of its processors"):
        cpu_count(Target("pi", "folder", ("ssh",)))


def test_doctor_of_a_hostile_machine(edgeattn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the device, not an internal one."""
    host = ssh.SSHHost("pi@board")
    monkeypatch.setattr(ssh, "connect", lambda *_: contextlib.nullcontext(host))
    monkeypatch.setattr(ssh, "system_snapshot", lambda *_: {"files": []})
    result = edgeattn("doctor", "pi@board")
    assert result.code == 5
    assert "malformed reply" in result.err


LOADED = {"runtime": "onnxruntime 1", "load_ms": 1.5}
TIMED = {"throttled": None, "temperature_c": 60.0, "memory_bytes": 7}
WINDOW = {
    "seconds": 1.0,
    "runs": 3,
    "p50_ms": 0.5,
    "temperature_c": None,
    "throttled": False,
    "watts": None,
}
DURATIONS = {"nanoseconds": np.array([5, 6], np.int64)}


def test_measurements() -> None:
    for function, reply in (("load", LOADED), ("run_window", WINDOW)):
        assert replies.parse_measurement(function, {**reply, "more": "x"}, {}) == (reply, {})
    assert replies.parse_measurement("time_runs", TIMED, DURATIONS) == (TIMED, DURATIONS)


@pytest.mark.parametrize(
    ("function", "reply", "arrays"),
    [
        *(("load", reply, {}) for reply in (None, [], 7, {}, {**LOADED, "load_ms": "1"})),
        *(("load", {**LOADED, "runtime": text}, {}) for text in (None, "\x1b[2J", "a\nb")),
        *(
            ("time_runs", {**TIMED, name: value}, DURATIONS)
            for name, value in (
                *(("throttled", 1), ("throttled", "no"), ("temperature_c", math.nan)),
                *(("temperature_c", True), ("memory_bytes", -1), ("memory_bytes", None)),
            )
        ),
        *(
            ("time_runs", TIMED, arrays)
            for arrays in (
                {},
                {"nanoseconds": np.array([0.5])},
                {"nanoseconds": np.array([[5]], np.int64)},
                {"nanoseconds": np.array([-5], np.int64)},
            )
        ),
        ("measure_idle_power", {"watts": "9"}, {}),
        ("measure_idle_power", {"watts": math.inf}, {}),
        *(("run_window", {**WINDOW, name: "x"}, {}) for name in WINDOW),
    ],
)
def test_malformed_measurements(function: str, reply: Any, arrays: Any) -> None:
    with pytest.raises(DeviceError, match="malformed reply: a measurement"):
        replies.parse_measurement(function, reply, arrays)
