"""The examples as a user runs them, and as modules. Their data are made up here, in its format."""

from __future__ import annotations

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
# Real data lie beside the project where they were put there, and never in it.
REAL = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keras and its backends warn of their own doings; the tests are about ours."""
    for item in items:
        if "examples" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def run_example(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``run_example(name, *arguments, backend=...)``: the document of a quick run to the end."""

    def run(name: str, *arguments: object, backend: str = "tensorflow") -> dict[str, Any]:
        ended = subprocess.run(
            [sys.executable, EXAMPLES / f"{name}.py", "--quick", "-o", tmp_path / "made"]
            + [str(argument) for argument in arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        # Hardly trained, a model may lose more than its margin, or on too few samples to tell.
        assert ended.returncode in (0, 1, 6), ended.stderr
        document: dict[str, Any] = json.loads((tmp_path / "made" / "result.json").read_text())
        assert document["backend"] == backend
        return document

    return run


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the examples' modules importable, as they are to one another."""
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def real() -> Path:
    """The folder of real data."""
    if not REAL.is_dir():
        pytest.skip("real data are not beside the project, at ../shared/data")
    return REAL
