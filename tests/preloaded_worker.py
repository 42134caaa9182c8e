"""Worker processes that have TensorFlow and Keras already: forks of a process that imported them.

Importing them takes seconds, and hundreds of tests start a conversion worker. A fork has the same
modules in the state after the import, runs the same :func:`edgeattn.process.server.main`, and
enters its sandbox itself. Tests of the command line in a process of its own start real workers.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO


class ForkedProcess:
    """The part of :class:`subprocess.Popen` that :class:`edgeattn.process.worker.Worker` uses."""

    def __init__(self, socket_path: Path, environment: Mapping[str, str]) -> None:
        pipes = [os.pipe() for _ in range(3)]
        theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(socket_path))
        header = json.dumps([dict(environment), str(Path.cwd())]).encode()
        socket.send_fds(self._connection, [len(header).to_bytes(4, "little")], list(theirs))
        self._connection.sendall(header)
        for number in theirs:
            os.close(number)
        self.stdin: IO[bytes] = os.fdopen(pipes[0][1], "wb")
        self.stdout: IO[bytes] = os.fdopen(pipes[1][0], "rb")
        self.stderr: IO[bytes] = os.fdopen(pipes[2][0], "rb")
        self.pid = int.from_bytes(_read(self._connection, 4), "little")
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                if not select.select([self._connection], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("worker", timeout or 0)
                status = int.from_bytes(_read(self._connection, 4), "little")
                self.returncode = os.waitstatus_to_exitcode(status)
                self._connection.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Server:
    """Starts with the first fork; a context that ends it and its forks.

    ``owner`` is the module with the environment and the modules of the workers.
    """

    def __init__(self, owner: str = "edgeattn_converters.worker.processes") -> None:
        self._owner = owner
        # That of the session, whatever a test changes.
        self._environment = dict(os.environ)
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def fork(self, environment: Mapping[str, str]) -> ForkedProcess:
        """A worker process with these environment variables."""
        path = Path(self._folder.name) / "socket"
        with self._lock:
            self._start(path, importlib.import_module(self._owner).ENVIRONMENT)
        return ForkedProcess(path, environment)

    def _start(self, path: Path, settings: Mapping[str, str]) -> None:
        if self._process is None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                listener.listen()
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(listener.fileno()), self._owner],
                    pass_fds=[listener.fileno()],
                    env={**self._environment, **settings},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )


def _serve(listener: socket.socket, owner: str) -> None:
    """Fork for every connection, and report on it how its fork ended.

    Returns when standard input ends, because the tests have ended, even if they were killed.
    """
    children: dict[int, socket.socket] = {}
    wakeup, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in (*importlib.import_module(owner).MODULES, "edgeattn.process.server"):
        importlib.import_module(name)
    while True:
        readable = select.select([listener, wakeup, sys.stdin], [], [])[0]
        if sys.stdin in readable:
            return
        if wakeup in readable:
            os.read(wakeup, 4096)
            _report(children)
        if listener not in readable:
            continue
        connection, _ = listener.accept()
        size, descriptors, *_ = socket.recv_fds(connection, 4, 3)
        environment, folder = json.loads(_read(connection, int.from_bytes(size, "little")))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            os.closerange(3, 1 + max(descriptors[-1], connection.fileno()))
            _serve_calls(environment, folder)
        for descriptor in descriptors:
            os.close(descriptor)
        children[pid] = connection
        connection.sendall(pid.to_bytes(4, "little"))


def _serve_calls(environment: dict[str, str], folder: str) -> None:
    """What ``python -m edgeattn.child`` does."""
    from edgeattn.process.server import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.extend(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _report(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as connection, contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(4, "little"))


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError("The server of forks has ended.")
        data += part
    return data


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
