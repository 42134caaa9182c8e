"""Does the artifact still do its task? Accuracy, paired with the reference's on the same samples.

A drop is measured, never assumed: every sample is answered by both, and what counts is where they
differ. Three answers are possible: the loss is shown to be within the margin (pass), shown to be
beyond it (fail), or the samples cannot tell (inconclusive), and then how many could is said.

:mod:`edgeattn.metrics.statistics` decides, :mod:`edgeattn.evaluation.accumulators` counts.
"""

from __future__ import annotations

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.evaluation.accumulators import TaskTally
from edgeattn.evaluation.results import Outcome, TaskReport
from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.samples.labels import (
    AMOUNTS,
    CLASSES,
    YES_NO,
    LabelFacts,
    kind_of,
    labels_for,
    truth_of,
)
from edgeattn.tensors import Array

__all__ = [
    "AMOUNTS",
    "CLASSES",
    "FAIL",
    "INCONCLUSIVE",
    "NOT_RUN",
    "PASS",
    "YES_NO",
    "Outcome",
    "TaskReport",
    "compare",
    "labels_for",
    "read_labels",
]


def compare(
    output: str,
    labels: Array,
    before: Array,
    after: Array,
    *,
    retention: float,
) -> Outcome:
    """Hold the answers ``after`` to those ``before``, given the truth, all samples at once.

    ``labels`` are class numbers ``(samples,)``, one-hot rows, zeros and ones, or amounts of the
    output's own shape. ``retention`` is the share of the score that must be kept. Raises
    :class:`SampleError` for labels that do not fit the output.
    """
    before = np.asarray(before)
    _check_length(output, labels, before)
    tally = TaskTally(output, LabelFacts.of(labels))
    tally.add(np.asarray(labels), before, after)
    outcome = tally.outcome(retention)
    assert outcome is not None
    return outcome


def read_labels(output: str, labels: Array, before: Array) -> tuple[str, Array]:
    """What kind of task these labels make of an output, and the truth as its decisions look."""
    labels = np.asarray(labels)
    _check_length(output, labels, before)
    answer = before.shape[1:]
    kind = kind_of(output, LabelFacts.of(labels), answer)
    return kind, truth_of(kind, labels, answer)


def _check_length(output: str, labels: Array, before: Array) -> None:
    labels = np.asarray(labels)
    if not labels.ndim or len(labels) != len(before) or not len(before):
        raise SampleError(
            f"The labels of output {output!r} are {labels.shape} {labels.dtype}, "
            f"and its {len(before)} answers {before.shape}."
        )
