"""Fixtures that tests share. Nothing here imports TensorFlow, and neither does collecting them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.process.worker import Worker

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """What a command printed and the exit code it ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def edgeattn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """Runs the command line in ``tmp_path``, in this process: what it runs has its own anyway."""
    from edgeattn.cli.main import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["edgeattn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, printed.out, printed.err)

    monkeypatch.chdir(tmp_path)
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def edgeattn_process(tmp_path: Path) -> Callable[..., Ended]:
    """As ``edgeattn``, in a process of its own; options go to :func:`subprocess.run`.

    ``before`` is a command that the command line is appended to.
    """

    def run(*arguments: object, before: Sequence[str] = (), **options: Any) -> Ended:
        done = subprocess.run(
            [*before, sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **{"cwd": tmp_path, **options},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def dense_bundle(tmp_path: Path) -> Bundle:
    """A bundle of a dense layer as TFLite and ONNX, both right."""
    from artifacts import write_dense_bundle

    return write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def child() -> Iterator[Worker]:
    """A child process that can import what lies in ``tests``."""
    with Worker(environment={"PYTHONPATH": str(TESTS)}) as it:
        yield it
