"""The task on the page: scores with their intervals, what was lost, and confusions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.metrics import statistics
from edgeattn.report import svg_figures as plots
from edgeattn.report.markup import badge, e, figure, number, share, table
from edgeattn.tensors import Array

if TYPE_CHECKING:
    from edgeattn.evaluation.task import Outcome
    from edgeattn.validation.validate import ArtifactReport, Report

# A confusion matrix of more classes is told by its largest confusions.
MOST_CLASSES = 20
MOST_CONFUSIONS = 12


def overview(report: Report) -> Iterator[str]:
    """What every artifact loses, as a figure and as a table."""
    tasks = [(item, item.task) for item in report.artifacts if item.task is not None]
    if not tasks:
        return
    yield '<section id="task" aria-labelledby="task-title"><h2 id="task-title">The task</h2>'
    found = [(item, task, outcome) for item, task in tasks for outcome in task.outcomes]
    first = next((task for _, task in tasks if task.outcomes), tasks[0][1])
    if found:
        caption = (
            f"What each artifact loses on {first.source}, compared with {first.reference}. A bar "
            "left of its mark passes; one that crosses it needs more samples."
        )
        drops = [
            plots.Drop(
                _label(item, outcome, len(task.outcomes)),
                outcome.drop,
                *outcome.interval,
                outcome.margin,
                outcome.verdict,
            )
            for item, task, outcome in found
            if all(map(math.isfinite, outcome.interval))
        ]
        if drops:
            yield figure(plots.drops(drops, caption), caption)
        rows = [
            [e(_label(item, outcome, len(task.outcomes))), *_row(outcome)]
            for item, task, outcome in found
        ]
        header = ["artifact", "verdict", "before", "after", "drop, points", "95% interval"]
        yield table("Scores before and after", [*header, "may be lost"], rows, kind="cards")
    untold = {task.reason for _, task in tasks if task.reason}
    yield from (f"<p>{e(reason)}</p>" for reason in sorted(untold))
    yield from (f"<p>Note: {e(note)}.</p>" for note in first.notes)
    yield "</section>"


def _label(item: ArtifactReport, outcome: Outcome, outputs: int) -> str:
    return item.artifact.label + (f", {outcome.output}" if outputs > 1 else "")


def _row(outcome: Outcome) -> list[str]:
    low, high = outcome.interval
    scores = [_score(outcome, value) for value in (outcome.before, outcome.after)]
    return [
        badge(outcome.verdict),
        *scores,
        f"{100 * outcome.drop:+.2f}",
        f"{100 * low:+.2f} to {100 * high:+.2f}",
        f"{100 * outcome.margin:.2f}",
    ]


def _score(outcome: Outcome, value: float) -> str:
    """A score, and for decisions of which a sample has one, its own 95% interval."""
    if outcome.score != "accuracy":
        return number(value)
    single = outcome.confusions is not None and outcome.confusions[0].sum() == outcome.samples
    if not single:
        return share(value)
    low, high = statistics.wilson(round(value * outcome.samples), outcome.samples)
    return f"{share(value)} <small>({100 * low:.1f} to {100 * high:.1f})</small>"


def details(item: ArtifactReport) -> Iterator[str]:
    """One artifact's task, in words and in matrices."""
    task = item.task
    if task is None:
        return
    yield "<h3>Task</h3>"
    if task.reason:
        yield f"<p>Not run. {e(task.reason)}</p>"
    for outcome in task.outcomes:
        yield f"<p>{badge(outcome.verdict)} {e(_told(outcome, task.reference))}</p>"
        yield from _confusions(outcome)


def _told(outcome: Outcome, reference: str) -> str:
    low, high = outcome.interval
    name = {"accuracy": "Accuracy", "r2": "R²"}[outcome.score]
    text = (
        f"{name} of {outcome.output}: {outcome.before:.4f} with {reference}, {outcome.after:.4f} "
        f"with this artifact, on {outcome.samples:,} samples. The drop is "
        f"{100 * outcome.drop:.2f} points, its 95% interval {100 * low:.2f} to {100 * high:.2f}, "
        f"and {100 * outcome.margin:.2f} may be lost."
    )
    if outcome.p_value is not None:
        text += (
            f" {outcome.lost:,} decisions became wrong and {outcome.gained:,} right "
            f"(McNemar's exact p = {outcome.p_value:.2g})."
        )
    for name, (before, after) in outcome.errors.items():
        text += f" {name.upper()} {number(before)} before, {number(after)} after."
    if outcome.verdict == "inconclusive":
        text += (
            f" About {outcome.needed:,} samples like these would settle it."
            if outcome.needed
            else " The drop lies on the limit itself: no number of samples would settle it."
        )
    return text


def _confusions(outcome: Outcome) -> Iterator[str]:
    if outcome.confusions is None:
        return
    before, after = outcome.confusions
    if len(before) > MOST_CLASSES:
        yield _largest(outcome, before, after)
        return
    yield '<div class="pair">'
    for name, matrix in (("before", before), ("after", after)):
        yield _confusion(
            f"Confusion {name} conversion, {outcome.output}: true class by row, answer by column",
            matrix,
        )
    yield "</div>"


def _confusion(caption: str, matrix: Array) -> str:
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    shares = matrix / totals
    rows = []
    for label, (counts, parts) in enumerate(zip(matrix, shares, strict=True)):
        cells = [
            f'<span class="cell{" right" if label == column else ""}{" none" if not count else ""}"'
            f' style="--v:{part:.3f}">{count}</span>'
            for column, (count, part) in enumerate(zip(counts, parts, strict=True))
        ]
        rows.append([str(label), *cells])
    header = ["true", *map(str, range(len(matrix)))]
    return '<div class="confusion">' + table(caption, header, rows) + "</div>"


def _largest(outcome: Outcome, before: Array, after: Array) -> str:
    wrong = after.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    places = [np.unravel_index(k, wrong.shape) for k in order if wrong.flat[k]]
    rows = [[str(t), str(a), f"{before[t, a]:,}", f"{after[t, a]:,}"] for t, a in places]
    header: Sequence[str] = ("true class", "answer", "before", "after")
    return table(f"The most frequent confusions of {len(before)} classes", header, rows)
