"""A project of a user, checked by type checkers that know only the installed package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeattn

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
    edgeattn.load(edgeattn.deploy(bundle, "pi@a"), best=True)
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
    # pyright does not look for the types of a package in the .pth files of editable installations.
    folder = Path(edgeattn.__file__).parents[1]
    return subprocess.run(
        command,
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


@pytest.mark.long
def test_mypy(project):
    pytest.importorskip("mypy")
    checked = check(project, sys.executable, "-m", "mypy", "program.py")
    assert checked.returncode == 0, checked.stdout
    mistakes = check(project, sys.executable, "-m", "mypy", "mistakes.py").stdout
    lines = {int(line.split(":")[1]) for line in mistakes.splitlines() if ": error:" in line}
    assert lines == {4, 5, 6, 7}, mistakes


@pytest.fixture
def pyright(project):
    """Runs pyright, or basedpyright, which contains Node.js; returns its report."""
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("basedpyright", path=folders) or shutil.which("pyright", path=folders)
    if program is None:
        pytest.skip("basedpyright is not installed")
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')

    def run(*arguments):
        checked = check(
            project, program, "--pythonpath", sys.executable, "--outputjson", *arguments
        )
        return json.loads(checked.stdout)

    return run


@pytest.mark.long
def test_pyright(pyright):
    assert pyright("program.py")["generalDiagnostics"] == []
    mistakes = pyright("mistakes.py")["generalDiagnostics"]
    assert {item["range"]["start"]["line"] + 1 for item in mistakes} == {4, 5, 6, 7}, mistakes


@pytest.mark.long
def test_every_public_name_has_a_type(pyright):
    report = pyright("--verifytypes", "edgeattn", "--ignoreexternal")["typeCompleteness"]
    public = tuple(
        f"{value.__module__}.{name}"
        for name in edgeattn.__all__
        if hasattr(value := getattr(edgeattn, name), "__module__")
    )
    names = {item["name"]: item for item in report["symbols"]}
    assert set(public) <= set(names)
    untyped = [
        (name, [item["message"] for item in symbol["diagnostics"]])
        for name, symbol in names.items()
        if name in public or name.startswith(tuple(f"{owner}." for owner in public))
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
    ]
    assert untyped == []
