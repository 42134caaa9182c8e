"""The description of a machine, read from a folder with a copy of its kernel files, and advice."""

from __future__ import annotations

import os

import pytest

from edgeattn.device.advice import advise
from edgeattn.device.info import (
    Device,
    describe_device,
    device_from_snapshot,
    throttling_flags,
    was_throttled,
    wheel_machine,
)
from edgeattn.device.runtime_check import RuntimeCheck
from edgeattn.device.wheels import wheel_incompatibilities

PI4_CPU_INFO = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
PI_FILES = {
    "proc/cpuinfo": PI4_CPU_INFO,
    "proc/meminfo": "MemTotal:        3884640 kB\nMemFree: 1 kB\nMemAvailable:    3427196 kB\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "etc/os-release": 'NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/temp": "51000\n",
    "sys/class/thermal/thermal_zone2/temp": "broken\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
WORKING = (RuntimeCheck("tflite", "pass", "t 1", True), RuntimeCheck("onnx", "pass", "o 1"))


@pytest.fixture
def pi_root(tmp_path):
    for name, text in PI_FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def describe(root, **changes):
    values = {"machine": "aarch64", "python": "3.11.2", "libc": "glibc 2.36", **changes}
    return describe_device(root, **values)


def test_describe_raspberry_pi(pi_root):
    device = describe(pi_root)
    assert device == Device(
        board="Raspberry Pi 4 Model B Rev 1.4",
        machine="aarch64",
        cpu="Cortex-A72",
        cores=2,
        features=("fp", "asimd", "evtstrm", "crc32", "cpuid"),
        memory_bytes=3884640 * 1024,
        available_bytes=3427196 * 1024,
        os="Debian GNU/Linux 12 (bookworm)",
        libc="glibc 2.36",
        python="3.11.2",
        governor="ondemand",
        temperature_c=51.0,
        throttled=0x50005,
    )
    assert device.to_json()["throttled"] == {
        "now": ("under-voltage", "throttled"),
        "since_start": ("under-voltage", "throttled"),
    }


def test_describe_machine_without_kernel_files(tmp_path):
    device = describe(tmp_path)
    assert device.cores == os.cpu_count()
    unknown = ("board", "cpu", "memory_bytes", "available_bytes", "os", "governor")
    assert [getattr(device, name) for name in unknown] == [None] * 6
    assert (device.temperature_c, device.throttled, device.conditions) == (None, None, None)
    assert advise(device, WORKING) == ()


@pytest.mark.parametrize(
    ("output", "flags"),
    [("throttled=0x50000\n", 0x50000), ("throttled=0x0\n", 0), ("VCHI failed", None), (None, None)],
)
def test_throttling_flags_from_firmware_without_kernel_file(tmp_path, output, flags):
    assert throttling_flags(tmp_path, lambda: output) == flags


@pytest.mark.parametrize(
    ("driver", "alarm", "flags"),
    [("rpi_volt", "1", 0x10001), ("rpi_volt", "0", None), ("cpu_thermal", "1", None)],
)
def test_under_voltage_from_kernel_driver(tmp_path, driver, alarm, flags):
    folder = tmp_path / "sys/class/hwmon/hwmon1"
    folder.mkdir(parents=True)
    (folder / "name").write_text(driver + "\n")
    (folder / "in0_lcrit_alarm").write_text(alarm + "\n")
    assert throttling_flags(tmp_path, lambda: None) == flags
    # The firmware's flags take precedence because they hold more.
    assert throttling_flags(tmp_path, lambda: "throttled=0x50000\n") == 0x50000


@pytest.mark.parametrize(
    ("machine", "bits", "wheels_for"),
    [
        ("aarch64", 64, "aarch64"),
        # 32-bit Raspberry Pi OS has a 64-bit kernel on a Pi 4.
        ("aarch64", 32, "armv7l"),
        ("armv7l", 32, "armv7l"),
        ("x86_64", 64, "x86_64"),
    ],
)
def test_wheel_machine(machine, bits, wheels_for):
    assert wheel_machine(machine, bits) == wheels_for


def snapshot(**changes):
    """The snapshot that a remote Raspberry Pi sends."""
    return {
        "files": {**PI_FILES, "sys/devices/platform/soc/soc:firmware/get_throttled": ""},
        "firmware": "throttled=0x50005\n",
        "machine": "aarch64",
        "bits": 64,
        "python": "3.11.2",
        "libc": "glibc 2.36",
        "cores": 4,
        **changes,
    }


def test_remote_device_is_described_like_a_local_one(pi_root):
    assert device_from_snapshot(snapshot()) == describe(pi_root)
    assert device_from_snapshot(snapshot(bits=32)).machine == "armv7l"
    assert device_from_snapshot(snapshot(files={})).cores == 4


def test_snapshot_cannot_write_outside_its_folder(tmp_path):
    outside = tmp_path / "outside"
    names = (str(outside), f"../{outside.name}", f"proc/../../../../../../..{outside}", "../../x")
    device_from_snapshot(snapshot(files=dict.fromkeys(names, "evil")))
    assert not outside.exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, False),
        (0x50000, 0x50000, False),  # throttled earlier, not during this run
        (0, 0x4, True),
        (0x4, 0x40000, True),
        (0x10000, 0x50000, True),  # began and ended between the readings
        (None, 0, None),
    ],
)
def test_was_throttled(before, after, expected):
    assert was_throttled(before, after) is expected


@pytest.mark.parametrize(
    ("machine", "python", "libc", "installable"),
    [
        ("aarch64", "3.11.2", "glibc 2.36", ["ai-edge-litert", "tflite-runtime", "onnxruntime"]),
        ("aarch64", "3.13.5", "glibc 2.41", ["ai-edge-litert", "onnxruntime"]),
        ("armv7l", "3.11.2", "glibc 2.36", ["tflite-runtime"]),
        ("armv7l", "3.13.5", "glibc 2.41", []),
        ("armv6l", "3.11.2", "glibc 2.36", []),
        ("aarch64", "3.9.2", "glibc 2.31", []),
        ("aarch64", "3.10.2", "glibc 2.31", ["ai-edge-litert"]),
        ("aarch64", "3.12.3", "", []),  # musl
    ],
)
def test_installable_wheels(tmp_path, machine, python, libc, installable):
    device = describe(tmp_path, machine=machine, python=python, libc=libc)
    reasons = wheel_incompatibilities(device)
    assert [name for name, reason in reasons.items() if reason is None] == installable


def test_advice_has_level_message_and_remedy(pi_root):
    (pi_root / "sys/class/thermal/thermal_zone0/temp").write_text("81000")
    (pi_root / "proc/meminfo").write_text("MemAvailable: 100000 kB\n")
    checks = (
        RuntimeCheck("tflite", "pass", "t 1", xnnpack=False),
        RuntimeCheck("onnx", "fail", reason="its process died of SIGILL"),
    )
    advice = advise(describe(pi_root), checks)
    text = "\n".join(f"{item.level}: {item.message}" for item in advice)
    assert all(item.remedy for item in advice)
    assert "warning: TFLite runs without XNNPACK" in text
    assert "error: The onnx runtime does not work: its process died of SIGILL" in text
    assert "warning: The board is being slowed down: under-voltage" in text
    assert "warning: The board is at 81 °C" in text
    assert "note: The CPU frequency governor is ondemand" in text
    assert "warning: Less than 200 MB" in text
    # An active condition is not repeated as a past one.
    assert text.count("under-voltage") == 1


@pytest.mark.parametrize(
    ("machine", "format", "level", "remedy"),
    [
        ("aarch64", "tflite", "error", "pip install ai-edge-litert"),
        ("armv7l", "tflite", "error", "pip install tflite-runtime"),
        ("aarch64", "onnx", "note", "pip install onnxruntime"),
        ("armv7l", "onnx", "note", "other format"),
    ],
)
def test_advice_on_missing_runtime(tmp_path, machine, format, level, remedy):
    checks = (RuntimeCheck(format, "not installed", reason="none"),)
    (advice,) = advise(describe(tmp_path, machine=machine), checks)
    assert advice.level == level
    assert remedy in advice.remedy
