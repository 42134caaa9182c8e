"""Runtimes side by side: each worker has its own, and all cores are used.

What a worker is asked for comes back in the order in which it was asked, so that nothing that is
made of it depends on how many workers there are.
"""

from __future__ import annotations

import contextvars
import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner

Result = TypeVar("Result")
Item = TypeVar("Item")
Opener = Callable[["Artifact"], "Runner"]


class RunnerPool:
    """``openers`` each give runners of their own, one at a time. One works in the caller's thread.

    ``closers`` end whatever the workers still do, when the work is over or interrupted.
    """

    def __init__(
        self, openers: Sequence[Opener], closers: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._closers = list(closers)
        # The last one that came back is taken first: what is not needed is never started.
        self._free: queue.LifoQueue[Opener] = queue.LifoQueue()
        for opener in reversed(openers):
            self._free.put(opener)
        self.count = len(openers)
        several = self.count > 1
        self._threads = ThreadPoolExecutor(self.count) if several else None
        self._beside = ThreadPoolExecutor(1) if several else None

    def __enter__(self) -> RunnerPool:
        return self

    def __exit__(self, *_: object) -> None:
        pools = [pool for pool in (self._threads, self._beside) if pool is not None]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        # What still runs ends with its process, and its thread with that.
        for close in self._closers:
            close()
        for pool in pools:
            pool.shutdown(wait=True)

    def close_at_end(self, close: Callable[[], None]) -> None:
        """Call ``close`` too when the work is over or interrupted."""
        self._closers.append(close)

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """``work(opener, *arguments)`` on a worker that is free."""

        def on_worker() -> Result:
            opener = self._free.get()
            try:
                return work(opener, *arguments)
            finally:
                self._free.put(opener)

        return _submitted(self._threads, on_worker)

    def beside(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """``work(*arguments)``, which needs no worker, beside what the workers do."""
        return _submitted(self._beside, lambda: work(*arguments))

    def each(self, work: Callable[[Opener, Item], Result], items: Iterable[Item]) -> list[Result]:
        """``work(opener, item)`` of all items, in their order."""
        return [future.result() for future in [self.submit(work, item) for item in items]]


def _submitted(pool: ThreadPoolExecutor | None, work: Callable[[], Result]) -> Future[Result]:
    if pool is not None:
        # The thread reports its progress to whom the caller does.
        return pool.submit(contextvars.copy_context().run, work)
    future: Future[Result] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # Ctrl-C goes on up from here
        future.set_exception(error)
    return future
