"""What commands print: one document on stdout, tables for people, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from edgeattn import progress as messages


def emit_json(document: Any) -> None:
    """The one document that ``--json`` promises on stdout."""
    click.echo(json.dumps(plain(document), indent=1, allow_nan=False))


def emit_line(document: Any) -> None:
    """A document as one line of a stream, there before the next is made."""
    click.echo(json.dumps(plain(document), allow_nan=False))


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it, which has no infinity and no NaN: they are told as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Columns two spaces apart; those in ``right`` are flush right, as numbers are read."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count: int) -> str:
    """Bytes as people read them, in powers of 1,000: ``213.8 kB``."""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for bigger in ("MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.1f} {unit}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show progress messages on stderr, each replacing the last, if stderr is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    turn = threading.Lock()

    def show(message: str) -> None:
        with turn:
            click.echo(f"\r\x1b[2K{message} ...", nl=False, err=True)

    try:
        with messages.shown_by(show):
            yield
    finally:
        click.echo("\r\x1b[2K", nl=False, err=True)
