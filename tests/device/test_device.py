"""What a machine is, read from a folder that stands in for its kernel."""

from __future__ import annotations

import base64
import os

import artifacts
import pytest

from edgeattn.device import info as device
from edgeattn.device import runtime_check
from edgeattn.device.advice import advise
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import RuntimeCheck
from edgeattn.process.worker import Worker

PI4_INFO = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
PI = {
    "proc/cpuinfo": PI4_INFO,
    "proc/meminfo": "MemTotal:        3884640 kB\nMemFree: 1 kB\nMemAvailable:    3427196 kB\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "etc/os-release": 'NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/temp": "51000\n",
    "sys/class/thermal/thermal_zone2/temp": "broken\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
GOOD = (RuntimeCheck("tflite", "pass", "t 1", True), RuntimeCheck("onnx", "pass", "o 1"))


@pytest.fixture
def pi(tmp_path):
    for name, text in PI.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def described(root, **changes):
    there = {"machine": "aarch64", "python": "3.11.2", "libc": "glibc 2.36", **changes}
    return device.describe_device(root, **there)


def test_a_pi(pi):
    found = described(pi)
    assert found == Device(
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
    told = found.to_json()["throttled"]
    assert told == {
        "now": ("under-voltage", "throttled"),
        "since_start": ("under-voltage", "throttled"),
    }


def test_a_machine_that_tells_nothing(tmp_path):
    found = described(tmp_path)
    assert found.cores == os.cpu_count()
    silent = ("board", "cpu", "memory_bytes", "available_bytes", "os", "governor")
    assert [getattr(found, name) for name in silent] == [None] * 6
    assert (found.temperature_c, found.throttled, found.conditions) == (None, None, None)
    assert advise(found, GOOD) == ()


@pytest.mark.parametrize(
    ("told", "bits"),
    [("throttled=0x50000\n", 0x50000), ("throttled=0x0\n", 0), ("VCHI failed", None), (None, None)],
)
def test_the_firmware_is_asked_where_no_file_tells(tmp_path, told, bits):
    assert device.throttled(tmp_path, lambda: told) == bits


@pytest.mark.parametrize(
    ("name", "alarm", "bits"),
    [("rpi_volt", "1", 0x10001), ("rpi_volt", "0", None), ("cpu_thermal", "1", None)],
)
def test_under_voltage_where_only_the_kernel_tells(tmp_path, name, alarm, bits):
    folder = tmp_path / "sys/class/hwmon/hwmon1"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "in0_lcrit_alarm").write_text(alarm + "\n")
    assert device.throttled(tmp_path, lambda: None) == bits
    # What the firmware says is more.
    assert device.throttled(tmp_path, lambda: "throttled=0x50000\n") == 0x50000


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
def test_what_wheels_are_for(machine, bits, wheels_for):
    assert device.wheel_machine(machine, bits) == wheels_for


def looked_at(**changes):
    """What a device answers that is looked at from afar."""
    return {
        "files": {**PI, "sys/devices/platform/soc/soc:firmware/get_throttled": ""},
        "firmware": "throttled=0x50005\n",
        "machine": "aarch64",
        "bits": 64,
        "python": "3.11.2",
        "libc": "glibc 2.36",
        "cores": 4,
        **changes,
    }


def test_a_pi_from_afar_is_as_it_is_from_near(pi):
    assert device.device_from_snapshot(looked_at()) == described(pi)
    assert device.device_from_snapshot(looked_at(bits=32)).machine == "armv7l"
    assert device.device_from_snapshot(looked_at(files={})).cores == 4


def test_a_device_that_lies_writes_nothing_here(tmp_path):
    outside = tmp_path / "outside"
    names = (str(outside), f"../{outside.name}", f"proc/../../../../../../..{outside}", "../../x")
    device.device_from_snapshot(looked_at(files=dict.fromkeys(names, "evil")))
    assert not outside.exists()


@pytest.mark.parametrize(
    ("before", "after", "slow"),
    [
        (0, 0, False),
        (0x50000, 0x50000, False),  # it was slowed down earlier: this run was not
        (0, 0x4, True),
        (0x4, 0x40000, True),
        (0x10000, 0x50000, True),  # it began and ended in between
        (None, 0, None),
    ],
)
def test_slowed(before, after, slow):
    assert device.was_throttled(before, after) is slow


@pytest.mark.parametrize(
    ("machine", "python", "libc", "fits"),
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
def test_which_wheels_fit(tmp_path, machine, python, libc, fits):
    found = described(tmp_path, machine=machine, python=python, libc=libc)
    assert [name for name, why in device.fitting(found).items() if why is None] == fits


def test_findings_say_what_to_do(pi):
    (pi / "sys/class/thermal/thermal_zone0/temp").write_text("81000")
    (pi / "proc/meminfo").write_text("MemAvailable: 100000 kB\n")
    checks = (
        RuntimeCheck("tflite", "pass", "t 1", xnnpack=False),
        RuntimeCheck("onnx", "fail", reason="its process died of SIGILL"),
    )
    advice = advise(described(pi), checks)
    text = "\n".join(f"{item.level}: {item.what}" for item in advice)
    assert all(item.remedy for item in advice)
    assert "warning: TFLite runs without XNNPACK" in text
    assert "error: The runtime for onnx files does not work: its process died of SIGILL" in text
    assert "warning: The board is slowed down now: under-voltage" in text
    assert "warning: It is hot: 81 degrees" in text
    assert "note: The frequency governor is ondemand" in text
    assert "warning: Less than 200 MB" in text
    # What is so now is not told once more as having been so.
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
def test_a_missing_runtime(tmp_path, machine, format, level, remedy):
    checks = (RuntimeCheck(format, "not installed", reason="none"),)
    (finding,) = advise(described(tmp_path, machine=machine), checks)
    assert finding.level == level
    assert remedy in finding.remedy


def test_the_tiny_models_are_what_the_code_here_makes(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "tiny.tflite")
    artifacts.write_dense_onnx(tmp_path / "tiny.onnx", batch=1)
    for format, kept in runtime_check.TINY.items():
        assert base64.b64decode(kept) == (tmp_path / f"tiny.{format}").read_bytes(), format
    assert artifacts.dense(runtime_check.TINY_INPUT).tolist() == runtime_check.TINY_OUTPUT


def test_the_runtimes_here_work():
    tflite, onnx = runtime_check.check_runtimes()
    assert (tflite.state, tflite.xnnpack, tflite.reason) == ("pass", True, None)
    assert tflite.runtime.startswith("ai-edge-litert ")
    assert (onnx.state, onnx.xnnpack, onnx.reason) == ("pass", None, None)


def instead_of(tmp_path, package, code):
    """Starts children in which ``package`` is ``code``."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(code)
    return lambda: Worker(environment={"PYTHONPATH": str(tmp_path)})


def test_a_runtime_that_kills_its_process_is_a_line(tmp_path):
    start = instead_of(tmp_path, "onnxruntime", "import os, signal; os.kill(os.getpid(), 4)")
    tflite, onnx = runtime_check.check_runtimes(start)
    assert tflite.state == "pass"
    assert onnx.state == "fail"
    assert "died of SIGILL" in onnx.reason


def test_a_runtime_that_computes_wrong(tmp_path):
    code = """
import numpy
__version__ = "0"
class SessionOptions: pass
class InferenceSession:
    def __init__(self, *a, **k): pass
    def run(self, names, feeds): return [numpy.array([[-1.875, 43.5]], "float32")]
"""
    _, onnx = runtime_check.check_runtimes(instead_of(tmp_path, "onnxruntime", code))
    assert (onnx.state, onnx.reason) == ("fail", "it computed a tiny model wrong, by 0.5")


def test_a_runtime_that_is_not_installed(tmp_path):
    start = instead_of(tmp_path, "onnxruntime", "raise ModuleNotFoundError('none')")
    _, onnx = runtime_check.check_runtimes(start)
    assert onnx.state == "not installed"
