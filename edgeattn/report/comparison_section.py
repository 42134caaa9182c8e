"""Values of the section that compares a bundle with an older one."""

from __future__ import annotations

from dataclasses import dataclass

from edgeattn.report.number_formats import format_number, format_size
from edgeattn.validation.bundle_comparison import ArtifactComparison, BundleComparison
from edgeattn.validation.changes import ATTENTION, ERROR, LATENCY, SCORE, SIZE, Change

TITLES = {
    SIZE: "size",
    LATENCY: "median latency",
    SCORE: "score",
    ERROR: "max abs error",
    ATTENTION: "max map error",
}
OUTPUT_CHANGE, MAP_CHANGE = "output change", "map change"


@dataclass(frozen=True)
class ComparisonRow:
    """An artifact, its old and new verdict if it is in both bundles, and cells by column."""

    label: str
    old: str | None
    new: str | None
    cells: dict[str, str]
    regressions: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonSection:
    """``columns`` are those that any artifact has a value for, apart from the verdict."""

    summary: str
    old: str
    columns: list[str]
    rows: list[ComparisonRow]
    notes: tuple[str, ...]
    regressions: tuple[str, ...]


def comparison_section(comparison: BundleComparison) -> ComparisonSection:
    """The table of what changed."""
    rows = [_row(item) for item in comparison.artifacts]
    columns = [
        title
        for title in (*TITLES.values(), OUTPUT_CHANGE, MAP_CHANGE)
        if any(title in row.cells for row in rows)
    ]
    return ComparisonSection(
        comparison.summary[:1].upper() + comparison.summary[1:],
        comparison.old,
        columns,
        rows,
        comparison.notes,
        comparison.regressions,
    )


def _row(item: ArtifactComparison) -> ComparisonRow:
    cells = {
        title: ", ".join(map(_text, item.of(metric)))
        for metric, title in TITLES.items()
        if item.of(metric)
    }
    for title, value in ((OUTPUT_CHANGE, item.output_change), (MAP_CHANGE, item.map_change)):
        if value is not None:
            cells[title] = format_number(value)
    return ComparisonRow(
        item.artifact.label,
        None if item.old is None else item.old.verdict,
        None if item.new is None else item.new.verdict,
        cells,
        item.regressions,
    )


def _text(change: Change) -> str:
    old, new = (_value(change, value) for value in (change.old, change.new))
    return old if old == new else f"{old} → {new}"


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "–"
    if change.metric == SIZE:
        return format_size(int(value))
    if change.metric == SCORE:
        return f"{100 * value:.2f}%"
    return format_number(value) + (" ms" if change.metric == LATENCY else "")
