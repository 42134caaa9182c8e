"""Which runtime wheels from PyPI can be installed on a machine."""

import re
from dataclasses import dataclass

from edgeattn.device.info import Device


@dataclass(frozen=True)
class RuntimeWheel:
    """A runtime distribution and the platforms that its wheels support.

    ``glibc`` is the oldest supported version, ``python_minors`` the first and the last supported
    minor version of Python 3.
    """

    distribution: str
    machines: tuple[str, ...]
    glibc: tuple[int, int]
    python_minors: tuple[int, int]
    format: str


# The versions edgeattn is tested with: ai-edge-litert 2.3, tflite-runtime 2.14, onnxruntime 1.32.
RUNTIME_WHEELS = (
    RuntimeWheel("ai-edge-litert", ("x86_64", "aarch64"), (2, 27), (10, 14), "tflite"),
    RuntimeWheel("tflite-runtime", ("x86_64", "aarch64", "armv7l"), (2, 34), (8, 11), "tflite"),
    RuntimeWheel("onnxruntime", ("x86_64", "aarch64"), (2, 28), (11, 14), "onnx"),
)


def wheel_incompatibility(wheel: RuntimeWheel, machine: str, python: str, libc: str) -> str | None:
    """Return why ``wheel`` cannot be installed on a machine, or ``None`` if it can."""
    if machine not in wheel.machines:
        return f"no wheel for {machine}"
    major, minor = (int(part) for part in python.split(".")[:2])
    low, high = wheel.python_minors
    if major != 3 or not low <= minor <= high:
        return f"no wheel for Python {major}.{minor}, only for 3.{low} to 3.{high}"
    version = re.search(r"glibc (\d+)\.(\d+)", libc)
    if version is None:
        return f"requires glibc, but this machine has {libc or 'another C library'}"
    if (int(version[1]), int(version[2])) < wheel.glibc:
        return f"requires glibc {wheel.glibc[0]}.{wheel.glibc[1]}, but this machine has {libc}"
    return None


def wheel_incompatibilities(device: Device) -> dict[str, str | None]:
    """Map each runtime distribution to :func:`wheel_incompatibility` on ``device``."""
    return {
        wheel.distribution: wheel_incompatibility(wheel, device.machine, device.python, device.libc)
        for wheel in RUNTIME_WHEELS
    }
