"""What to do about what a machine and its runtimes were found to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeattn.device.info import WHEELS, Device, fitting
from edgeattn.device.runtime_check import FAIL, MISSING, UNASKED, RuntimeCheck

# Degrees: a Pi's firmware slows it down from 80 on.
HOT = 75.0


@dataclass(frozen=True)
class Finding:
    """Something a user should know, and what to do about it."""

    level: str  # "error" keeps models from running, "warning" spoils results, "note" does neither
    what: str
    remedy: str


def findings(device: Device, checks: tuple[RuntimeCheck, ...]) -> tuple[Finding, ...]:
    """What to do about what was found; nothing where all is well."""
    return (*_about_runtimes(device, checks), *_about_condition(device))


def _about_runtimes(device: Device, checks: tuple[RuntimeCheck, ...]) -> Iterator[Finding]:
    fits = fitting(device)
    for check in checks:
        if check.state == UNASKED:
            continue
        names = [wheel.distribution for wheel in WHEELS if wheel.format == check.format]
        can = [name for name in names if fits[name] is None]
        if check.state == MISSING and can:
            level = "error" if check.format == "tflite" else "note"
            yield Finding(level, f"No runtime for {check.format} files.", f"pip install {can[0]}")
        elif check.state == MISSING:
            why = "; ".join(f"{name}: {fits[name]}" for name in names)
            yield Finding(
                "note",
                f"No runtime for {check.format} files installs here ({why}).",
                "Use the other format, or a 64-bit system with Python 3.11 to 3.13.",
            )
        elif check.state == FAIL:
            yield Finding(
                "error",
                f"The runtime for {check.format} files does not work: {check.reason}.",
                "Install another version of it; a crash on import is mostly a wheel for a newer "
                "processor than this one.",
            )
        elif check.xnnpack is False:
            yield Finding(
                "warning",
                "TFLite runs without XNNPACK: int8 is several times slower.",
                "Use ai-edge-litert's own wheel, and let it see /proc/cpuinfo and /sys."
                if fits["ai-edge-litert"] is None
                else "A 64-bit system can have ai-edge-litert, which brings it.",
            )


def _about_condition(device: Device) -> Iterator[Finding]:
    conditions = device.conditions or {"now": (), "since_start": ()}
    for name in conditions["now"]:
        yield Finding("warning", f"The board is slowed down now: {name}.", _REMEDIES[name])
    for name in conditions["since_start"]:
        if name not in conditions["now"]:
            yield Finding("note", f"Since the start there was: {name}.", _REMEDIES[name])
    if device.temperature_c is not None and device.temperature_c >= HOT:
        yield Finding(
            "warning",
            f"It is hot: {device.temperature_c:.0f} degrees, and from 80 on a Pi slows down.",
            "Add a heat sink or a fan before you measure.",
        )
    if device.governor not in (None, "performance"):
        yield Finding(
            "note",
            f"The frequency governor is {device.governor}: short runs may see a slow clock.",
            "To measure: echo performance | sudo tee "
            "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )
    if device.available_bytes is not None and device.available_bytes < 200 * 10**6:
        yield Finding(
            "warning", "Less than 200 MB of memory are free.", "Stop other programs first."
        )


_REMEDIES = {
    "under-voltage": "Use the official power supply and a short, thick cable.",
    "frequency capped": "Cool the board, and use the official power supply.",
    "throttled": "Cool the board, and use the official power supply.",
    "soft temperature limit": "Add a heat sink or a fan.",
}
