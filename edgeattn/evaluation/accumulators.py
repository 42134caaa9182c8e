"""Scores of a task, accumulated batch by batch in memory of constant size.

The ``state`` of an accumulator is a dictionary of plain arrays. An evaluation that was interrupted
restores it and ends with the same result, bit for bit. States of parts of the data are merged to
that of all of them: sums are exact, so the result does not depend on how the data are divided.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.evaluation.amount_accumulators import RegressionAccumulator
from edgeattn.evaluation.decision_accumulators import BinaryAccumulator, DecisionAccumulator
from edgeattn.evaluation.results import TaskResult
from edgeattn.metrics.limits import Limits
from edgeattn.samples.labels import (
    BINARY,
    CLASSIFICATION,
    REGRESSION,
    LabelSummary,
    task_kind,
    true_values,
)
from edgeattn.tensors import Array

State = dict[str, Array]


class ScoreAccumulator(Protocol):
    state: State

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        """Add a batch: true values, and outputs of the reference and of the artifact."""
        ...

    def merge(self, state: State) -> None:
        """Add the batches of another accumulator."""
        ...

    def result(self, output: str, limits: Limits) -> TaskResult:
        """The result of all batches."""
        ...


class TaskAccumulator:
    """The score of one output; the first batch determines the kind of task."""

    def __init__(self, output: str, facts: LabelSummary) -> None:
        self.output = output
        self._facts = facts
        self._kind = ""
        self._scores: ScoreAccumulator | None = None

    def _start(self, shape: tuple[int, ...]) -> ScoreAccumulator:
        self._kind = task_kind(self.output, self._facts, shape)
        kinds: dict[str, Callable[[tuple[int, ...]], ScoreAccumulator]] = {
            CLASSIFICATION: DecisionAccumulator,
            BINARY: BinaryAccumulator,
            REGRESSION: RegressionAccumulator,
        }
        self._shape = shape
        self._scores = kinds[self._kind](shape)
        return self._scores

    def add(self, labels: Array, expected: Array, actual: Array) -> None:
        """Add a batch: labels, and outputs of the reference and of the artifact.

        Raises :class:`SampleError` if the labels do not fit the output.
        """
        expected, actual = np.asarray(expected), np.asarray(actual)
        scores = self._start(expected.shape[1:]) if self._scores is None else self._scores
        if actual.shape != expected.shape:
            raise SampleError(
                f"Output {self.output!r} has the shape {actual.shape}, and that of the reference "
                f"has {expected.shape}."
            )
        scores.add(true_values(self._kind, labels, self._shape), expected, actual)

    def result(self, limits: Limits) -> TaskResult | None:
        """The result of all batches; None if there were none."""
        if self._scores is None:
            return None
        return self._scores.result(self.output, limits)

    def merge(self, state: State) -> None:
        """Add the batches of another accumulator of the same output."""
        if self._scores is None:
            self.state = state
        elif state:
            self._scores.merge({name: array for name, array in state.items() if name != "answer"})

    @property
    def state(self) -> State:
        if self._scores is None:
            return {}
        return {**self._scores.state, "answer": np.array(self._shape, np.int64)}

    @state.setter
    def state(self, state: State) -> None:
        if state:
            state = dict(state)
            scores = self._start(tuple(int(axis) for axis in state.pop("answer")))
            # Arrays from a file can be read-only.
            scores.state = {name: np.array(array) for name, array in state.items()}
