"""Which Keras saved the model that is loaded.

Functions of the old backend, which code of the user calls, and layers that are built compute as in
that version. Nothing passes it to them, so it is a value of the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Version = tuple[int, ...]


@dataclass(frozen=True)
class OriginalKeras:
    """The Keras that saved a model.

    Attributes:
        version: its version as numbers, ``(2, 2, 4)``; empty if the file does not contain it.
        of_tensorflow: whether it is tf.keras.
        backend: the library that computed the model; None if the file does not contain it.
        stored: the config that it wrote, if there is one.
        used: what code of the model has called of a former version, for notes.
    """

    version: Version = ()
    of_tensorflow: bool = False
    backend: str | None = None
    stored: Any = None
    used: list[Any] = field(default_factory=list, compare=False)

    def is_before(self, version: Version, of_tensorflow: Version) -> bool:
        """Return whether it is a known version before ``version``, as tf.keras before the other."""
        return () < self.version < (of_tensorflow if self.of_tensorflow else version)


_current = OriginalKeras()


def current() -> OriginalKeras:
    """Return the Keras that saved the model that is loaded."""
    return _current


def use(original: OriginalKeras) -> None:
    """Set the Keras that saved the model that is loaded."""
    global _current
    _current = original


@contextmanager
def restored() -> Iterator[None]:
    """Set it again as it is now, after other models were loaded."""
    before = _current
    try:
        yield
    finally:
        use(before)
