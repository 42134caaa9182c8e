"""Artifacts run in parallel, each worker with its own runtime.

Results are returned in the order of submission, so they do not depend on the number of workers.
"""

from __future__ import annotations

import contextvars
import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")
# Opens a runner for an artifact.
Opener = Callable[[Any], Any]


class RunnerPool:
    """Calls functions with one of ``openers``, each of which serves one call at a time.

    A single opener is called in the caller's thread. ``closers`` are called when the pool exits, to
    end calls that still run.
    """

    def __init__(
        self, openers: Sequence[Opener], closers: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._closers = list(closers)
        # Last in, first out: a worker that is not needed is never started.
        self._idle: queue.LifoQueue[Opener] = queue.LifoQueue()
        for opener in reversed(openers):
            self._idle.put(opener)
        self.count = len(openers)
        parallel = self.count > 1
        self._threads = ThreadPoolExecutor(self.count) if parallel else None
        self._background = ThreadPoolExecutor(1) if parallel else None

    def __enter__(self) -> RunnerPool:
        return self

    def __exit__(self, *_: object) -> None:
        executors = [item for item in (self._threads, self._background) if item is not None]
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        # A call that still runs ends with its worker process, and its thread with the call.
        for close in self._closers:
            close()
        for executor in executors:
            executor.shutdown(wait=True)

    def close_at_end(self, close: Callable[[], None]) -> None:
        """Also call ``close`` when the pool exits."""
        self._closers.append(close)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Call ``function(opener, *arguments)`` as soon as an opener is idle."""

        def with_opener() -> Result:
            opener = self._idle.get()
            try:
                return function(opener, *arguments)
            finally:
                self._idle.put(opener)

        return _submit(self._threads, with_opener)

    def submit_background(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Call ``function(*arguments)``, which needs no opener, in parallel to the others."""
        return _submit(self._background, lambda: function(*arguments))

    def map(
        self, function: Callable[[Opener, Item], Result], items: Iterable[Item]
    ) -> list[Result]:
        """``function(opener, item)`` for each item, in their order."""
        return [future.result() for future in [self.submit(function, item) for item in items]]


def _submit(executor: ThreadPoolExecutor | None, function: Callable[[], Result]) -> Future[Result]:
    if executor is not None:
        # The caller's context receives the progress messages of the thread.
        return executor.submit(contextvars.copy_context().run, function)
    future: Future[Result] = Future()
    try:
        future.set_result(function())
    except Exception as error:  # KeyboardInterrupt is not caught
        future.set_exception(error)
    return future
