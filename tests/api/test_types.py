"""A project of a user, checked by type checkers that know only the installed package."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

PROGRAM = """
from pathlib import Path
from typing import Any, assert_type

import numpy as np

import edgeattn
from edgeattn import Artifact, Bundle, Model, Recommendation, Report


def convert(model: Any, x: np.ndarray[Any, Any]) -> Path:
    result = edgeattn.convert(model, schemes="int8", calibration=x, time_steps=[8, 16])
    assert_type(result, edgeattn.ConversionResult)
    assert_type(result.bundles, tuple[Bundle, ...])
    assert_type(result.verdict, str)
    return result.path


def validate(path: Path) -> int:
    result = edgeattn.validate(path, data=(np.zeros(1), np.zeros(1)), limits={"snr_db": 30.0})
    assert_type(result, edgeattn.ValidationResult)
    assert_type(result.report, Report)
    assert_type(result.recommendation, Recommendation)
    assert_type(result.recommendation.artifact, Artifact | None)
    assert_type(result.to_dict(), dict[str, Any])
    return result.exit_code


def use(bundle: Bundle) -> None:
    measured = edgeattn.bench(edgeattn.validate(bundle), threads=[1, 2])
    assert_type(measured, edgeattn.BenchResult)
    model = edgeattn.load(measured, best=True)
    assert_type(model, Model)
    assert_type(model.input_names, tuple[str, ...])
    model.predict({"x": np.zeros((2, 3))})["score"].mean()
    assert_type(edgeattn.run(bundle, np.zeros((2, 3))).samples, int)
    assert_type(edgeattn.inspect(bundle).kind, str)
    assert_type(edgeattn.tune("m.h5", "d.npz").bundle, Bundle)
    assert_type(edgeattn.deploy(bundle, "pi@a", "pi@b").exit_code, int)
"""
MISTAKES = """
import edgeattn

edgeattn.convert("m.h5", scheme="int8")
edgeattn.validate("m.edge", jobs="all")
edgeattn.bench("m.edge").latency_ms
edgeattn.load("m.edge").predict()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    return tmp_path


def check(project, *command):
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, timeout=1200
    )


@pytest.mark.long
def test_mypy(project):
    pytest.importorskip("mypy")
    checked = check(project, sys.executable, "-m", "mypy", "program.py")
    assert checked.returncode == 0, checked.stdout
    mistakes = check(project, sys.executable, "-m", "mypy", "mistakes.py").stdout
    lines = {int(line.split(":")[1]) for line in mistakes.splitlines() if ": error:" in line}
    assert lines == {4, 5, 6, 7}, mistakes


@pytest.mark.long
def test_pyright(project):
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    checked = check(project, pyright, "--pythonpath", sys.executable, "program.py")
    assert checked.returncode == 0, checked.stdout
    mistakes = check(project, pyright, "--pythonpath", sys.executable, "mistakes.py").stdout
    lines = {int(line.split(":")[1]) for line in mistakes.splitlines() if "error:" in line}
    assert lines == {4, 5, 6, 7}, mistakes
