"""``edgeattn doctor``: the document, the text and the exit code."""

from __future__ import annotations

import pytest

from edgeattn.cli.doctor import format_text
from edgeattn.device import runtime_check
from edgeattn.device.advice import Advice
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import RuntimeCheck


def test_json_document(edgeattn):
    result = edgeattn("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    document = result.document
    assert list(document) == ["verdict", "device", "wheels", "runtimes", "findings"]
    assert document["verdict"] == "pass"
    assert {"board", "cores", "memory_bytes", "throttled", "governor"} <= set(document["device"])
    assert [item["distribution"] for item in document["wheels"]] == [
        "ai-edge-litert",
        "tflite-runtime",
        "onnxruntime",
    ]
    assert [(item["format"], item["state"]) for item in document["runtimes"]] == [
        ("tflite", "pass"),
        ("onnx", "pass"),
    ]


def test_exit_code_without_working_runtime(edgeattn, monkeypatch):
    missing = tuple(RuntimeCheck(name, "not installed") for name in ("tflite", "onnx"))
    monkeypatch.setattr(runtime_check, "check_runtimes", lambda: missing)
    result = edgeattn("doctor")
    assert result.code == 5
    assert "pip install ai-edge-litert" in result.out
    assert edgeattn("doctor", "--json").document["verdict"] == "fail"


@pytest.mark.parametrize(
    ("flags", "throttling"),
    [
        (None, "unknown"),
        (0, "none since boot"),
        (0x10001, "now: under-voltage; since boot: under-voltage"),
        (0x40000, "since boot: throttled"),
    ],
)
def test_text(flags, throttling):
    device = Device(
        board="Raspberry Pi 5",
        machine="aarch64",
        cpu="Cortex-A76",
        cores=4,
        features=("fp", "asimd", "asimddp"),
        memory_bytes=8 * 10**9,
        available_bytes=7 * 10**9,
        os="Debian",
        libc="glibc 2.36",
        python="3.11.2",
        governor="ondemand",
        temperature_c=51.04,
        throttled=flags,
    )
    checks = (
        RuntimeCheck("tflite", "pass", "ai-edge-litert 2.3.0", xnnpack=True),
        RuntimeCheck("onnx", "fail", reason="its process died of SIGILL"),
    )
    advice = (Advice("note", "A condition.", "Do this."),)
    lines = [" ".join(line.split()) for line in format_text(device, checks, advice).splitlines()]
    assert lines == [
        "board Raspberry Pi 5",
        "processor Cortex-A76, 4 cores, aarch64",
        "CPU features asimd asimddp",
        "memory 8.0 GB, 7.0 GB available",
        "system Debian, glibc 2.36, Python 3.11.2",
        "CPU governor ondemand",
        "temperature 51.0 °C",
        f"throttling {throttling}",
        "ai-edge-litert wheel installable",
        "tflite-runtime wheel installable",
        "onnxruntime wheel installable",
        "tflite runtime ai-edge-litert 2.3.0, works, XNNPACK on",
        "onnx runtime fails: its process died of SIGILL",
        "",
        "note: A condition.",
        "Do this.",
    ]
