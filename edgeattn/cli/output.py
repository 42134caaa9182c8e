"""Printing: JSON documents and tables on stdout, progress on stderr."""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import click

from edgeattn.api.result import plain
from edgeattn.printable import Text, join_lines, printable
from edgeattn.progress import shown_by

_encode_line = json.JSONEncoder(allow_nan=False).encode


def echo(*lines: str, err: bool = False) -> None:
    """Print lines. Control characters in them are escaped, see :func:`join_lines`."""
    click.echo(join_lines(lines), err=err)


def emit_json(document: Any) -> None:
    """Print the single document of ``--json``."""
    click.echo(json.dumps(plain(document), indent=1, allow_nan=False))


def emit_line(document: Any) -> None:
    """Print a document as one line of a stream."""
    try:
        line = _encode_line(document)
    except ValueError:  # NaN or infinity
        line = _encode_line(plain(document))
    # Not click.echo, which queries the terminal for each line.
    if sys.stdout is not None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> Text:
    """A text table; the columns in ``right`` are right-aligned."""
    lines = [[printable(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return join_lines(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count: int) -> str:
    """A number of bytes in units of powers of 1,000: ``213.8 kB``."""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show progress messages on stderr, each replacing the last, if stderr is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    lock = threading.Lock()

    def show(message: str) -> None:
        with lock:
            click.echo(f"\r\x1b[2K{printable(message)} ...", nl=False, err=True)

    try:
        with shown_by(show):
            yield
    finally:
        click.echo("\r\x1b[2K", nl=False, err=True)
