"""The worker process: reads calls from its standard input and writes results to standard output."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors, progress

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors
from edgeattn.process.protocol import describe, frame, read_message, write, write_message
from edgeattn.process.worker import CONFINED

# What writing fails with where the disk, a quota or a limit is full, or it cannot be written.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


# What a file of the user's fails with that is there and may not be opened.
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def _fault(error: Exception) -> dict[str, Any]:
    """A fault of ours, told to the parent with where it came from."""
    import traceback

    told = describe(errors.EdgeattnError(f"{type(error).__name__}: {error}"))
    return {**told, "traceback": "".join(traceback.format_exception(error))}


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
        return {"error": describe(error)}, {}
    except OSError as error:
        if error.errno in _NO_ACCESS:
            refused = errors.UsageError(f"{error.strerror}: {error.filename}")
            return {"error": describe(refused)}, {}
        if error.errno not in _NO_ROOM:
            return {"error": _fault(error)}, {}
        where = f" {error.filename}" if error.filename else ""
        told = errors.OutputError(
            f"Cannot write{where}: {error.strerror}.",
            hint="Free some space, or choose another place with -o.",
        )
        return {"error": describe(told)}, {}
    except MemoryError:
        return {"error": describe(errors.UnsupportedModelError("out of memory"))}, {}
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
    global _incoming
    # Ctrl-C reaches the whole group: it is the parent that decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    if os.environ.get(CONFINED):
        from edgeattn.process.sandbox import confine

        confine()
    # What native code prints must not end up among the answers, and what a called function reads
    # must not be taken from the requests.
    replies = os.fdopen(os.dup(1), "wb")
    _incoming = requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with progress.shown_by(lambda message: write_message(replies, {"progress": message})):
        _serve(requests, replies)


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    for request, tensors in _requests(requests):
        header, arrays = _answer(request, tensors)
        try:
            reply = frame(header, arrays)
        except (TypeError, ValueError) as error:
            reply = frame({"error": _fault(error)})
        write(replies, reply)
