"""Values of the sections on the task: scores with intervals, drops and confusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.metrics import statistics
from edgeattn.report.number_formats import format_number
from edgeattn.report.svg_figures import Drop, Figure, drop_plot
from edgeattn.tensors import Array

if TYPE_CHECKING:
    from edgeattn.evaluation.results import TaskReport, TaskResult
    from edgeattn.validation.report import Report

# A confusion matrix of more classes is replaced by a table of its largest confusions.
MAX_MATRIX_CLASSES = 20
MAX_LISTED_CONFUSIONS = 12

# A true class, and for every predicted class the count after conversion and its change.
MatrixRow = tuple[int, list[tuple[int, int]]]


@dataclass(frozen=True)
class TaskRow:
    """One output of an artifact; ``before`` and ``after`` are a score and its interval.

    ``artifact`` is the label of the artifact, ``label`` also names the output if there are more.
    """

    artifact: str
    label: str
    outcome: TaskResult
    before: tuple[str, str]
    after: tuple[str, str]


@dataclass(frozen=True)
class TaskSection:
    """``first`` names the data and the reference, ``reasons`` why a task did not run."""

    first: TaskReport
    figure: Figure | None
    rows: list[TaskRow]
    reasons: list[str]


@dataclass(frozen=True)
class OutcomeDetails:
    """``matrix`` is the confusion after conversion; with many classes ``confusions`` replaces it.

    ``caption`` is that of the matrix, and ``largest`` its largest absolute change. ``confusions``
    are true class, predicted class, count before and count after, the most changed first.
    ``names`` are the labels of the classes, or their numbers.
    """

    outcome: TaskResult
    caption: str = ""
    matrix: Sequence[MatrixRow] = ()
    largest: int = 0
    confusions: Sequence[tuple[int, int, int, int]] = ()
    names: Sequence[str] = ()


def task_section(report: Report) -> TaskSection | None:
    """All artifacts' drops as a figure and table rows; None if no artifact has a task."""
    tasks = [(item, item.task) for item in report.artifacts if item.task is not None]
    if not tasks:
        return None
    first = next((task for _, task in tasks if task.results), tasks[0][1])
    rows = [
        TaskRow(
            item.artifact.label,
            item.artifact.label + (f", {outcome.output}" if len(task.results) > 1 else ""),
            outcome,
            score_text(outcome, outcome.reference_score),
            score_text(outcome, outcome.artifact_score),
        )
        for item, task in tasks
        for outcome in task.results
    ]
    caption = (
        f"Changed answers, or drop of the score, of each artifact on {first.source}, compared with "
        f"{first.reference_name}: ● with its 95% interval, and | what is allowed. An interval left "
        "of its mark passes; one that crosses it needs more samples."
    )
    drops = [
        Drop(row.label, o.decisive_value, *o.decisive_interval, o.margin, o.verdict)
        for row in rows
        if all(map(math.isfinite, (o := row.outcome).decisive_interval))
    ]
    return TaskSection(
        first=first,
        figure=Figure(drop_plot(drops, caption), caption) if drops else None,
        rows=rows,
        reasons=sorted({task.reason for _, task in tasks if task.reason}),
    )


def score_text(outcome: TaskResult, value: float) -> tuple[str, str]:
    """A score and, if every sample counts once, its own 95% interval."""
    if outcome.metric != "accuracy":
        return format_number(value), ""
    text = f"{100 * value:.2f}%"
    if outcome.confusions is None or outcome.confusions[0].sum() != outcome.samples:
        return text, ""
    low, high = statistics.wilson(round(value * outcome.samples), outcome.samples)
    return text, f"({100 * low:.1f} to {100 * high:.1f})"


def outcome_details(outcome: TaskResult, labels: Sequence[str] = ()) -> OutcomeDetails:
    """The confusions of one output and how they changed: a matrix or, with many classes, a list.

    ``labels`` are those of its classes, in the order of the output; empty if they are unknown.
    """
    if outcome.confusions is None:
        return OutcomeDetails(outcome)
    before, after = outcome.confusions
    numbers = [str(number) for number in range(len(before))]
    names = labels if len(labels) == len(before) else numbers
    if len(before) > MAX_MATRIX_CLASSES:
        return OutcomeDetails(outcome, confusions=_most_changed(before, after), names=names)
    change = after - before
    caption = f"Confusion of {outcome.output} after conversion: true class by row, predicted class "
    caption += "by column, " + ("with the change" if change.any() else "which did not change")
    matrix = [
        (label, list(zip(counts, changes, strict=True)))
        for label, (counts, changes) in enumerate(zip(after.tolist(), change.tolist(), strict=True))
    ]
    largest = int(np.abs(change).max(initial=0))
    return OutcomeDetails(outcome, caption, matrix, largest, names=names)


def _most_changed(before: Array, after: Array) -> list[tuple[int, int, int, int]]:
    """The confusions whose counts changed most; of equal changes, the most frequent first."""
    wrong = [array.copy() for array in (before, after)]
    for array in wrong:
        np.fill_diagonal(array, 0)
    change = np.abs(wrong[1] - wrong[0])
    order = np.lexsort((-wrong[1].ravel(), -change.ravel()))[:MAX_LISTED_CONFUSIONS]
    indices = [np.unravel_index(flat, change.shape) for flat in order]
    return [
        (int(t), int(p), int(before[t, p]), int(after[t, p]))
        for t, p in indices
        if wrong[0][t, p] or wrong[1][t, p]
    ]
