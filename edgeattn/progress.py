"""Progress messages of long work, for whoever shows them.

Any function may call :func:`report`. What is done with the messages is decided once, at the edge:

    with progress.shown_by(print):
        convert(...)

Without that, messages go nowhere. Threads started by :mod:`edgeattn.process.pool` and calls to a
:class:`edgeattn.process.worker.Worker` pass messages on to the context that started them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("edgeattn_progress", default=None)


def report(message: str) -> None:
    """Say what is being done now, in a few words: "running tflite int8"."""
    listener = _listener.get()
    if listener is not None:
        listener(message)


@contextlib.contextmanager
def shown_by(listener: Listener | None) -> Iterator[None]:
    """Within this context, messages are passed to ``listener``; ``None`` discards them."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Within this context, every message begins with ``label``."""
    outer = _listener.get()
    with shown_by(None if outer is None else lambda message: outer(f"{label}: {message}")):
        yield
