"""Functions called in a process of their own, because native code crashes.

The child is this interpreter (or another one that has edgeattn), reading calls on its standard
input and answering on its standard output. A message is JSON with numpy arrays behind it, so that
nothing that comes back is ever executed; and the death of the child, whatever killed it, is one
:class:`ChildDied` with the last of what it printed.

A frame: 8 bytes, the length of the JSON in little-endian order; the JSON; then the bytes of each
array in the order of its ``arrays`` list. A file is never passed: both ends see the same disk.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import math
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# Set in its environment, the child leaves the network and limits its memory.
CONFINED = "EDGEATTN_CONFINED"
# A reply's JSON is small: a larger one is a fault, not an answer.
MAX_HEADER = 64 * 2**20
MAX_ARRAY = 8 * 2**30
CHUNK = 16 * 2**20
# What an array may hold: booleans, integers, real and complex numbers.
KINDS = "buifc"
# What writing fails with where the disk, a quota or a limit is full, or it cannot be written.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What a file of the user's fails with that is there and may not be opened.
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
# The part of a dead child's output that a person reads.
TAIL = 4000


class ChildDied(errors.EdgeattnError):
    """The child process ended, or was ended, before it answered."""

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class _Gone(Exception):
    """The other end of the pipe is closed."""


class _NoAnswer(Exception):
    """What came through the pipe is no frame."""


class Child:
    """A process that calls functions by name, started at its first call and again after a death."""

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        # -P: whatever lies in the current folder, a json.py say, is not to be imported.
        self._command = list(command or [sys.executable, "-P", "-m", "edgeattn.child"])
        self._environment = {**os.environ, **(environment or {})}
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Child:
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
        Errors of edgeattn's own arrive as they were raised; :class:`ChildDied` says that the
        process ended, with the signal's name, or that it took longer than ``timeout`` seconds.
        """
        request = _frame({"call": function, "arguments": dict(arguments or {})}, tensors)
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
            raise _rebuild(header["error"])
        return header.get("result"), arrays

    def _send(self, stream: IO[bytes], request: Sequence[Any]) -> None:
        try:
            _write(stream, request)
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
            if self._on_progress is not None:
                self._on_progress(str(header["progress"]))

    def kill(self) -> None:
        """From another thread: end the process, and with it, as :class:`ChildDied`, its call."""
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
                raise ChildDied(f"could not be started: {error}") from error
        return self._process

    def _died(self, why: str | None, *, patience: float) -> ChildDied:
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
        return ChildDied(why, output=output)

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


def write_message(
    stream: IO[bytes], header: Mapping[str, Any], tensors: Tensors | None = None
) -> None:
    """Write one frame; ``TypeError`` for what a frame cannot hold, before anything is written."""
    _write(stream, _frame(header, tensors))


def _write(stream: IO[bytes], frame: Sequence[Any]) -> None:
    for part in frame:
        stream.write(part)
    stream.flush()


def _frame(header: Mapping[str, Any], tensors: Tensors | None = None) -> list[Any]:
    """The parts of a frame; arrays are made contiguous and little-endian on the way."""
    payload: list[Any] = []
    arrays: list[dict[str, Any]] = []
    if tensors:
        import numpy as np

        for name, value in tensors.items():
            array = np.ascontiguousarray(value)
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} is of {array.dtype}, which is no number")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            # ascontiguousarray makes a scalar a vector: the shape is the original's.
            arrays.append({"name": name, "dtype": array.dtype.str, "shape": np.shape(value)})
            payload.append(array.reshape(-1).view("u1").data)
    text = json.dumps({**header, "arrays": arrays}).encode()
    return [struct.pack("<Q", len(text)), text, *payload]


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], Tensors]:
    """Read one frame; ``EOFError`` where the stream ends, ``ValueError`` where it is no frame."""
    (length,) = struct.unpack("<Q", _read(stream, 8))
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    try:
        header = json.loads(_read(stream, length))
        listed = [
            (str(entry["name"]), str(entry["dtype"]), tuple(int(axis) for axis in entry["shape"]))
            for entry in header.pop("arrays")
        ]
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a header that is none: {error}") from error
    return header, {name: _read_array(stream, dtype, shape) for name, dtype, shape in listed}


def _read_array(stream: IO[bytes], name: str, shape: tuple[int, ...]) -> Any:
    import numpy as np

    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"an array of {name!r}") from error
    size = dtype.itemsize * math.prod(shape)
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or size > MAX_ARRAY:
        raise ValueError(f"an array of {name!r} and shape {shape}")
    return np.frombuffer(_read(stream, size), dtype).reshape(shape)


def _read(stream: IO[bytes], length: int) -> bytearray:
    # Filled as it comes: what is announced need not be true.
    received = bytearray()
    while len(received) < length:
        chunk = stream.read(min(length - len(received), CHUNK))
        if not chunk:
            raise EOFError("the other end has gone")
        received += chunk
    return received


def _describe(error: errors.EdgeattnError) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint}


def _rebuild(data: Mapping[str, Any]) -> errors.EdgeattnError:
    kind = getattr(errors, str(data["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.EdgeattnError)):
        kind = errors.EdgeattnError
    error: errors.EdgeattnError = kind(str(data["message"]), hint=data.get("hint"))
    if data.get("traceback"):
        error.add_note(str(data["traceback"]))
    return error


def _fault(error: Exception) -> dict[str, Any]:
    """A fault of ours, told to the parent with where it came from."""
    import traceback

    told = _describe(errors.EdgeattnError(f"{type(error).__name__}: {error}"))
    return {**told, "traceback": "".join(traceback.format_exception(error))}


_reply: IO[bytes] | None = None


def progress(message: str) -> None:
    """From inside a called function: tell whoever called what is being done."""
    if _reply is not None:
        write_message(_reply, {"progress": message})


_incoming: IO[bytes] | None = None


def end_with_connection() -> None:
    """From inside a called function: end this process when nobody can ask it any more.

    A parent on another machine does not take its children along when it dies: what they notice is
    that the pipe is closed, and while they work they do not look.
    """
    if _incoming is None:
        return
    watched = select.poll()
    # That it hangs up is told unasked; of a socket, that nobody writes any more, is asked for.
    watched.register(_incoming, getattr(select, "POLLRDHUP", 0))

    def watch() -> None:
        watched.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _answer(request: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    try:
        module, _, name = str(request["call"]).partition(":")
        function = getattr(importlib.import_module(module), name)
        keywords = dict(request["arguments"])
        if tensors:
            keywords["tensors"] = tensors
        result = function(**keywords)
    except errors.EdgeattnError as error:
        return {"error": _describe(error)}, {}
    except OSError as error:
        if error.errno in _NO_ACCESS:
            refused = errors.UsageError(f"{error.strerror}: {error.filename}")
            return {"error": _describe(refused)}, {}
        if error.errno not in _NO_ROOM:
            return {"error": _fault(error)}, {}
        where = f" {error.filename}" if error.filename else ""
        told = errors.OutputError(
            f"Cannot write{where}: {error.strerror}.",
            hint="Free some space, or choose another place with -o.",
        )
        return {"error": _describe(told)}, {}
    except MemoryError:
        return {"error": _describe(errors.UnsupportedModelError("out of memory"))}, {}
    except Exception as error:
        return {"error": _fault(error)}, {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return {"result": result[0]}, result[1]
    return {"result": result}, {}


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent dies, however that happens (Linux)."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _requests(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], Tensors]]:
    while True:
        try:
            yield read_message(stream)
        except EOFError:
            return


def main() -> None:
    """Answer calls until the other end closes."""
    global _reply, _incoming
    # Ctrl-C reaches the whole group: it is the parent that decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    if os.environ.get(CONFINED):
        from edgeattn.confinement import confine

        confine()
    # What native code prints must not end up among the answers, and what a called function reads
    # must not be taken from the requests.
    _reply = os.fdopen(os.dup(1), "wb")
    _incoming = requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for request, tensors in _requests(requests):
        header, arrays = _answer(request, tensors)
        try:
            frame = _frame(header, arrays)
        except (TypeError, ValueError) as error:
            frame = _frame({"error": _fault(error)})
        _write(_reply, frame)


if __name__ == "__main__":
    # Run as a module this file is __main__; called functions import it by its own name.
    from edgeattn import child

    child.main()
