"""What becomes of the host's child process, and what it may not do."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeattn.errors import ConversionError, EdgeattnError, UnsupportedModelError
from edgeattn_converters.worker import client
from edgeattn_converters.worker.client import ConversionWorker


def test_an_unknown_stage_is_a_fault_of_ours() -> None:
    with ConversionWorker() as host, pytest.raises(EdgeattnError) as caught:
        host.call("no_such_stage", {}, what="nothing")
    assert caught.value.exit_code == 70


def test_a_stage_that_takes_too_long() -> None:
    told = r"The process for waiting took longer than 0\.05 s"
    with ConversionWorker() as host, pytest.raises(ConversionError, match=told):
        host.call("made_with", {}, what="waiting", timeout=0.05)


def test_a_file_that_never_ends_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HDF5 library can turn forever in a damaged file: looking a file through has an end."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setattr(client, "AUDIT_SECONDS", 0.05)
    with (
        ConversionWorker() as host,
        pytest.raises(UnsupportedModelError, match=r"model\.h5 cannot be read"),
    ):
        host.audit(path, None)


def _may_leave_network() -> bool:
    flags = 0x40000000 if os.geteuid() == 0 else 0x50000000
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return subprocess.run([sys.executable, "-c", probe]).returncode == 0


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "unshare") or not _may_leave_network(),
    reason="this system gives a process no network namespace of its own",
)
def test_there_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reaching.py").write_text(
        "import socket\n"
        "def reach(port):\n"
        "    try:\n"
        "        socket.create_connection(('127.0.0.1', port), timeout=2).close()\n"
        "        return 'reached'\n"
        "    except OSError as error:\n"
        "        return type(error).__name__\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from edgeattn.process.worker import Worker

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Worker() as free:
            assert free.call("reaching:reach", {"port": port})[0] == "reached"
        with Worker(environment=client.ENVIRONMENT) as confined:
            assert confined.call("reaching:reach", {"port": port})[0] != "reached"
