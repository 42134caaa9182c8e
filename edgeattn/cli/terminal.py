"""Colors and symbols, on terminals that show them; anything else gets plain text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

import click

from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.printable import Text, printable

# Color and symbol of the words in columns of verdicts.
VERDICTS = {
    PASS: ("green", "✓"),
    FAIL: ("red", "✗"),
    INCONCLUSIVE: ("yellow", "?"),
    NOT_RUN: ("bright_black", "-"),
    "not converted": ("red", "✗"),
    "not achieved": ("yellow", "?"),
}
VERDICT_COLUMNS = ("verdict", "numbers", "attention", "task", "device")
# Color of what is before the colon of a line.
LABELS = {
    "Error": "red",
    "error": "red",
    "Regression": "red",
    "Recommended": "green",
    "warning": "yellow",
    "note": "cyan",
    "next": "cyan",
}


def has_color(stream: TextIO | None) -> bool:
    """Whether text on ``stream`` is colored: ``NO_COLOR``, ``FORCE_COLOR``, or a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _is_terminal(stream)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _has_symbols(stream: TextIO | None) -> bool:
    if not _is_terminal(stream):
        return False
    try:
        "✓✗".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def verdict_cell(text: str) -> str:
    """A verdict, or two with an arrow between them, with symbols if stdout shows them."""
    if not _has_symbols(sys.stdout):
        return text
    return " -> ".join(
        f"{VERDICTS[word][1]} {word}" if word in VERDICTS else word for word in text.split(" -> ")
    )


def colored_cell(padded: str, text: str) -> str:
    """``padded``, a cell with the verdict ``text``, in the color of the last verdict."""
    color = VERDICTS.get(text.split(" -> ")[-1], (None, ""))[0]
    if color is None or not has_color(sys.stdout):
        return padded
    content = padded.strip()
    return padded.replace(content, click.style(content, fg=color))


def styled_line(line: str, *, err: bool = False) -> Text:
    """A line ``LABEL: TEXT`` with the label in its color, and a verdict with its symbol."""
    safe = line if isinstance(line, Text) else printable(line)
    label, colon, text = safe.partition(": ")
    stream = sys.stderr if err else sys.stdout
    if label == "Verdict":
        word, comma, rest = text.partition(", ")
        cell = verdict_cell(word)
        shown = click.style(colored_cell(cell, word), bold=True) if has_color(stream) else cell
        return Text(f"{label}{colon}{shown}{comma}{rest}")
    if label in LABELS and has_color(stream):
        label = click.style(label, fg=LABELS[label], bold=True)
    return Text(f"{label}{colon}{text}")


class Formatter(click.HelpFormatter):
    """Help with headings in bold type and options in color."""

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True) if has_color(sys.stdout) else heading)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        if has_color(sys.stdout):
            rows = [(click.style(first, fg="cyan"), second) for first, second in rows]
        super().write_dl(rows, col_max, col_spacing)


class Context(click.Context):
    """A context whose help is formatted by :class:`Formatter`."""

    formatter_class = Formatter
