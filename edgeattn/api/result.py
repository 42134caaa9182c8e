"""What the results of all functions have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.printable import printable


class Result(ABC):
    """The result of a function: ``repr`` is one line, and notebooks show it as a table."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 for a pass."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The document that the command prints with ``--json``."""
        return dict(plain(self._document()))

    @abstractmethod
    def _document(self) -> dict[str, Any]:
        """The content of :meth:`to_dict`."""

    @abstractmethod
    def _summary(self) -> str:
        """The result in a few words, for ``repr``."""

    @abstractmethod
    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The header and the rows of the table in notebooks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {printable(self._summary())}>"

    def _repr_html_(self) -> str:
        """The result as an HTML table, which notebooks show."""
        header, rows = self._table()
        head = "".join(f"<th>{_escape(cell)}</th>" for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td>{_escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        return (
            f"<table><caption>{_escape(self._summary())}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _escape(text: str) -> str:
    # Not at the top: the command line does not need it, and should start fast.
    import html

    return html.escape(printable(text))


def plain(value: Any) -> Any:
    """``value`` with NaN and infinity, which JSON does not have, as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def number(value: float | None, spec: str = ".2g") -> str:
    return "-" if value is None else format(value, spec)
