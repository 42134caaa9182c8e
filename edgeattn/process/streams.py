"""Output of other processes, which may be endless: only a bounded part is kept."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO

# Bytes of error output that are kept.
TAIL = 4000
BLOCK = 1 << 16


class OutputTooLongError(Exception):
    """A process wrote more than it may."""


class Tail:
    """Reads a stream in a thread, so that its writer never waits, and keeps the last bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while block := stream.read1(BLOCK):  # type: ignore[attr-defined]
                self._kept = (self._kept + block)[-TAIL:]

    def text(self) -> str:
        """The last :data:`TAIL` bytes, once the process has ended."""
        # Its children may have the stream open.
        self._thread.join(timeout=1)
        return self._kept.decode("utf-8", "replace")


def run_bounded(
    command: Sequence[str], data: bytes | None, *, timeout: float, limit: int
) -> tuple[int, bytes, str]:
    """Run ``command``; returns its exit status, output and the end of its error output.

    ``data`` is its standard input. Raises :class:`OutputTooLongError` if its output has more than
    ``limit`` bytes, :class:`subprocess.TimeoutExpired` after ``timeout`` seconds, and
    :class:`OSError` if it cannot be started.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = Tail(process.stderr)
    output: list[bytes] = []
    # In threads, because children of the process may have its streams open when it has ended.
    reader = threading.Thread(target=_read, args=(process.stdout, limit + 1, output), daemon=True)
    writer = threading.Thread(target=_write, args=(process.stdin, data), daemon=True)
    end = time.monotonic() + timeout
    try:
        reader.start()
        writer.start()
        reader.join(timeout)
        if reader.is_alive():
            raise subprocess.TimeoutExpired(command, timeout)
        if len(output[0]) > limit:
            raise OutputTooLongError
        status = process.wait(max(0, end - time.monotonic()))
    finally:
        process.kill()
        process.wait()
    return status, output[0], errors.text()


def _read(stream: IO[bytes], size: int, output: list[bytes]) -> None:
    with stream:
        output.append(stream.read(size))


def _write(stream: IO[bytes], data: bytes | None) -> None:
    try:
        with stream:
            stream.write(data or b"")
    except OSError:
        pass  # the process has ended; its exit status says why
