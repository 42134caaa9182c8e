"""What commands print: one document on stdout, tables for people, progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click


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


def progress(quiet: bool) -> Callable[[str], None] | None:
    """Where a stage says what it does: a line on stderr that the next replaces, on terminals."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(message: str) -> None:
        click.echo(f"\r\x1b[2K{message} ...", nl=False, err=True)

    return show


def end_progress(shown: Callable[[str], None] | None) -> None:
    if shown is not None:
        click.echo("\r\x1b[2K", nl=False, err=True)
