"""Deployments to several devices at the same time."""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence

from edgeattn.deployment.results import DeploymentResult
from edgeattn.errors import DeviceError
from edgeattn.process.worker import Worker

MAX_CONCURRENT = 8


class Cancellation:
    """Cancels, from another thread, the deployments whose workers are registered with it."""

    def __init__(self) -> None:
        self._workers: set[Worker] = set()
        self._cancelled = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def registered(self, worker: Worker) -> Iterator[Worker]:
        """Within this context, ``worker`` ends on :meth:`cancel`; it is closed at the end.

        Raises :class:`DeviceError` if everything was cancelled already.
        """
        with self._lock:
            if self._cancelled:
                raise DeviceError("Interrupted before the deployment started.")
            self._workers.add(worker)
        try:
            with worker:
                yield worker
        finally:
            with self._lock:
                self._workers.discard(worker)

    def cancel(self) -> None:
        """End all registered workers and let no other start, so that no version is switched."""
        with self._lock:
            self._cancelled = True
            for worker in self._workers:
                worker.kill()


def on_each_host(
    hosts: Sequence[str], action: Callable[[str, Cancellation], DeploymentResult]
) -> tuple[DeploymentResult, ...]:
    """Run ``action`` for every host, several at a time; an exception or Ctrl-C cancels all."""
    from concurrent.futures import ThreadPoolExecutor

    cancellation = Cancellation()
    with ThreadPoolExecutor(min(len(hosts), MAX_CONCURRENT)) as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, action, host, cancellation)
            for host in hosts
        ]
        try:
            return tuple(future.result() for future in futures)
        except BaseException:
            for future in futures:
                future.cancel()
            cancellation.cancel()
            raise
