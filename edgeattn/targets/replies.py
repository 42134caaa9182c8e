"""Replies of another machine, parsed: their types are checked before anything uses them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeattn.bundle.manifest import MALFORMED
from edgeattn.errors import DeviceError

if TYPE_CHECKING:
    from edgeattn.device.info import Device
    from edgeattn.device.runtime_check import RuntimeCheck
    from edgeattn.tensors import Tensors

MAX_PROCESSORS = 4096


@contextlib.contextmanager
def parsing(what: str) -> Iterator[None]:
    """Raise :class:`DeviceError` if a reply, which is ``what`` in words, is malformed."""
    try:
        yield
    except (*MALFORMED, OSError) as error:
        raise DeviceError(
            f"The device sent a malformed reply: {what}.",
            hint="Install this edgeattn on the device again: edgeattn deploy BUNDLE USER@HOST "
            "--install",
        ) from error


def text(value: Any) -> str:
    if type(value) is not str or not value.isprintable():
        raise TypeError
    return value


def line(value: Any) -> str:
    """Text of any characters on one line."""
    if type(value) is not str:
        raise TypeError
    return "".join(c if c.isprintable() else "?" for c in " ".join(value.split()))


def parse_device(reply: Mapping[str, Any]) -> Device:
    """The machine that a snapshot describes."""
    from edgeattn.device.info import device_from_snapshot
    from edgeattn.device.wheels import wheel_incompatibilities

    with parsing("a description of the machine"):
        for key in ("machine", "python", "libc"):
            text(reply[key])
        if type(reply["cores"]) not in (int, type(None)):
            raise TypeError
        device = device_from_snapshot(reply)
        wheel_incompatibilities(device)  # parses the versions of Python and the C library
        return device


def parse_checks(reply: Sequence[Mapping[str, Any]]) -> tuple[RuntimeCheck, ...]:
    """A check of each runtime."""
    from edgeattn.device.runtime_check import FAIL, MISSING, NOT_CHECKED, PASS, RuntimeCheck

    checks = []
    with parsing("checks of its runtimes"):
        for item in reply:
            if item["format"] not in ("tflite", "onnx"):
                raise ValueError
            if item["state"] not in (PASS, FAIL, MISSING, NOT_CHECKED):
                raise ValueError
            if type(item["xnnpack"]) not in (bool, type(None)):
                raise TypeError
            names = (item["runtime"], item["reason"])
            runtime, reason = (None if name is None else line(name) for name in names)
            checks.append(
                RuntimeCheck(item["format"], item["state"], runtime, item["xnnpack"], reason)
            )
    return tuple(checks)


def parse_identity(reply: Mapping[str, Any]) -> dict[str, str]:
    """The versions on a machine, and the SHA-256 of the manifest of the bundle on it."""
    with parsing("its versions"):
        return {key: text(reply[key]) for key in ("edgeattn", "machine", "python", "manifest")}


def parse_processors(reply: Any) -> int:
    with parsing("the number of its processors"):
        if type(reply) is not int or not 1 <= reply <= MAX_PROCESSORS:
            raise ValueError
        return reply


# The fields of the replies of :mod:`edgeattn.benchmark.artifact_worker`, by function.
_TEXT, _COUNT, _NUMBER, _FLAG = "text", "count", "number", "flag"
MEASUREMENTS: Mapping[str, Mapping[str, str]] = {
    "load": {"runtime": _TEXT, "load_ms": _NUMBER},
    "time_runs": {"throttled": _FLAG, "temperature_c": _NUMBER, "memory_bytes": _COUNT},
    "measure_idle_power": {"watts": _NUMBER},
    "run_window": {
        "seconds": _NUMBER,
        "runs": _COUNT,
        "p50_ms": _NUMBER,
        "temperature_c": _NUMBER,
        "throttled": _FLAG,
        "watts": _NUMBER,
    },
}
# What a machine need not be able to measure.
_OPTIONAL = ("throttled", "temperature_c", "watts")


def parse_measurement(function: str, reply: Any, arrays: Tensors) -> tuple[dict[str, Any], Tensors]:
    """The result of a function of a benchmark, and its durations in nanoseconds, if it has some."""
    with parsing("a measurement"):
        fields = MEASUREMENTS[function]
        values = {name: _measured(kind, reply[name], name) for name, kind in fields.items()}
        if function != "time_runs":
            return values, {}
        durations = arrays["nanoseconds"]
        if durations.ndim != 1 or durations.dtype != np.int64 or (durations < 0).any():
            raise ValueError
        return values, {"nanoseconds": durations}


def _measured(kind: str, value: Any, name: str) -> Any:
    if value is None and name in _OPTIONAL:
        return None
    if kind == _TEXT:
        return text(value)
    types = {_COUNT: (int,), _NUMBER: (int, float), _FLAG: (bool,)}[kind]
    if type(value) not in types or not math.isfinite(value) or (value < 0 and kind == _COUNT):
        raise TypeError
    return value


def parse_folder(reply: Any) -> str:
    with parsing("a folder"):
        return text(reply)
