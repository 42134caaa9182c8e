"""Hardware, operating system, temperature and throttling state of a machine.

All files are read below a ``root`` folder. On the machine itself it is ``/``; for a remote device
and in tests it is a folder with copies of the device's kernel files.
"""

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

from edgeattn.printable import counted

ROOT = Path("/")
# Bits of the throttling flags of a Raspberry Pi's firmware. Bit n is set while the condition
# lasts, bit n + 16 if it has occurred since boot.
THROTTLING_BITS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
ACTIVE_MASK = 0xF

# The files read by this module; a remote device sends their content.
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

# Part numbers of the Arm cores in Raspberry Pi boards.
_ARM_CORES = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
}


@dataclass(frozen=True)
class Device:
    """A machine as its kernel describes it. ``None`` means that the value is not available.

    ``machine`` is the platform that wheels must be built for, such as ``aarch64``; ``throttled``
    holds the bits of ``THROTTLING_BITS``.
    """

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
    def summary(self) -> str:
        """Board, processor, cores and operating system, as far as they are known."""
        known = (self.board, self.cpu, counted(self.cores, "core"), self.machine, self.os)
        return ", ".join(dict.fromkeys(text for text in known if text))

    @property
    def conditions(self) -> dict[str, tuple[str, ...]] | None:
        """The throttling conditions that are active ``now`` and those that occurred
        ``since_start``, that is, since boot."""
        if self.throttled is None:
            return None
        return {
            key: tuple(
                name for bit, name in THROTTLING_BITS.items() if self.throttled >> (bit + shift) & 1
            )
            for key, shift in (("now", 0), ("since_start", 16))
        }

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "features": list(self.features), "throttled": self.conditions}


def describe_device(
    root: Path = ROOT,
    *,
    machine: str | None = None,
    python: str | None = None,
    libc: str | None = None,
    cores: int | None = None,
    read_firmware: Callable[[], str | None] | None = None,
) -> Device:
    """Return the :class:`Device` whose kernel files are below ``root``.

    The other arguments replace values of the machine this runs on: ``machine`` see
    :func:`wheel_machine`, ``cores`` is the fallback if ``proc/cpuinfo`` lists none, and
    ``read_firmware`` see :func:`throttling_flags`.
    """
    cpu_info = _read_text(root / "proc/cpuinfo") or ""
    release = _read_text(root / "etc/os-release") or ""
    return Device(
        board=_board(root),
        machine=machine or wheel_machine(platform.machine(), 64 if sys.maxsize > 2**32 else 32),
        cpu=_field(cpu_info, "model name") or _arm_core(cpu_info),
        cores=len(re.findall(r"^processor\s*:", cpu_info, re.M)) or cores or os.cpu_count() or 1,
        features=tuple((_field(cpu_info, "Features") or _field(cpu_info, "flags") or "").split()),
        memory_bytes=_memory_bytes(root, "MemTotal"),
        available_bytes=_memory_bytes(root, "MemAvailable"),
        os=_match(r'^PRETTY_NAME="?([^"\n]*)"?$', release),
        libc=" ".join(platform.libc_ver()) if libc is None else libc,
        python=python or platform.python_version(),
        governor=_read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        temperature_c=temperature_c(root),
        throttled=throttling_flags(root, read_firmware),
    )


def wheel_machine(machine: str, bits: int) -> str:
    """Return the platform that wheels must be built for.

    32-bit Raspberry Pi OS runs a 64-bit kernel on newer boards, so a kernel's ``aarch64`` with a
    Python of 32 ``bits`` is ``armv7l``.
    """
    return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine) if bits == 32 else machine


def device_from_snapshot(snapshot: Mapping[str, Any]) -> Device:
    """Return the :class:`Device` described by the snapshot that a remote device sent.

    ``snapshot`` has the content of ``KERNEL_FILES`` as ``files`` and the output of vcgencmd as
    ``firmware``, beside ``machine``, ``bits``, ``python``, ``libc`` and ``cores``.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in snapshot["files"].items():
            file = root / name
            # The names come from another machine and must not lead out of the folder.
            if ".." in file.parts or not file.is_relative_to(root):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text), "utf-8")
        return describe_device(
            root,
            machine=wheel_machine(str(snapshot["machine"]), int(snapshot["bits"])),
            python=str(snapshot["python"]),
            libc=str(snapshot["libc"]),
            cores=snapshot["cores"],
            read_firmware=lambda: snapshot["firmware"],
        )


def temperature_c(root: Path = ROOT) -> float | None:
    """Return the temperature of the hottest thermal zone in degrees Celsius, if there is any."""
    temperatures = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = _read_text(zone / "temp") or ""
        if re.fullmatch(r"-?\d+", text):
            temperatures.append(int(text) / 1000)
    return max(temperatures, default=None)


def throttling_flags(
    root: Path = ROOT, read_firmware: Callable[[], str | None] | None = None
) -> int | None:
    """Return the firmware's throttling flags, see ``THROTTLING_BITS``, or ``None`` if unknown.

    Some kernels of the Raspberry Pi expose them as a hexadecimal file. If there is none, the output
    of ``read_firmware`` is parsed, by default that of ``vcgencmd get_throttled``:
    ``throttled=0x50000``.
    """
    for file in sorted((root / "sys/devices/platform/soc").glob("*firmware/get_throttled")):
        text = _read_text(file) or ""
        if re.fullmatch(r"(0x)?[0-9a-fA-F]+", text):
            return int(text, 16)
    if read_firmware is not None:
        output = read_firmware()
    else:
        output = vcgencmd("get_throttled") if root == ROOT else None
    flags = _match(r"throttled=0x([0-9a-fA-F]+)", output or "")
    return _under_voltage_flag(root) if flags is None else int(flags, 16)


def was_throttled(before: int | None, after: int | None) -> bool | None:
    """Return whether the machine was throttled between two values of :func:`throttling_flags`."""
    if before is None or after is None:
        return None
    return bool((before | after) & ACTIVE_MASK) or bool((after & ~before) >> 16 & ACTIVE_MASK)


def _under_voltage_flag(root: Path) -> int | None:
    """Return the under-voltage flag from the kernel driver rpi_volt, which needs no vcgencmd.

    Its alarm is set if the voltage was low since the driver's last poll, a second or two ago.
    """
    for name in sorted((root / "sys/class/hwmon").glob("hwmon*/name")):
        if _read_text(name) == "rpi_volt":
            alarm = _read_text(name.with_name("in0_lcrit_alarm"))
            return 0x10001 if alarm == "1" else None
    return None


def vcgencmd(argument: str) -> str | None:
    """Return the output of the firmware tool of Raspberry Pi OS, ``None`` if it fails."""
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        return subprocess.run(
            [tool, argument], capture_output=True, text=True, check=True, timeout=5
        ).stdout
    return None


def _board(root: Path) -> str | None:
    """Return the board's name from the device tree or, on a PC, from its firmware."""
    return _read_text(root / "proc/device-tree/model") or _read_text(
        root / "sys/devices/virtual/dmi/id/product_name"
    )


def _arm_core(cpu_info: str) -> str | None:
    part = _field(cpu_info, "CPU part")
    return _ARM_CORES.get(part, f"part {part}") if part else None


def _memory_bytes(root: Path, field: str) -> int | None:
    kibibytes = _match(rf"^{field}:\s+(\d+) kB$", _read_text(root / "proc/meminfo") or "")
    return int(kibibytes) * 1024 if kibibytes else None


def _read_text(file: Path) -> str | None:
    """Return a kernel file's content without the NUL that ends strings of the device tree."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n") or None
    except OSError:
        return None


def _field(text: str, name: str) -> str | None:
    value = _match(rf"^{name}\s*:\s*(.*)$", text)
    return value.strip() if value is not None else None


def _match(pattern: str, text: str) -> str | None:
    """Return the first group of the pattern's first match."""
    match = re.search(pattern, text, re.M)
    return match[1] if match else None
