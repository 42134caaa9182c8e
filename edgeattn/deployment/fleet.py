"""Several devices side by side."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edgeattn.deployment.results import DeploymentResult
from edgeattn.errors import DeviceError

if TYPE_CHECKING:
    from edgeattn.process.worker import Worker

# Hosts that are deployed to at the same time.
SIDE_BY_SIDE = 8


class Work:
    """Deployments under way on several threads, which can be broken off from another."""

    def __init__(self) -> None:
        self._children: set[Worker] = set()
        self._ended = False
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def on(self, child: Worker) -> Iterator[Worker]:
        with self._turn:
            if self._ended:
                raise DeviceError("Interrupted before it began.")
            self._children.add(child)
        try:
            with child:
                yield child
        finally:
            with self._turn:
                self._children.discard(child)

    def end(self) -> None:
        """Break off what is under way, and let nothing more begin: nothing is switched any more."""
        with self._turn:
            self._ended = True
            for child in self._children:
                child.kill()


def on_each(
    hosts: Sequence[str], action: Callable[[str, Work], DeploymentResult]
) -> tuple[DeploymentResult, ...]:
    """``action`` for every host, several at a time; the outcomes in the order of ``hosts``.

    Ctrl-C and the like break all of them off.
    """
    from concurrent.futures import ThreadPoolExecutor

    work = Work()
    with ThreadPoolExecutor(min(len(hosts), SIDE_BY_SIDE)) as pool:
        under_way = [
            pool.submit(contextvars.copy_context().run, action, host, work) for host in hosts
        ]
        try:
            return tuple(each.result() for each in under_way)
        except BaseException:
            for each in under_way:
                each.cancel()
            work.end()
            raise


def worst(outcomes: Sequence[DeploymentResult]) -> int:
    """The exit code for all: a fault of ours first, then a failed check, then what was refused."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in (70, 1, 4, 2, 3, 5, 6) if code in codes), 0)
