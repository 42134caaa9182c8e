"""``python -m edgeattn.selftest BUNDLE``"""

from __future__ import annotations

import subprocess
import sys

import artifacts
import numpy as np


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgeattn.selftest", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def test_pass(dense_bundle):
    done = run(dense_bundle.path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "pass, XNNPACK on" in lines[0]
    assert lines[2:] == ["tflite float32: pass", "onnx float32: pass", "verdict: pass"]


def test_fail(tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    done = run(artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias).path)
    assert done.returncode == 1
    assert "tolerance_ratio of score" in done.stdout
    assert done.stdout.endswith("verdict: fail\n")


def test_no_bundle(tmp_path):
    done = run(tmp_path / "none.edge")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: No such bundle")
