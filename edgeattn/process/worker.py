"""Functions called in a process of their own, because native code crashes.

The child is this interpreter (or another one that has edgeattn), reading calls on its standard
input and answering on its standard output. A message is JSON with numpy arrays behind it, so that
nothing that comes back is ever executed; and the death of the child, whatever killed it, is one
:class:`WorkerDied` with the last of what it printed.

A frame: 8 bytes, the length of the JSON in little-endian order; the JSON; then the bytes of each
array in the order of its ``arrays`` list. A file is never passed: both ends see the same disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors, progress
from edgeattn.process.protocol import frame, read_message, rebuild, write

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# Set in its environment, the child leaves the network and limits its memory.
CONFINED = "EDGEATTN_CONFINED"
# The part of a dead child's output that a person reads.
TAIL = 4000


class WorkerDied(errors.EdgeattnError):
    """The child process ended, or was ended, before it answered."""

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class _Gone(Exception):
    """The other end of the pipe is closed."""


class _NoAnswer(Exception):
    """What came through the pipe is no frame."""


class Worker:
    """A process that calls functions by name, started at its first call and again after a death."""

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # -P: whatever lies in the current folder, a json.py say, is not to be imported.
        self._command = list(command or [sys.executable, "-P", "-m", "edgeattn.child"])
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, Tensors]:
        """Call ``"module:function"`` there: its result and its arrays.

        The function gets ``arguments`` as keywords and, where ``tensors`` are given, those as
        ``tensors``. It returns something that JSON can hold, or a pair of that and arrays.
        Errors of edgeattn's own arrive as they were raised; :class:`WorkerDied` says that the
        process ended, with the signal's name, or that it took longer than ``timeout`` seconds.
        """
        request = frame({"call": function, "arguments": dict(arguments or {})}, tensors)
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = None if timeout is None else threading.Timer(timeout, expire)
        if timer is not None:
            timer.start()
        try:
            self._send(process.stdin, request)
            header, arrays = self._answer_from(process.stdout)
        except _Gone as error:
            why = f"took longer than {timeout:g} s" if expired.is_set() else None
            raise self._died(why, patience=5) from error
        except _NoAnswer as error:
            raise self._died(None, patience=0.5) from error
        except BaseException:
            # Half an answer may be under way: this child cannot be asked again.
            self.close()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if expired.is_set():
            # It answered in the moment in which it was ended: the next call needs a new one.
            self.close()
        if "error" in header:
            raise rebuild(header["error"])
        return header.get("result"), arrays

    def _send(self, stream: IO[bytes], request: Sequence[Any]) -> None:
        try:
            write(stream, request)
        except OSError as error:
            raise _Gone from error

    def _answer_from(self, stream: IO[bytes]) -> tuple[dict[str, Any], Tensors]:
        while True:
            try:
                header, arrays = read_message(stream)
            except (EOFError, OSError) as error:
                raise _Gone from error
            except (ValueError, MemoryError) as error:
                raise _NoAnswer from error
            if "progress" not in header:
                return header, arrays
            progress.report(str(header["progress"]))

    def kill(self) -> None:
        """From another thread: end the process, and with it, as :class:`WorkerDied`, its call."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child and forget what it printed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env=self._environment,
                )
            except OSError as error:
                self.close()
                raise WorkerDied(f"could not be started: {error}") from error
        return self._process

    def _died(self, why: str | None, *, patience: float) -> WorkerDied:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience)
        code = self._process.poll()
        if why is None:
            if code is None:
                why = "answered with something that is no answer"
            elif code < 0:
                why = f"died of {signal_name(-code)}"
            else:
                why = f"ended with exit status {code}"
        output = self._tail()
        self.close()
        return WorkerDied(why, output=output)

    def _tail(self) -> str:
        if self._log is None:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - TAIL))
        return self._log.read().decode("utf-8", "replace")


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
