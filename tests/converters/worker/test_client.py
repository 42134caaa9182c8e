"""The conversion worker: its failures, its time limits and its sandbox."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from edgeattn.errors import ConversionError, EdgeattnError, UnsupportedModelError
from edgeattn.process import worker as worker_module
from edgeattn.process.worker import Worker
from edgeattn_converters.worker import client, processes
from edgeattn_converters.worker.client import ConversionWorker

# Computes without an end, as the HDF5 library may.
ENDLESS = """
from edgeattn.process.sandbox import limited_processor_time

def audit(path, trust, seconds):
    with limited_processor_time(seconds):
        while True:
            pass
"""


def test_an_unknown_task_is_an_internal_error() -> None:
    with ConversionWorker() as worker, pytest.raises(EdgeattnError) as caught:
        worker.call("no_such_task", {}, activity="testing")
    assert caught.value.exit_code == 70


@pytest.mark.usefixtures("real_workers")
def test_a_task_that_exceeds_its_time_limit() -> None:
    message = r"The worker process took longer than 0\.05 s while testing"
    with ConversionWorker() as worker, pytest.raises(ConversionError, match=message):
        worker.call("package_versions", {}, activity="testing", timeout=0.05)


@pytest.mark.usefixtures("real_workers")
def test_an_audit_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file can keep the HDF5 library in an endless loop, so the audit has a limit."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "endless.py").write_text(ENDLESS)
    monkeypatch.setattr(client, "TASKS", "endless")
    monkeypatch.setattr(client, "AUDIT_SECONDS", 0.05)
    monkeypatch.setattr(client, "AUDIT_WAIT", 10_000.0)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        Worker(environment={"PYTHONPATH": paths}) as computing,
        mock.patch.object(ConversionWorker, "_worker", computing),
        pytest.raises(
            UnsupportedModelError, match=r"model\.h5 cannot be read: the audit"
        ) as caught,
    ):
        ConversionWorker().audit(path, None)
    assert caught.value.message.endswith("needed more than 0 s of processor time.")
    assert "copy the file again" in str(caught.value.hint)


@pytest.mark.usefixtures("real_workers")
def test_an_audit_that_only_waits_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs may need the processor: 12 files were refused by a limit by the clock."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setattr(client, "AUDIT_WAIT", 0.05 / client.AUDIT_SECONDS)
    with (
        ConversionWorker() as worker,
        pytest.raises(ConversionError, match=r"audit of model\.h5 took longer than") as caught,
    ):
        worker.audit(path, None)
    assert str(caught.value.hint).startswith("Try again when this machine is less busy")


def test_processor_time_is_limited_in_the_block_only() -> None:
    code = (
        "import time; from edgeattn.process.sandbox import limited_processor_time as limited\n"
        "with limited(60): sum(range(10**5))\n"
        "end = time.process_time() + 1.5\n"
        "while time.process_time() < end: pass\n"
        "print('free', flush=True)\n"
        "with limited(0.5):\n"
        "    while True: pass"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("free\n", -signal.SIGXCPU)


@pytest.mark.usefixtures("real_workers")
def test_a_worker_that_cannot_start_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_process(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(worker_module, "start_process", start_process)
    message = "could not be started: .*Cannot allocate memory"
    with ConversionWorker() as worker, pytest.raises(ConversionError, match=message) as caught:
        worker.audit(tmp_path / "model.h5", None)
    assert "damaged" not in f"{caught.value.message} {caught.value.hint}"


def _supports_network_namespaces() -> bool:
    flags = 0x40000000 if os.geteuid() == 0 else 0x50000000
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return subprocess.run([sys.executable, "-c", probe]).returncode == 0


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "unshare") or not _supports_network_namespaces(),
    reason="this system does not support network namespaces for processes",
)
def test_the_worker_has_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "connecting.py").write_text(
        "import socket\n"
        "def connect(port):\n"
        "    try:\n"
        "        socket.create_connection(('127.0.0.1', port), timeout=600).close()\n"
        "        return 'connected'\n"
        "    except OSError as error:\n"
        "        return type(error).__name__\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from edgeattn.process.worker import Worker

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Worker() as unconfined:
            assert unconfined.call("connecting:connect", {"port": port})[0] == "connected"
        with Worker(environment=processes.ENVIRONMENT) as confined:
            assert confined.call("connecting:connect", {"port": port})[0] != "connected"


def process_of(worker: ConversionWorker) -> int:
    """The process of the worker, after a call."""
    worker.call("package_versions", {}, activity="testing")
    process = worker._worker._process
    assert process is not None
    return process.pid


def test_conversions_take_turns_in_a_kept_process() -> None:
    with processes.kept(end=True):
        with ConversionWorker() as first:
            process = process_of(first)
        with ConversionWorker() as second:
            assert process_of(second) == process
            # The first one has ended, and leaves the process alone.
            first.close()
            with ConversionWorker() as third:  # while the other one has work
                assert process_of(third) != process
            assert process_of(second) == process
        with processes.kept(end=True):
            pass
        with ConversionWorker() as fourth:  # one of them was kept
            assert fourth._worker.running
    with ConversionWorker() as other:
        assert process_of(other) != process
        assert not other._worker.forks


def test_a_crash_ends_one_conversion_of_a_kept_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with processes.kept(end=True):
        with ConversionWorker() as worker, monkeypatch.context() as patch:
            patch.setattr(client, "TASKS", "os")
            with pytest.raises(ConversionError, match="died of SIGABRT while testing"):
                worker.call("abort", {}, activity="testing")
        with ConversionWorker() as worker:
            assert process_of(worker)
