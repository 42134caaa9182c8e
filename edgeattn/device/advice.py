"""Advice on the state of a machine and its runtimes."""

from collections.abc import Iterator
from dataclasses import dataclass

from edgeattn.device.info import Device
from edgeattn.device.runtime_check import FAIL, MISSING, NOT_CHECKED, RuntimeCheck
from edgeattn.device.wheels import RUNTIME_WHEELS, wheel_incompatibilities

# Degrees Celsius. The firmware of a Raspberry Pi throttles from 80 °C.
HOT_C = 75.0
LOW_MEMORY_BYTES = 200 * 10**6

_THROTTLING_REMEDIES = {
    "under-voltage": "Use the official power supply and a short, thick cable.",
    "frequency capped": "Cool the board and use the official power supply.",
    "throttled": "Cool the board and use the official power supply.",
    "soft temperature limit": "Add a heat sink or a fan.",
}


@dataclass(frozen=True)
class Advice:
    """A condition of the machine and what to do about it.

    ``level`` is ``error`` if models cannot run, ``warning`` if results or timings suffer, and
    ``note`` otherwise.
    """

    level: str
    message: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        return {"level": self.level, "what": self.message, "remedy": self.remedy}


def advise(device: Device, checks: tuple[RuntimeCheck, ...]) -> tuple[Advice, ...]:
    """Return advice on ``device`` and its runtime ``checks``; empty if all is well."""
    return (*_runtime_advice(device, checks), *_condition_advice(device))


def _runtime_advice(device: Device, checks: tuple[RuntimeCheck, ...]) -> Iterator[Advice]:
    incompatibilities = wheel_incompatibilities(device)
    for check in checks:
        if check.state == NOT_CHECKED:
            continue
        names = [wheel.distribution for wheel in RUNTIME_WHEELS if wheel.format == check.format]
        installable = [name for name in names if incompatibilities[name] is None]
        if check.state == MISSING and installable:
            yield Advice(
                "error" if check.format == "tflite" else "note",
                f"No {check.format} runtime is installed.",
                f"pip install {installable[0]}",
            )
        elif check.state == MISSING:
            reasons = "; ".join(f"{name}: {incompatibilities[name]}" for name in names)
            yield Advice(
                "note",
                f"No {check.format} runtime can be installed on this machine ({reasons}).",
                "Use the other format, or a 64-bit system with Python 3.11 to 3.13.",
            )
        elif check.state == FAIL:
            yield Advice(
                "error",
                f"The {check.format} runtime does not work: {check.reason}.",
                "Install another version of the runtime. If it crashes on import, its wheel is "
                "probably built for a newer processor.",
            )
        elif check.xnnpack is False:
            yield Advice(
                "warning",
                "TFLite runs without XNNPACK: int8 models are several times slower.",
                "Install the ai-edge-litert wheel from PyPI and give its process read access to "
                "/proc/cpuinfo and /sys."
                if incompatibilities["ai-edge-litert"] is None
                else "Use a 64-bit system: ai-edge-litert includes XNNPACK there.",
            )


def _condition_advice(device: Device) -> Iterator[Advice]:
    conditions = device.conditions or {"now": (), "since_start": ()}
    for name in conditions["now"]:
        yield Advice(
            "warning", f"The board is being slowed down: {name}.", _THROTTLING_REMEDIES[name]
        )
    for name in conditions["since_start"]:
        if name not in conditions["now"]:
            yield Advice(
                "note", f"The board was slowed down since boot: {name}.", _THROTTLING_REMEDIES[name]
            )
    if device.temperature_c is not None and device.temperature_c >= HOT_C:
        yield Advice(
            "warning",
            f"The board is at {device.temperature_c:.0f} °C; a Raspberry Pi throttles from 80 °C.",
            "Add a heat sink or a fan before measuring.",
        )
    if device.governor not in (None, "performance"):
        yield Advice(
            "note",
            f"The CPU frequency governor is {device.governor}: short runs may be timed at a low "
            "clock rate.",
            "Before measuring, run: echo performance | sudo tee "
            "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )
    if device.available_bytes is not None and device.available_bytes < LOW_MEMORY_BYTES:
        yield Advice("warning", "Less than 200 MB of memory are free.", "Stop other programs.")
