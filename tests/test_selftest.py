"""Output and exit codes of ``python -m edgeattn.selftest BUNDLE``."""

from __future__ import annotations

import subprocess
import sys

import artifacts
import numpy as np
import pytest


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgeattn.selftest", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


@pytest.mark.long
def test_passing_bundle(dense_bundle):
    process = run(dense_bundle.path)
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert "pass, XNNPACK on" in lines[0]
    assert lines[2:] == ["tflite float32: pass", "onnx float32: pass", "verdict: pass"]


def test_failing_bundle(tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    process = run(artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias).path)
    assert process.returncode == 1
    assert "tolerance_ratio of score" in process.stdout
    assert process.stdout.endswith("verdict: fail\n")


@pytest.mark.long
def test_missing_bundle(tmp_path):
    process = run(tmp_path / "none.edge")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("Error: No such bundle")
