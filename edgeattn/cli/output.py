"""Printing: JSON documents and tables on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import terminal
from edgeattn.printable import Text, join_lines, printable
from edgeattn.progress import shown_by

if TYPE_CHECKING:
    from edgeattn.bundle.config_record import ConfigRecord

# The key of click.Context.meta of :func:`config_record`.
CONFIG_RECORD = "edgeattn.config_record"
# The key of click.Context.meta of :func:`is_verbose`.
VERBOSE = "edgeattn.verbose"
SECONDS_BETWEEN_COUNTS = 5.0
_encode_line = json.JSONEncoder(allow_nan=False).encode


def echo(*lines: str, err: bool = False) -> None:
    """Print lines. Control characters in them are escaped, see :func:`join_lines`."""
    color = terminal.has_color(sys.stderr if err else sys.stdout)
    click.echo(join_lines(lines), err=err, color=color)


def config_record() -> ConfigRecord | None:
    """The options of the current command that a config file gave; None if it gave none."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(CONFIG_RECORD)


def emit_written(target: Path, *, as_json: bool, quiet: bool) -> None:
    """Print which file was written, its size and its SHA-256."""
    from edgeattn.bundle.manifest import sha256

    count, digest = target.stat().st_size, sha256(target)
    if as_json:
        emit_json({"path": str(target), "bytes": count, "sha256": digest})
    elif quiet:
        echo(str(target))
    else:
        echo(f"Wrote {target}, {size(count)}", f"SHA-256 {digest}")


def emit_json(document: Mapping[str, Any]) -> None:
    """Print the single document of ``--json``, with the options that a config file gave."""
    from edgeattn.api.result import plain

    record = config_record()
    recorded = document if record is None else {**document, "config": record.to_json()}
    click.echo(json.dumps(plain(recorded), indent=1, allow_nan=False))


def emit_line(document: Any) -> None:
    """Print a document as one line of a stream."""
    try:
        line = _encode_line(document)
    except ValueError:  # NaN or infinity
        from edgeattn.api.result import plain

        line = _encode_line(plain(document))
    # Not click.echo, which queries the terminal for each line.
    if sys.stdout is not None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> Text:
    """A text table; the columns in ``right`` are right-aligned. Verdicts have their color."""
    verdicts = [title in terminal.VERDICT_COLUMNS for title in header]

    def shown(row: Sequence[str]) -> list[str]:
        pairs = zip(row, verdicts, strict=True)
        return [printable(terminal.verdict_cell(x) if verdict else x) for x, verdict in pairs]

    lines = [[printable(title) for title in header], *map(shown, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    for cells, row in zip(padded[1:], rows, strict=True):
        for column in range(len(header)):
            if verdicts[column]:
                cells[column] = terminal.colored_cell(cells[column], row[column])
    return join_lines(Text("  ".join(cells).rstrip()) for cells in padded)


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


def is_verbose() -> bool:
    """Whether ``--verbose`` was passed, before or after the command."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(VERBOSE))


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show progress messages on stderr: each on a line with ``--verbose``, or else on a terminal.

    On a terminal, each replaces the last one. ``quiet`` omits them without ``--verbose``.
    """
    if is_verbose():
        with shown_by(_Log().show):
            yield
        return
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


class _Log:
    """Prints messages with the seconds since the start, and the counts of one step sparsely."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._step = ""
        self._lock = threading.Lock()

    def show(self, message: str) -> None:
        step = re.sub(r"\d", "", message)
        with self._lock:
            now = time.monotonic()
            if step != self._step or now - self._last >= SECONDS_BETWEEN_COUNTS:
                echo(f"{now - self._start:7.1f} s  {message}", err=True)
                self._last = now
            self._step = step
