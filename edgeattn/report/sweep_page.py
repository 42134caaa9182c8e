"""The summary page of a sweep: what passes, what changed and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.plots.style import require
from edgeattn.report.page import VERDICT_SIGNS, render_template
from edgeattn.version import __version__

Row = Mapping[str, Any]
# In the order of the page.
_BUNDLE = ("model", "target", "lowering", "data")


def require_libraries() -> None:
    """Raise :class:`UsageError` if a library that the page needs is not installed."""
    require("matplotlib", "jinja2", purpose="The summary page", extra="report")


def render_sweep(
    rows: Sequence[Row], *, results: str, changes: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """The page as HTML text, which loads nothing.

    Args:
        rows: The rows of the table.
        results: The URL of the results.
        changes: Differences to an earlier table: label, column, old and new value.
    """
    counts = Counter(outcome(row) for row in rows)
    order = [*VERDICT_SIGNS, *(name for name in counts if name not in VERDICT_SIGNS)]
    columns = list(dict.fromkeys((row["format"], row["scheme"]) for row in rows))
    bundles: dict[tuple[Any, ...], dict[tuple[str, str], Row]] = {}
    for row in rows:
        cells = bundles.setdefault(tuple(row.get(name) for name in _BUNDLE), {})
        cells[row["format"], row["scheme"]] = row
    reasons: dict[tuple[Any, ...], None] = {}
    for row in rows:
        if outcome(row) not in ("pass", "inconclusive") and row.get("reason"):
            reasons[row["model"], row.get("lowering"), row["reason"]] = None
    return render_template(
        "sweep.html",
        version=__version__,
        results=results,
        counts=[f"{counts[name]} {name}" for name in order if counts[name]],
        columns=columns,
        bundles=[
            {**dict(zip(_BUNDLE, key, strict=True)), "cells": [cells.get(c) for c in columns]}
            for key, cells in bundles.items()
        ],
        outcome=outcome,
        targets=any(row.get("target") for row in rows),
        reasons=list(reasons),
        changes=changes,
    )


def outcome(row: Row) -> str:
    """The verdict of a row, or its status if it has none."""
    return str(row.get("verdict") or row["status"])
