"""Two bundles side by side, as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeattn.cli import output
from edgeattn.cli.terminal import styled_line

if TYPE_CHECKING:
    from edgeattn.validation.bundle_comparison import ArtifactComparison, BundleComparison
    from edgeattn.validation.changes import Change

# The metric of a column, its title, the format of a value and its factor.
COLUMNS = (
    ("size", "size (kB)", ".1f", 1e-3),
    ("latency", "median (ms)", ".3g", 1.0),
    ("score", "score (%)", ".2f", 100.0),
    ("error", "max abs error", ".2g", 1.0),
    ("attention", "max map error", ".2g", 1.0),
)


def comparison_lines(comparison: BundleComparison) -> Iterator[str]:
    """A table with the old and the new value of each artifact, notes, and regressions."""
    items = comparison.artifacts
    columns = [column for column in COLUMNS if any(item.of(column[0]) for item in items)]
    changed = [
        (title, values)
        for title, values in (
            ("output change", [item.output_change for item in items]),
            ("map change", [item.map_change for item in items]),
        )
        if any(value is not None for value in values)
    ]
    rows = [
        [
            item.artifact.format,
            item.artifact.scheme,
            _verdicts(item),
            *(
                ", ".join(_pair(change, spec, factor) for change in item.of(metric)) or "-"
                for metric, _, spec, factor in columns
            ),
            *(output.number(values[row]) for _, values in changed),
        ]
        for row, item in enumerate(items)
    ]
    header = ["format", "scheme", "verdict", *(title for _, title, _, _ in columns)]
    header += [title for title, _ in changed]
    yield ""
    yield f"Compared with {comparison.old} (old -> new)"
    yield output.table(header, rows, right=range(3, len(header)))
    yield from (styled_line(f"note: {note}") for note in comparison.notes)
    yield from (styled_line(f"Regression: {text}") for text in comparison.regressions)


def _verdicts(item: ArtifactComparison) -> str:
    old, new = (side.verdict if side else "no file" for side in (item.old, item.new))
    return old if old == new else f"{old} -> {new}"


def _pair(change: Change, spec: str, factor: float) -> str:
    old, new = (
        "-" if value is None else format(factor * value, spec) for value in (change.old, change.new)
    )
    return old if old == new else f"{old} -> {new}"
