"""Ends a process before a change of the disk, or lets that change fail, by an audit hook.

Processes that are forked later, such as the workers of :func:`fork_workers`, inherit the hook:
their changes are counted with those of the process that installed it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn.process import server, worker

# Audit events of functions that change a disk.
DISK_EVENTS = {
    *("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod"),
    *("os.truncate", "os.utime"),
}


WORKER = "worker: "  # precedes the changes of forked processes
_lock = threading.Lock()


class Changes:
    """A list of the changes of all processes, in their order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - until the process ends
        self._count = mmap.mmap(-1, 8)

    def add(self, change: str) -> int:
        """Add a change; returns its number, counted from 1."""
        handle = os.dup(self._file.fileno())
        # One lock between processes, and one between threads.
        _lock.acquire()
        fcntl.lockf(handle, fcntl.LOCK_EX)
        try:
            (count,) = struct.unpack("<Q", self._count[:8])
            self._count[:8] = struct.pack("<Q", count + 1)
            os.write(handle, json.dumps(change).encode() + b"\n")
            return int(count) + 1
        finally:
            os.close(handle)  # releases the lock between processes
            _lock.release()

    def all(self) -> list[str]:
        self._file.seek(0)
        return [json.loads(line) for line in self._file.read().splitlines()]


def record_changes(home: Path, stop_at: int | None, mode: str) -> Changes:
    """Record what changes files under ``home``, in this process and those that it forks.

    Before change number ``stop_at``, kill this process and the one that makes the change (mode
    "kill"), kill only the latter ("worker"), or raise the error of a full disk ("full").
    """
    changes, command = Changes(), os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            is_change = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, is_change = arguments[0] if arguments else None, event in DISK_EVENTS
        if not is_change or not isinstance(path, str | os.PathLike):
            return
        # Functions that take a descriptor report relative paths.
        if Path(path).is_absolute() and not str(path).startswith(str(home)):
            return
        where = "" if os.getpid() == command else WORKER
        if changes.add(f"{where}{event} {path}") == stop_at:
            if mode == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if mode == "kill":
                os.kill(command, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return changes


def in_process(action: Callable[[], Any]) -> Any:
    """The result of ``action`` in a process of its own; ``None`` if that process died.

    Returns when the processes that it forked have ended, too.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            os.write(write, json.dumps(action()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        result = stream.read()
    os.waitpid(pid, 0)
    return json.loads(result) if result else None


class _Forked:
    """A worker that was forked instead of started, with the interface of a process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        pipes = [os.pipe() for _ in range(3)]
        (request, stdin), (stdout, reply), (stderr, errors) = pipes
        self.pid = os.fork()
        if not self.pid:
            try:
                for number, end in enumerate((request, reply, errors)):
                    os.dup2(end, number)
                for end in (stdin, stdout, stderr):
                    os.close(end)
                os.environ.update(environment)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                server.main()
            finally:
                os._exit(0)
        for end in (request, reply, errors):
            os.close(end)
        self.stdin = os.fdopen(stdin, "wb")
        self.stdout = os.fdopen(stdout, "rb")
        self.stderr: io.BufferedReader | None = os.fdopen(stderr, "rb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_workers() -> None:
    """Fork the worker processes of edgeattn from now on, which inherit the audit hooks.

    They start without importing anything that this process has imported.
    """
    start = worker.start_process

    def start_or_fork(command: Sequence[str], environment: Mapping[str, str]) -> Any:
        if list(command[-2:]) == ["-m", "edgeattn.child"]:
            return _Forked(environment)
        return start(command, environment)

    worker.start_process = start_or_fork
