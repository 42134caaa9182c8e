"""``edgeattn doctor``: the document, the text and the exit code."""

from __future__ import annotations

import pytest

from edgeattn.cli.doctor import as_text
from edgeattn.device import runtime_check
from edgeattn.device.advice import Advice
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import RuntimeCheck


def test_the_document(edgeattn):
    told = edgeattn("doctor", "--json")
    assert (told.code, told.err) == (0, "")
    document = told.document
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


def test_no_runtime_works(edgeattn, monkeypatch):
    missing = tuple(RuntimeCheck(name, "not installed") for name in ("tflite", "onnx"))
    monkeypatch.setattr(runtime_check, "check_runtimes", lambda: missing)
    told = edgeattn("doctor")
    assert told.code == 5
    assert "pip install ai-edge-litert" in told.out
    assert edgeattn("doctor", "--json").document["verdict"] == "fail"


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        (None, "not told"),
        (0, "none since the start"),
        (0x10001, "now: under-voltage; since the start: under-voltage"),
        (0x40000, "since the start: throttled"),
    ],
)
def test_the_text(bits, told):
    found = Device(
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
        throttled=bits,
    )
    checks = (
        RuntimeCheck("tflite", "pass", "ai-edge-litert 2.3.0", xnnpack=True),
        RuntimeCheck("onnx", "fail", reason="its process died of SIGILL"),
    )
    advice = (Advice("note", "Something is so.", "Do this."),)
    lines = [" ".join(line.split()) for line in as_text(found, checks, advice).splitlines()]
    assert lines == [
        "board Raspberry Pi 5",
        "processor Cortex-A76, 4 cores, aarch64",
        "features asimd asimddp",
        "memory 8.0 GB, 7.0 GB free",
        "system Debian, glibc 2.36, Python 3.11.2",
        "governor ondemand",
        "temperature 51.0 degrees",
        f"throttling {told}",
        "ai-edge-litert wheel fits",
        "tflite-runtime wheel fits",
        "onnxruntime wheel fits",
        "tflite runtime ai-edge-litert 2.3.0, computes right, XNNPACK on",
        "onnx runtime fails: its process died of SIGILL",
        "",
        "note: Something is so.",
        "Do this.",
    ]
