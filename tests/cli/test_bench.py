"""``edgeattn bench``: the document, the text and the exit code."""

from __future__ import annotations

import sys

import pytest

from edgeattn.cli.bench import doubling

KEYS = ["format", "scheme", "runtime", "threads", "runs", "p50_ms", "p90_ms", "p99_ms", "load_ms"]


def test_the_document(edgeattn, dense_bundle):
    told = edgeattn("bench", dense_bundle.path, "--json", "--threads", 1, "--runs", 64)
    assert (told.code, told.err) == (0, "")
    document = told.document
    assert [item["format"] for item in document["artifacts"]] == ["tflite", "onnx"]
    for item in document["artifacts"]:
        assert set(KEYS) <= set(item)
        assert (item["runs"], item["threads"], item["p99_ms"]) == (64, 1, None)
        assert item["p50_ms"] <= item["p90_ms"]
    assert document["energy"] == "not measurable"


def test_the_text(edgeattn, dense_bundle):
    told = edgeattn("bench", dense_bundle.path, "--format", "onnx", "--runs", 5, "--threads", 2)
    assert (told.code, told.err) == (0, "")
    words = told.out.splitlines()[1].split()
    assert words[:2] == ["onnx", "float32"]
    assert words[4:6] == ["2", "5"]
    assert words[7:9] == ["-", "-"]  # 5 runs support neither p90 nor p99
    assert "Energy: not measurable" in told.out


def test_another_python(edgeattn, dense_bundle):
    arguments = ("--python", sys.executable, "--runs", 1, "--threads", 1, "--json")
    told = edgeattn("bench", dense_bundle.path, *arguments)
    assert (told.code, told.document["place"]) == (0, sys.executable)


def test_a_python_that_is_none(edgeattn, dense_bundle):
    told = edgeattn("bench", dense_bundle.path, "--python", "/bin/false", "--threads", 1)
    assert told.code == 5
    assert "does not answer" in told.err


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, (1,)), (2, (1, 2)), (3, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4))]
)
def test_threads_by_default(cores, threads):
    assert doubling(cores) == threads
