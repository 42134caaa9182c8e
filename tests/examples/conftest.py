"""Run the examples as a user does, on random data in the formats of the real data sets."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
# The real data sets are not part of the project.
REAL_DATA = ROOT.parent / "shared" / "data"
# pass, fail and inconclusive: after a quick training, the task may fail or be inconclusive.
EXIT_CODES = (0, 1, 6)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keras and its backends emit warnings that are not ours."""
    for item in items:
        if "examples" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of the examples importable."""
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def run_example(tmp_path: Path, modules: None) -> Callable[..., Path]:
    """``run_example(name, *arguments)`` runs an example with ``--quick`` and returns its folder.

    With ``backend``, it runs in a new process with that backend of Keras, otherwise in this one.
    """
    from click.testing import CliRunner

    def run(name: str, *arguments: object, backend: str | None = None) -> Path:
        folder = tmp_path / "output"
        options = ["--quick", "-o", str(folder), *map(str, arguments)]
        if backend is None:
            result = CliRunner().invoke(importlib.import_module(name).main, options)
            assert result.exit_code in EXIT_CODES, result.output
            return folder
        ended = subprocess.run(
            [sys.executable, EXAMPLES / f"{name}.py", *options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        assert ended.returncode in EXIT_CODES, ended.stderr
        return folder

    return run


def read_result(folder: Path, samples: int) -> Any:
    """``result.json`` of a complete run, checked."""
    result = json.loads((folder / "result.json").read_text())
    assert {(item["format"], item["scheme"]) for item in result["artifacts"]} == {
        (format, scheme) for format in ("tflite", "onnx") for scheme in ("float32", "int8")
    }
    assert result["failures"] == []
    assert result["keras"]["samples"] == samples
    for item in result["artifacts"]:
        if item["scheme"] == "float32":
            assert item["stages"]["numbers"] == item["stages"]["attention"] == "pass"
            assert item["score"] == pytest.approx(result["keras"]["score"], abs=1e-6)
            assert item["attention"]["max_abs_error"] <= 1e-5
        else:
            assert item["weights"]["type"] == "int8"
            assert item["operators"]["total"] > 0
        assert item["bytes"] > 0
        assert item["latency_ratio"] > 0
    assert (folder / "report.html").stat().st_size > 1000
    return result


@pytest.fixture
def real() -> Path:
    """The folder with the real data sets."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets are not in ../shared/data")
    return REAL_DATA
