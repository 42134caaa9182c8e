"""Ends a process before a change of the disk, or lets that change fail, by an audit hook."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

# Audit events of functions that change a disk.
DISK_EVENTS = {
    *("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod"),
    *("os.truncate", "os.utime"),
}


def record_changes(home: Path, stop_at: int | None, mode: str) -> list[str]:
    """Record what changes files under ``home``; returns the list, which grows.

    Before change number ``stop_at``, kill this process (mode "kill") or raise the error of a full
    disk (mode "full").
    """
    changes: list[str] = []

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
        changes.append(f"{event} {path}")
        if len(changes) == stop_at:
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    sys.addaudithook(hook)
    return changes


def in_process(action: Any) -> Any:
    """The result of ``action`` in a process of its own; ``None`` if that process died."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
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
