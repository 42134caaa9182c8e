"""Progress messages of long tasks.

Any function may call :func:`report`. The caller decides how to show the messages:

    with progress.shown_by(print):
        convert(...)

Otherwise they are discarded. Threads started by :mod:`edgeattn.process.pool` and calls to a
:class:`edgeattn.process.worker.Worker` pass messages to the context that started them.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("edgeattn_progress", default=None)


def report(message: str) -> None:
    """Report the current activity in a few words, such as "running tflite int8"."""
    listener = _listener.get()
    if listener is not None:
        listener(message)


@contextlib.contextmanager
def shown_by(listener: Listener | None) -> Iterator[None]:
    """Pass messages to ``listener`` within this context; ``None`` discards them."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Prefix messages with ``label`` within this context."""
    outer = _listener.get()
    with shown_by(None if outer is None else lambda message: outer(f"{label}: {message}")):
        yield
