"""``edgeattn bench``: the document, the text and the exit code."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import numpy as np
import pytest
from artifacts import rehash, samples

from edgeattn.api.bench import powers_of_two
from edgeattn.device.info import describe_device

KEYS = ["format", "scheme", "runtime", "threads", "runs", "p50_ms", "p90_ms", "p99_ms", "load_ms"]


def test_json_document(edgeattn, dense_bundle):
    result = edgeattn("bench", dense_bundle.path, "--json", "--threads", 1, "--runs", 64)
    assert (result.code, result.err) == (0, "")
    document = result.document
    assert [item["format"] for item in document["artifacts"]] == ["tflite", "onnx"]
    for item in document["artifacts"]:
        assert set(KEYS) <= set(item)
        assert (item["runs"], item["threads"], item["p99_ms"]) == (64, 1, None)
        assert item["p50_ms"] <= item["p90_ms"]
    assert document["energy"] == "not measurable"
    device = describe_device()
    assert (document["place"], document["machine"]) == ("here", device.summary)
    named = ("board", "cpu", "cores", "machine", "os", "python")
    assert {name: document["device"][name] for name in named} == {
        name: getattr(device, name) for name in named
    }
    runtimes = {item["runtime"] for item in document["artifacts"]}
    assert runtimes == {f"{name} {version(name)}" for name in ("ai-edge-litert", "onnxruntime")}


def test_text(edgeattn, dense_bundle):
    result = edgeattn("bench", dense_bundle.path, "--format", "onnx", "--runs", 5, "--threads", 2)
    assert (result.code, result.err) == (0, "")
    cells = result.out.splitlines()[1].split()
    assert cells[:2] == ["onnx", "float32"]
    assert cells[4:6] == ["2", "5"]
    assert cells[7:9] == ["-", "-"]  # p90 and p99 require more than 5 runs
    assert "Energy: see --sustained" in result.out
    assert f"Measured on {describe_device().summary}, Python " in result.out


def test_another_python(edgeattn, dense_bundle):
    arguments = ("--python", sys.executable, "--runs", 1, "--threads", 1, "--json")
    result = edgeattn("bench", dense_bundle.path, *arguments)
    assert (result.code, result.document["place"]) == (0, sys.executable)
    assert result.document["device"]["python"] == platform.python_version()


def test_error_for_a_command_that_is_not_python(edgeattn, dense_bundle):
    result = edgeattn("bench", dense_bundle.path, "--python", "/bin/false", "--threads", 1)
    assert result.code == 5
    assert "does not respond" in result.err


def test_exit_codes_of_an_artifact_that_does_not_load(edgeattn, dense_bundle):
    """5 is for devices: a file that its runtime refuses has the code of unsupported files."""
    dense_bundle.artifact_path(dense_bundle.manifest.artifacts[0]).write_bytes(b"no model")
    rehash(dense_bundle.path)
    np.save("x.npy", samples())
    selection = ("--format", dense_bundle.manifest.artifacts[0].format)
    measuring = ("bench", dense_bundle.path, *selection, "--threads", 1)
    assert edgeattn(*measuring, "--runs", 1).code == 3
    assert edgeattn(*measuring, "--sustained", 0.1).code == 3
    assert edgeattn("run", dense_bundle.path, *selection, "--input", "x.npy").code == 3
    assert edgeattn("validate", dense_bundle.path, *selection).code == 1


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4))]
)
def test_default_threads(cores, expected):
    assert powers_of_two(cores) == expected
