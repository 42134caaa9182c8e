"""Which machine this is, how it fares, which runtimes it can have and which of them work.

What is read are the kernel's files under a ``root``, so that a folder can stand in for a Pi.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path("/")
# What the firmware of a Pi tells about its supply: the bit of now; 16 higher, that it has been so.
THROTTLED = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
NOW = 0xF

# What is read under a root; a device that is looked at from afar sends these.
KERNEL_FILES = (
    "proc/cpuinfo",
    "proc/meminfo",
    "etc/os-release",
    "proc/device-tree/model",
    "sys/devices/virtual/dmi/id/product_name",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "sys/class/thermal/thermal_zone*/temp",
    "sys/devices/platform/soc/*firmware/get_throttled",
    "sys/class/hwmon/hwmon*/name",
    "sys/class/hwmon/hwmon*/in0_lcrit_alarm",
)


@dataclass(frozen=True)
class Device:
    """A machine as its kernel describes it; ``None`` is what it does not tell."""

    board: str | None
    machine: str
    cpu: str | None
    cores: int
    features: tuple[str, ...]
    memory_bytes: int | None
    available_bytes: int | None
    os: str | None
    libc: str
    python: str
    governor: str | None
    temperature_c: float | None
    throttled: int | None

    @property
    def conditions(self) -> dict[str, tuple[str, ...]] | None:
        """What the firmware says is wrong now, and what was since the start."""
        if self.throttled is None:
            return None
        return {
            "now": tuple(name for bit, name in THROTTLED.items() if self.throttled >> bit & 1),
            "since_start": tuple(
                name for bit, name in THROTTLED.items() if self.throttled >> (bit + 16) & 1
            ),
        }

    def to_json(self) -> dict[str, Any]:
        told = {key: value for key, value in asdict(self).items() if key != "throttled"}
        return {**told, "features": list(self.features), "throttled": self.conditions}


@dataclass(frozen=True)
class Wheel:
    """Where a runtime's wheels install: machines, the oldest glibc, Python's minor versions."""

    distribution: str
    machines: tuple[str, ...]
    glibc: tuple[int, int]
    pythons: tuple[int, int]
    format: str


# Of the tested versions: ai-edge-litert 2.3, onnxruntime 1.32, tflite-runtime 2.14.
WHEELS = (
    Wheel("ai-edge-litert", ("x86_64", "aarch64"), (2, 27), (10, 14), "tflite"),
    Wheel("tflite-runtime", ("x86_64", "aarch64", "armv7l"), (2, 34), (8, 11), "tflite"),
    Wheel("onnxruntime", ("x86_64", "aarch64"), (2, 28), (11, 14), "onnx"),
)


def describe(
    root: Path = ROOT,
    *,
    machine: str | None = None,
    python: str | None = None,
    libc: str | None = None,
    cores: int | None = None,
    ask_firmware: Callable[[], str | None] | None = None,
) -> Device:
    """The machine whose kernel's files lie under ``root``; this one unless told otherwise.

    ``machine`` is what its Python's wheels are for: on a 64-bit kernel a 32-bit one takes armv7l's.
    """
    info = _text(root / "proc/cpuinfo") or ""
    release = _text(root / "etc/os-release") or ""
    return Device(
        board=board(root),
        machine=machine or userland(platform.machine(), 64 if sys.maxsize > 2**32 else 32),
        cpu=_field(info, "model name") or _arm_core(info),
        cores=len(re.findall(r"^processor\s*:", info, re.M)) or cores or os.cpu_count() or 1,
        features=tuple((_field(info, "Features") or _field(info, "flags") or "").split()),
        memory_bytes=_memory(root, "MemTotal"),
        available_bytes=_memory(root, "MemAvailable"),
        os=_quoted(release, "PRETTY_NAME"),
        libc=" ".join(platform.libc_ver()) if libc is None else libc,
        python=python or platform.python_version(),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        temperature_c=temperature(root),
        throttled=throttled(root, ask_firmware),
    )


def userland(machine: str, bits: int) -> str:
    """What wheels are for: Raspberry Pi OS of 32 bits has a kernel of 64 on newer boards."""
    return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine) if bits == 32 else machine


def from_look(told: Mapping[str, Any]) -> Device:
    """The machine that :func:`edgeattn.targets.ssh.look` looked at."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in told["files"].items():
            file = root / name
            # What comes from another machine writes nowhere else.
            if ".." in file.parts or not file.is_relative_to(root):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text), "utf-8")
        return describe(
            root,
            machine=userland(str(told["machine"]), int(told["bits"])),
            python=str(told["python"]),
            libc=str(told["libc"]),
            cores=told["cores"],
            ask_firmware=lambda: told["firmware"],
        )


def board(root: Path = ROOT) -> str | None:
    """What the device tree, or a PC's firmware, calls the board."""
    model = _text(root / "proc/device-tree/model")
    if model is None:
        model = _text(root / "sys/devices/virtual/dmi/id/product_name")
    return model


def temperature(root: Path = ROOT) -> float | None:
    """The hottest of the kernel's thermal zones, in degrees Celsius."""
    found = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = _text(zone / "temp") or ""
        if re.fullmatch(r"-?\d+", text):
            found.append(int(text) / 1000)
    return max(found, default=None)


def throttled(
    root: Path = ROOT, ask_firmware: Callable[[], str | None] | None = None
) -> int | None:
    """The firmware's bits, see ``THROTTLED``; ``None`` where nothing tells.

    A Pi's kernel gives them in a file, hexadecimal; an older or newer one only through vcgencmd,
    as ``throttled=0x50000``.
    """
    for file in sorted((root / "sys/devices/platform/soc").glob("*firmware/get_throttled")):
        text = _text(file) or ""
        if re.fullmatch(r"(0x)?[0-9a-fA-F]+", text):
            return int(text, 16)
    told = ask_firmware() if ask_firmware else _vcgencmd() if root == ROOT else None
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", told or "")
    return int(found[1], 16) if found else _undervolted(root)


def _undervolted(root: Path) -> int | None:
    """Under-voltage alone, which the kernel's own driver rpi_volt tells where no firmware does.

    Its alarm holds that there was one since it was last asked: a second or two ago.
    """
    for name in sorted((root / "sys/class/hwmon").glob("hwmon*/name")):
        if _text(name) == "rpi_volt":
            alarm = _text(name.with_name("in0_lcrit_alarm"))
            return 0x10001 if alarm == "1" else None
    return None


def slowed(before: int | None, after: int | None) -> bool | None:
    """Whether the machine was slowed down between two readings of :func:`throttled`."""
    if before is None or after is None:
        return None
    return bool((before | after) & NOW) or bool((after & ~before) >> 16 & NOW)


def unfit(wheel: Wheel, machine: str, python: str, libc: str) -> str | None:
    """Why ``wheel`` does not install on such a machine; ``None`` where it does."""
    if machine not in wheel.machines:
        return f"no wheel for {machine}"
    major, minor = (int(part) for part in python.split(".")[:2])
    low, high = wheel.pythons
    if major != 3 or not low <= minor <= high:
        return f"no wheel for Python {major}.{minor}, only 3.{low} to 3.{high}"
    found = re.search(r"glibc (\d+)\.(\d+)", libc)
    if found is None:
        return f"needs glibc, and this is {libc or 'another library'}"
    if (int(found[1]), int(found[2])) < wheel.glibc:
        return f"needs glibc {wheel.glibc[0]}.{wheel.glibc[1]}, and this is {libc}"
    return None


def fitting(device: Device) -> dict[str, str | None]:
    """Each runtime's distribution and why it does not fit; ``None`` where it does."""
    return {
        wheel.distribution: unfit(wheel, device.machine, device.python, device.libc)
        for wheel in WHEELS
    }


def _vcgencmd() -> str | None:
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [tool, "get_throttled"], capture_output=True, text=True, check=False, timeout=5
        )
        return done.stdout
    return None


def _text(file: Path) -> str | None:
    """What a file of the kernel's says, without the NUL of the device tree's strings."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n") or None
    except OSError:
        return None


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.M)
    return found[1].strip() if found else None


def _quoted(text: str, name: str) -> str | None:
    found = re.search(rf'^{name}="?([^"\n]*)"?$', text, re.M)
    return found[1] if found else None


# Arm's numbers for the cores of Raspberry Pis.
_CORES = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
}


def _arm_core(info: str) -> str | None:
    part = _field(info, "CPU part")
    return _CORES.get(part, f"part {part}") if part else None


def _memory(root: Path, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(root / "proc/meminfo") or "", re.M)
    return int(found[1]) * 1024 if found else None
