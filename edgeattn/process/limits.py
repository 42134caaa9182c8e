"""Limits of time and memory for calls of runtimes, which run files of others.

A file can make its runtime loop forever or allocate without end. Its worker process is then ended,
or gets an error from the system. The limits belong to the context, as progress messages do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

# Many times what the slowest board needs for one batch of a large model.
SECONDS = 900.0


@dataclass(frozen=True)
class RunLimits:
    """Limits for a runtime in a worker process.

    ``seconds`` is for each call: to load a file, or to run one batch of samples. ``memory`` is for
    the process, in bytes; ``None`` stands for the memory of its machine.
    """

    seconds: float = SECONDS
    memory: int | None = None


_DEFAULT = RunLimits()
_limits: ContextVar[RunLimits] = ContextVar("run_limits")


def run_limits() -> RunLimits:
    """The limits of this context."""
    return _limits.get(_DEFAULT)


@contextmanager
def limited_to(limits: RunLimits) -> Iterator[None]:
    """Use ``limits`` for the calls of runtimes within the block."""
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)
