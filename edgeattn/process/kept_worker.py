"""A worker process that waits for the next work of its thread, because starting one takes time."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from edgeattn.process.worker import Worker


class KeptWorker:
    """At most one idle worker, with a key that says what it may be used for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: tuple[Hashable, Worker] | None = None
        self._timer: threading.Timer | None = None

    def take(self, key: Hashable = None) -> Worker | None:
        """The idle worker if it has this key and its process runs; otherwise it is ended."""
        idle = self._remove()
        if idle is not None and idle[0] == key and idle[1].running:
            return idle[1]
        if idle is not None:
            idle[1].close()
        return None

    def keep(self, worker: Worker, seconds: float, key: Hashable = None) -> None:
        """Keep a worker, and end its process if nobody takes it for ``seconds``."""
        self.close()
        timer = threading.Timer(seconds, self.close)
        timer.daemon = True
        with self._lock:
            self._idle, self._timer = (key, worker), timer
        timer.start()

    def close(self) -> None:
        """End the idle worker, if any."""
        idle = self._remove()
        if idle is not None:
            idle[1].close()

    def _remove(self) -> tuple[Hashable, Worker] | None:
        with self._lock:
            idle, timer = self._idle, self._timer
            self._idle = self._timer = None
        if timer is not None:
            timer.cancel()
        return idle


class KeptWorkers(threading.local):
    """A :class:`KeptWorker` for each thread: the system ends a process with its thread (Linux)."""

    def __init__(self) -> None:
        self.own = KeptWorker()
