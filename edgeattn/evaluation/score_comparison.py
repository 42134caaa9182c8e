"""Scores of two sets of outputs on the same labelled samples, compared at once."""

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.evaluation.accumulators import TaskAccumulator
from edgeattn.evaluation.results import TaskResult
from edgeattn.metrics.limits import LIMITS, Limits
from edgeattn.samples.labels import LabelSummary
from edgeattn.tensors import Array


def compare_scores(
    output: str,
    labels: Array,
    expected: Array,
    actual: Array,
    *,
    limits: Limits = LIMITS["int8"],
) -> TaskResult:
    """Compare the score of the outputs ``actual`` with that of ``expected``.

    Args:
        output: Name of the output.
        labels: Class numbers ``(samples,)``, one-hot rows, zeros and ones, or amounts of the shape
            of the output.
        expected: Outputs of the reference, the sample axis first.
        actual: Outputs of the artifact, of the same shape.
        limits: Limits, of which those of a task apply. By default the score decides.

    Raises :class:`SampleError` if the labels do not fit the output.
    """
    labels, expected = np.asarray(labels), np.asarray(expected)
    if not labels.ndim or len(labels) != len(expected) or not len(expected):
        raise SampleError(
            f"Output {output!r} has the shape {expected.shape}, and its labels have the shape "
            f"{labels.shape} ({labels.dtype}).",
            hint="Give one label per sample.",
        )
    accumulator = TaskAccumulator(output, LabelSummary.of(labels))
    accumulator.add(labels, expected, actual)
    result = accumulator.result(limits)
    assert result is not None
    return result
