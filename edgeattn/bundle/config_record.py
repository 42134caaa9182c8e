"""The record of options that a config file gave, in bundles and in the JSON of commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ConfigRecord:
    """Options of a command that a config file gave, by their names and as the file has them.

    ``sha256`` is that of the file; ``recipe`` is the recipe of it, if one was selected.
    """

    file: str
    sha256: str
    recipe: str | None
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "options": dict(self.options)}


_record: ContextVar[ConfigRecord | None] = ContextVar("config_record", default=None)


def stored_config() -> dict[str, Any] | None:
    """The record for the manifests that are written in this context; None if there is none."""
    record = _record.get()
    return None if record is None else record.to_json()


@contextmanager
def stored_in_bundles(record: ConfigRecord | None) -> Iterator[None]:
    """Store ``record`` in the manifests that are written within the block."""
    token = _record.set(record)
    try:
        yield
    finally:
        _record.reset(token)
