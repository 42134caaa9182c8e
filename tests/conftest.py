"""Shared fixtures. Neither this module nor collecting the tests imports TensorFlow."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import preloaded_worker
import pytest
from long_parameters import is_in_part

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.signing import NAMESPACE
from edgeattn.process import worker as worker_module
from edgeattn.process.worker import SANDBOX, Worker

TESTS = Path(__file__).parent
start_worker = worker_module.start_process


# Files that take longest start first, so that two processes end at about the same time.
LONGEST = (
    *("test_emulated_pi.py", "test_schemes.py", "test_diagnosis_of_faults.py", "test_faults.py"),
    *("test_lowering_structures.py", "test_convert.py", "test_load_specimens.py"),
    *("test_lowering_recurrent.py", "test_lowering_attention.py", "test_corpus.py"),
    *("test_attention_outputs.py", "test_sample_models.py", "test_quantized_convert.py"),
    *("test_tune.py", "test_formats.py", "test_shared_models.py", "test_light_commands.py"),
)
# Folders whose files share conversions, pages or an emulated system.
SHARED = ("tests/converters/quantization", "tests/faults", "tests/pi", "tests/report")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs the tests of a file, and those of a folder that share what they make."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder in SHARED else file

    return Scheduler(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="The tests of the files of this part only.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if part := config.getoption("--part"):
        others = [item for item in items if not is_in_part(item.path.name, part)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if is_in_part(item.path.name, part)]
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


imported_modules = len(sys.modules)


def pytest_runtest_teardown() -> None:
    """Searches for garbage leave out what imports of TensorFlow and Keras made and keep."""
    global imported_modules
    if len(sys.modules) > imported_modules + 500:
        imported_modules = len(sys.modules)
        gc.collect()
        gc.freeze()


@dataclass(frozen=True)
class CommandResult:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def edgeattn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., CommandResult]]:
    """Runs the command line in this process, with ``tmp_path`` as the current folder."""
    from edgeattn.cli.main import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object) -> CommandResult:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["edgeattn", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return CommandResult(caught.value.code, printed.out, printed.err)

    monkeypatch.chdir(tmp_path)
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def edgeattn_process(tmp_path: Path) -> Callable[..., CommandResult]:
    """Runs the command line in a new process; ``options`` are passed to :func:`subprocess.run`.

    ``prefix`` is a command that runs the command line, such as ``nice``.
    """

    def run(*arguments: object, prefix: Sequence[str] = (), **options: Any) -> CommandResult:
        process = subprocess.run(
            [*prefix, sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            **{"cwd": tmp_path, **options},
        )
        return CommandResult(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture
def dense_bundle(tmp_path: Path) -> Bundle:
    """A bundle with a dense layer as TFLite and ONNX, both correct."""
    from artifacts import write_dense_bundle

    return write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker process that can import the modules in ``tests``."""
    with Worker(environment={"PYTHONPATH": str(TESTS)}) as worker:
        yield worker


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two signing keys, and a file of allowed signers that lists one of them."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release", "stranger"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f")
        subprocess.run([*make, str(folder / name)], check=True)
    public = (folder / "release.pub").read_text()
    (folder / "allowed").write_text(f'release@example.org namespaces="{NAMESPACE}" {public}')
    return folder


@pytest.fixture(scope="session", autouse=True)
def preloaded_workers() -> Iterator[None]:
    """Conversion workers of commands in this process are forks of one that imported TensorFlow."""
    python_path = os.environ.get("PYTHONPATH")
    of_tf_keras = "edgeattn_converters.loading.with_tf_keras.tf_keras_process"
    with (
        preloaded_worker.Server() as server,
        preloaded_worker.Server(of_tf_keras) as tf_keras_server,
        pytest.MonkeyPatch.context() as patch,
    ):

        def start_or_fork(command: Sequence[str], environment: Mapping[str, str]) -> Any:
            # Only conversion workers enter the sandbox. Modules of a test come before TensorFlow.
            ours = environment.get("PYTHONPATH") in (python_path, str(TESTS))
            if environment.get(SANDBOX) and command[0] == sys.executable and ours:
                legacy = environment.get("TF_USE_LEGACY_KERAS") == "1"
                return (tf_keras_server if legacy else server).fork(environment)
            return start_worker(command, environment)

        patch.setattr(worker_module, "start_process", start_or_fork)
        yield


@pytest.fixture
def real_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are processes of their own, as they are for users."""
    monkeypatch.setattr(worker_module, "start_process", start_worker)
