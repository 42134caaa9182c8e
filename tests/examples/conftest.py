"""Run the examples as a user does, on random data in the formats of the real data sets."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from example_results import EXAMPLES, ROOT

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


@pytest.fixture
def real() -> Path:
    """The folder with the real data sets."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets are not in ../shared/data")
    return REAL_DATA
