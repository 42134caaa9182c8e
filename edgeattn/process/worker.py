"""Functions called in a worker process, so that native code that crashes ends only the worker.

The worker is this Python, or another one that has edgeattn. It reads calls from its standard input
and writes results to its standard output, in the format of :mod:`edgeattn.process.protocol`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors, progress
from edgeattn.process.protocol import MAX_ARRAYS, error_from_json, frame, read_message, write
from edgeattn.process.streams import Tail
from edgeattn.process.watchdog import Watchdog

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# An environment variable: if it is set, the worker enters the sandbox.
SANDBOX = "EDGEATTN_CONFINED"
# An environment variable: names of modules, separated by commas, that the worker imports once, to
# serve every session in a fork of itself.
PRELOAD = "EDGEATTN_PRELOAD"
# Seconds in which an idle worker ends a session.
_END_SECONDS = 30.0
# Characters of a progress message that are shown.
MAX_PROGRESS = 200


class WorkerDiedError(errors.EdgeattnError):
    """The worker process ended before it returned a result; ``output`` is its last output.

    ``timed_out`` is whether it was ended because its call took too long, ``started`` whether it
    ran at all.
    """

    def __init__(
        self, message: str, *, output: str = "", timed_out: bool = False, started: bool = True
    ) -> None:
        super().__init__(message)
        self.output = output
        self.timed_out = timed_out
        self.started = started


class _ConnectionClosedError(Exception):
    pass


class _MalformedReplyError(Exception):
    pass


class Worker:
    """A process that calls functions by name. It starts with the first call, again if it died.

    Threads may share it: it serves one call at a time.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        max_arrays: int = MAX_ARRAYS,
        preload: Sequence[str] = (),
    ) -> None:
        """``max_arrays`` limits the bytes of the arrays in a reply.

        The process imports the modules ``preload`` once, and serves every session, which
        :meth:`end_session` ends, in a fork of itself (Linux).
        """
        # -P: do not import modules from the current folder, such as a user's json.py.
        self._command = list(command or [sys.executable, "-P", "-m", "edgeattn.child"])
        self._environment = {**os.environ, **(environment or {})}
        # Whether sessions are served by forks.
        self.forks = bool(preload)
        if preload:
            self._environment[PRELOAD] = ",".join(preload)
        self._process: subprocess.Popen[bytes] | None = None
        self._max_arrays = max_arrays
        self._log: Tail | None = None
        self._lock = threading.Lock()
        self._watchdog = Watchdog(self.kill)

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
        memory: int | None = None,
    ) -> tuple[Any, Tensors]:
        """Call ``"module:function"`` in the worker and return its result and its arrays.

        ``arguments`` are passed as keywords, and ``tensors``, if not empty, as the keyword
        ``tensors``. The function returns a value that JSON can represent, or a pair of one and a
        mapping of arrays. Errors of edgeattn are raised again. Raises :class:`WorkerDiedError` if
        the process ends or takes longer than ``timeout`` seconds. ``memory`` limits that of the
        process from now on, in bytes.
        """
        header: dict[str, Any] = {"call": function, "arguments": dict(arguments or {})}
        if memory is not None:
            header["memory"] = memory
        request = frame(header, tensors)
        with self._lock:
            return self._exchange(request, timeout)

    def _exchange(self, request: Sequence[Any], timeout: float | None) -> tuple[Any, Tensors]:
        importing = self.forks and self._process is None
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if importing:
                # Not a part of the time of the call.
                self._send(process.stdin, frame({"call": "os:getpid", "arguments": {}}))
                self._receive(process.stdout)
            if timeout is not None:
                self._watchdog.start(timeout)
            self._send(process.stdin, request)
            header, arrays = self._receive(process.stdout)
        except _ConnectionClosedError as error:
            expired = self._watchdog.stop()
            reason = f"took longer than {timeout:g} s" if expired else None
            died = self._died(reason, wait_seconds=5)
            died.timed_out = expired
            raise died from error
        except _MalformedReplyError as error:
            raise self._died(None, wait_seconds=0.5) from error
        except BaseException:
            # The rest of a reply may follow, so this process cannot serve another call.
            self.close()
            raise
        finally:
            expired = self._watchdog.stop()
        if expired:
            # The reply arrived just before the process was killed.
            self.close()
        if "error" in header:
            try:
                reported = error_from_json(header["error"])
            except (TypeError, KeyError, AttributeError) as error:
                self.close()
                raise WorkerDiedError("sent a malformed reply") from error
            raise reported
        return header.get("result"), arrays

    def _send(self, stream: IO[bytes], request: Sequence[Any]) -> None:
        try:
            write(stream, request)
        except OSError as error:
            raise _ConnectionClosedError from error

    def _receive(self, stream: IO[bytes]) -> tuple[dict[str, Any], Tensors]:
        while True:
            try:
                header, arrays = read_message(stream, self._max_arrays)
            except (EOFError, OSError) as error:
                raise _ConnectionClosedError from error
            except (ValueError, MemoryError) as error:
                raise _MalformedReplyError from error
            if "progress" not in header:
                return header, arrays
            progress.report(str(header["progress"])[:MAX_PROGRESS])

    @property
    def running(self) -> bool:
        """Whether there is a process, which has not ended."""
        process = self._process
        return process is not None and process.poll() is None

    def end_session(self) -> None:
        """Have the next call served by another fork of the process, which knows nothing of others.

        Only for a worker with ``preload``. A process that does not end the session is ended.
        """
        with self._lock:
            if not self.running:
                self.close()
                return
            with contextlib.suppress(WorkerDiedError):
                self._exchange(frame({"end_session": True}), _END_SECONDS)

    def kill(self) -> None:
        """End the process from another thread; its current call raises :class:`WorkerDiedError`."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process and discard its output."""
        self._watchdog.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._log = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            try:
                self._process = start_process(self._command, self._environment)
            except OSError as error:
                raise WorkerDiedError(f"could not be started: {error}", started=False) from error
            assert self._process.stderr is not None
            self._log = Tail(self._process.stderr)
        return self._process

    def _died(self, reason: str | None, *, wait_seconds: float) -> WorkerDiedError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=wait_seconds)
        code = self._process.poll()
        if reason is None:
            if code is None:
                reason = "sent a malformed reply"
            elif code < 0:
                reason = f"died of {signal_name(-code)}"
            else:
                reason = f"ended with exit status {code}"
        log = self._log
        self.close()
        return WorkerDiedError(reason, output="" if log is None else log.text())


def start_process(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that is connected to this one by its standard streams."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
