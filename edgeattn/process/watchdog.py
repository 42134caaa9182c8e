"""A time limit for consecutive calls, watched by one thread: starting one for each call is slow."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

_EXPIRED = -math.inf


class Watchdog:
    """Calls a function, in a thread of its own, if a call takes longer than its limit.

    It watches one call at a time. The thread starts with the first call and ends with
    :meth:`close`.
    """

    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._deadline = math.inf
        # When the thread looks at the deadline next. It is not woken for a later deadline, so that
        # consecutive calls with one limit do not wake it at all.
        self._wakes = math.inf

    def start(self, seconds: float) -> None:
        """Limit the call that begins now."""
        with self._changed:
            self._deadline = time.monotonic() + seconds
            if self._thread is None:
                self._wakes = self._deadline
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
            elif self._deadline < self._wakes:
                self._changed.notify()

    def stop(self) -> bool:
        """End the limit of the current call; returns whether it was exceeded.

        The function is not called for this call after that.
        """
        with self._changed:
            expired = self._deadline == _EXPIRED
            self._deadline = math.inf
            return expired

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._thread = None
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                if _EXPIRED < self._deadline <= time.monotonic():
                    self._deadline = _EXPIRED
                    self._expire()
                self._wakes = self._deadline if self._deadline > _EXPIRED else math.inf
                left = self._wakes - time.monotonic()
                self._changed.wait(None if left == math.inf else min(left, threading.TIMEOUT_MAX))
