"""The worker process: it reads calls from standard input and writes results to standard output.

If :data:`~edgeattn.process.worker.PRELOAD` names modules, it imports them and serves every session
of its caller in a fork of itself. A session starts with the modules as they are after the import,
whatever the sessions before it did.
"""

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
from edgeattn.process.protocol import error_to_json, frame, read_message, write, write_message
from edgeattn.process.sandbox import enter_sandbox, limit_memory, without_core_dump
from edgeattn.process.worker import PRELOAD, SANDBOX

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# Errors of writing: the disk or a quota is full, a size limit is exceeded, or it is read-only.
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Errors of opening a file of the user that exists.
_ACCESS_ERRORS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
# Exit status of a fork whose session was ended by the caller.
_SESSION_ENDED = 117


def main() -> None:
    """Serve calls until the caller closes the connection."""
    # Ctrl-C is sent to the whole process group; the caller decides which workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    if preloaded := os.environ.get(PRELOAD):
        for name in preloaded.split(","):
            # The function that needs a missing module says so.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        _fork_for_each_session()
    if os.environ.get(SANDBOX):
        enter_sandbox()
    limit_memory()
    # Keep what native code prints out of the results, and the calls from functions that read stdin.
    replies = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _end_with_connection(requests)
    with progress.shown_by(lambda message: write_message(replies, {"progress": message})):
        for request, tensors in _requests(requests):
            if "end_session" in request:
                write(replies, frame({}))
                sys.stderr.flush()
                os._exit(_SESSION_ENDED)
            header, arrays = _call(request, tensors)
            try:
                reply = frame(header, arrays)
            except (TypeError, ValueError) as error:
                reply = frame({"error": _internal_error(error)})
            write(replies, reply)


def _fork_for_each_session() -> None:
    """Return in a fork, and again in another one after the caller has ended its session.

    A fork that ends otherwise ends this process in the same way.
    """
    while _has_request():
        fork = os.fork()
        if not fork:
            _end_with_parent()
            return
        status = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
        if status < 0:
            # The fork may have written a core dump already.
            without_core_dump()
            with contextlib.suppress(OSError):  # SIGKILL has no handler
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        elif status != _SESSION_ENDED:
            os._exit(status)
    os._exit(1)


def _has_request() -> bool:
    """Wait for the next request; false if the caller has closed the connection instead."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return bool(poll.poll()[0][1] & select.POLLIN)


def _end_with_connection(requests: IO[bytes]) -> None:
    """Have a thread end this process when the caller closes the connection.

    A caller on another machine cannot end its worker otherwise, for example one whose runtime loops
    forever, because a worker does not read from the connection while it serves a call.
    """
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    # Pipes always report a hangup; sockets report the end of incoming data only on request.
    poll.register(requests, getattr(select, "POLLRDHUP", 0))

    def wait_and_exit() -> None:
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent dies for any reason (Linux)."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _requests(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], Tensors]]:
    with contextlib.suppress(EOFError):
        while True:
            yield read_message(stream)


def _call(request: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """The reply to a request: its result, or its error."""
    try:
        if "memory" in request:
            limit_memory(int(request["memory"]))
        module, _, name = str(request["call"]).partition(":")
        function = getattr(importlib.import_module(module), name)
        keywords = dict(request["arguments"])
        if tensors:
            keywords["tensors"] = tensors
        result = function(**keywords)
    except errors.EdgeattnError as error:
        return {"error": error_to_json(error)}, {}
    except OSError as error:
        return {"error": _os_error(error)}, {}
    except MemoryError:
        return {"error": error_to_json(errors.UnsupportedModelError("Out of memory."))}, {}
    except Exception as error:
        return {"error": _internal_error(error)}, {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return {"result": result[0]}, result[1]
    return {"result": result}, {}


def _os_error(error: OSError) -> dict[str, Any]:
    if error.errno in _ACCESS_ERRORS:
        return error_to_json(errors.UsageError(f"{error.strerror}: {error.filename}"))
    if error.errno not in _WRITE_ERRORS:
        return _internal_error(error)
    name = f" {error.filename}" if error.filename else ""
    return error_to_json(
        errors.OutputError(
            f"Cannot write{name}: {error.strerror}.",
            hint="Free some space, or choose another location with -o.",
        )
    )


def _internal_error(error: Exception) -> dict[str, Any]:
    import traceback

    return {
        **error_to_json(errors.internal(error)),
        "traceback": "".join(traceback.format_exception(error)),
    }
