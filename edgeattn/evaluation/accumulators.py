"""Scores of a task, accumulated batch by batch in memory of constant size.

The ``state`` of an accumulator is a dictionary of plain arrays. An evaluation that was interrupted
restores it and ends with the same result, bit for bit.
"""

import math
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.evaluation.results import TaskResult
from edgeattn.metrics import statistics
from edgeattn.metrics.statistics import LossGroups
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE
from edgeattn.samples.labels import (
    BINARY,
    CLASSIFICATION,
    REGRESSION,
    LabelSummary,
    task_kind,
    true_values,
)
from edgeattn.tensors import Array

# Confusion matrices of more classes are not stored.
MAX_CONFUSION_CLASSES = 200

State = dict[str, Array]


class ScoreAccumulator(Protocol):
    state: State

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        """Add a batch: true values, and outputs of the reference and of the artifact."""
        ...

    def result(self, output: str, retention: float) -> TaskResult:
        """The result of all batches; ``retention`` is the lowest share of the score to retain."""
        ...


class DecisionAccumulator:
    """Accuracy of classes or, with a ``threshold``, of binary decisions.

    ``shape`` is that of one sample's output. A sample with several decisions counts with the share
    of them that is right.
    """

    def __init__(self, shape: tuple[int, ...], threshold: float | None = None) -> None:
        self._threshold = threshold
        classes = shape[-1] if threshold is None else 2
        self._decisions = math.prod(shape[:-1] if threshold is None else shape)
        matrices = (2, classes, classes) if classes <= MAX_CONFUSION_CLASSES else (2, 0, 0)
        self.state: State = {
            # samples, right by the reference, right by the artifact, lost, gained, leads
            "counts": np.zeros(6, np.int64),
            # The number of samples by their balance of lost decisions, from all gained to all lost.
            "losses": np.zeros(2 * self._decisions + 1, np.int64),
            "nearest": np.full(statistics.NEAREST, np.inf),
            "moved": np.zeros(()),
            "confusions": np.zeros(matrices, np.int64),
        }

    def _decide(self, scores: Array) -> Array:
        if self._threshold is not None:
            return (scores > self._threshold).astype(np.int64)
        best: Array = np.argmax(np.where(np.isnan(scores), -np.inf, scores), -1)
        return best

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        samples, state = len(truth), self.state
        decisions = self._decide(expected), self._decide(actual)
        # A sample with a NaN or an infinity has no valid decision.
        finite = np.isfinite(actual).reshape(samples, -1).all(-1, keepdims=True)
        right_before = (decisions[0] == truth).reshape(samples, -1)
        right_after = (decisions[1] == truth).reshape(samples, -1) & finite
        leads, moved = self._leads(expected, actual)
        lost, gained = right_before & ~right_after, right_after & ~right_before
        sums = (part.sum() for part in (right_before, right_after, lost, gained))
        state["counts"] += np.array([samples, *sums, leads.size], np.int64)
        balance = lost.sum(-1) - gained.sum(-1)  # (samples,)
        state["losses"] += np.bincount(balance + self._decisions, minlength=2 * self._decisions + 1)
        state["nearest"] = statistics.smallest(np.concatenate([state["nearest"], leads]))
        state["moved"] = np.maximum(state["moved"], moved)  # preserves NaN
        if state["confusions"].size:
            for matrix, predicted in zip(state["confusions"], decisions, strict=True):
                matrix += statistics.confusion(truth, predicted, len(matrix))

    def _leads(self, expected: Array, actual: Array) -> tuple[Array, Array]:
        """The lead of each decision of the reference, and the largest change of a lead."""
        expected, actual = expected.astype(np.float64), actual.astype(np.float64)
        with np.errstate(invalid="ignore"):
            moved = np.max(np.abs(actual - expected), initial=0.0)
        if self._threshold is not None:
            return np.abs(expected - self._threshold).ravel(), moved
        top = np.partition(expected, -2, -1)
        return (top[..., -1] - top[..., -2]).ravel(), 2 * moved

    def result(self, output: str, retention: float) -> TaskResult:
        samples, right_before, right_after, lost, gained, leads = map(int, self.state["counts"])
        occurring = np.flatnonzero(self.state["losses"])
        counts = self.state["losses"][occurring]
        values = (occurring - self._decisions) / self._decisions
        reference_score = right_before / samples / self._decisions
        low, high = statistics.bootstrap_counts(values, counts)
        gaining = int(counts[values < 0].sum())
        if not lost:
            # Resampling cannot produce a loss that no sample shows.
            moved = float(self.state["moved"])
            unseen = statistics.unseen_loss(samples, self.state["nearest"], leads, moved)
            high = max(high, unseen - gaining / samples)
        margin = (1.0 - retention) * reference_score
        verdict = statistics.non_inferior((low, high), margin)
        needed = None
        if verdict == INCONCLUSIVE:
            drop = float(values @ counts) / samples
            spread = math.sqrt(float((values - drop) ** 2 @ counts) / samples)
            needed = statistics.needed_samples(drop, spread, samples, margin)
        matrices = self.state["confusions"]
        return TaskResult(
            output=output,
            kind=CLASSIFICATION if self._threshold is None else BINARY,
            metric="accuracy",
            samples=samples,
            reference_score=reference_score,
            artifact_score=right_after / samples / self._decisions,
            interval=(low, high),
            margin=margin,
            verdict=verdict,
            needed_samples=needed,
            lost=lost,
            gained=gained,
            # Counted by sample, because decisions on one sample are not independent.
            p_value=statistics.mcnemar(int(counts[values > 0].sum()), gaining),
            confusions=(matrices[0], matrices[1]) if matrices.size else None,
        )


class BinaryAccumulator:
    """Accuracy of binary decisions, with a threshold of 0.5 for probabilities and 0 for logits.

    Scores are probabilities if all are within 0 and 1, which is known only after the last batch.
    Until then both thresholds are accumulated.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._parts = {
            "probability": DecisionAccumulator(shape, 0.5),
            "logit": DecisionAccumulator(shape, 0.0),
        }
        self._bounds = np.array([np.inf, -np.inf])

    @property
    def state(self) -> State:
        arrays = {f"{k}/{n}": a for k, part in self._parts.items() for n, a in part.state.items()}
        return {**arrays, "bounds": self._bounds}

    @state.setter
    def state(self, state: State) -> None:
        self._bounds = state["bounds"]
        for name, part in self._parts.items():
            part.state = {key: state[f"{name}/{key}"] for key in part.state}

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        low, high = self._bounds
        self._bounds = np.array([min(low, expected.min()), max(high, expected.max())], np.float64)
        for part in self._parts.values():
            part.add(truth, expected, actual)

    def result(self, output: str, retention: float) -> TaskResult:
        low, high = self._bounds
        kind = "probability" if low >= 0 and high <= 1 else "logit"
        return self._parts[kind].result(output, retention)


class RegressionAccumulator:
    """The coefficient of determination R2, with MAE and RMSE for information.

    ``R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2`` over the samples, every column centred. Means
    and sums of squares of batches are combined as in Chan, Golub and LeVeque (1979).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        columns = math.prod(shape)
        self.state: State = {
            "samples": np.zeros((), np.int64),
            "mean": np.zeros(columns),
            "squares": np.zeros(columns),
            # The increase of a sample's mean squared error: its mean and sum of squares.
            "loss": np.zeros(2),
            # Sums of absolute and squared errors of the reference and of the artifact.
            "absolute": np.zeros(2),
            "squared": np.zeros(2),
            "sums": np.zeros(statistics.GROUPS),
            "sizes": np.zeros(statistics.GROUPS),
        }

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        samples, state = len(truth), self.state
        y, before, after = (
            array.reshape(samples, -1).astype(np.float64) for array in (truth, expected, actual)
        )
        errors = [before - y, after - y]  # (samples, columns)
        with np.errstate(invalid="ignore", over="ignore"):
            state["absolute"] += [np.abs(error).sum() for error in errors]
            squares = [(error**2).mean(-1) for error in errors]  # (samples,)
            state["squared"] += [part.sum() for part in squares]
            loss = squares[1] - squares[0]
            LossGroups(state["sums"], state["sizes"]).add(loss)
            count = int(state["samples"])
            mean, total = _combined(count, state["loss"][:1], state["loss"][1:], loss[:, None])
            state["loss"] = np.concatenate([mean, total])
        state["mean"], state["squares"] = _combined(count, state["mean"], state["squares"], y)
        state["samples"] = state["samples"] + samples

    def result(self, output: str, retention: float) -> TaskResult:
        state, samples = self.state, int(self.state["samples"])
        columns = len(state["mean"])
        variance = float(state["squares"].sum()) / (samples * columns)
        if variance == 0.0:
            raise SampleError(
                f"The labels of output {output!r} are all the same, so that R2 is undefined.",
                hint="Give samples with different labels.",
            )
        squared = state["squared"] / samples
        reference_score, artifact_score = (1.0 - float(part) / variance for part in squared)
        margin = (1.0 - retention) * max(reference_score, 0.0)
        interval, verdict, needed = (math.nan, math.nan), FAIL, None
        if np.isfinite(state["sums"]).all():
            interval = LossGroups(state["sums"], state["sizes"]).bootstrap(1.0 / variance)
            verdict = statistics.non_inferior(interval, margin)
        if verdict == INCONCLUSIVE:
            drop = float(state["loss"][0]) / variance
            spread = math.sqrt(float(state["loss"][1]) / samples) / variance
            needed = statistics.needed_samples(drop, spread, samples, margin)
        absolute = state["absolute"] / (samples * columns)
        return TaskResult(
            output=output,
            kind=REGRESSION,
            metric="r2",
            samples=samples,
            reference_score=reference_score,
            artifact_score=artifact_score,
            interval=interval,
            margin=margin,
            verdict=verdict,
            needed_samples=needed,
            errors={
                "mae": (float(absolute[0]), float(absolute[1])),
                "rmse": (math.sqrt(squared[0]), math.sqrt(squared[1])),
            },
        )


def _combined(count: int, mean: Array, squares: Array, batch: Array) -> tuple[Array, Array]:
    """Column means and sums of squared deviations of ``count`` earlier rows and of ``batch``."""
    added, total = len(batch), count + len(batch)
    batch_mean = batch.mean(0)
    difference = batch_mean - mean
    return (
        mean + difference * (added / total),
        squares + ((batch - batch_mean) ** 2).sum(0) + difference**2 * (count * added / total),
    )


class TaskAccumulator:
    """The score of one output; the first batch determines the kind of task."""

    def __init__(self, output: str, facts: LabelSummary) -> None:
        self.output = output
        self._facts = facts
        self._kind: str | None = None
        self._scores: Any = None

    def _start(self, shape: tuple[int, ...]) -> None:
        self._kind = task_kind(self.output, self._facts, shape)
        kinds = {
            CLASSIFICATION: DecisionAccumulator,
            BINARY: BinaryAccumulator,
            REGRESSION: RegressionAccumulator,
        }
        self._shape = shape
        self._scores = kinds[self._kind](shape)

    def add(self, labels: Array, expected: Array, actual: Array) -> None:
        """Add a batch: labels, and outputs of the reference and of the artifact.

        Raises :class:`SampleError` if the labels do not fit the output.
        """
        expected, actual = np.asarray(expected), np.asarray(actual)
        if self._scores is None:
            self._start(expected.shape[1:])
        if actual.shape != expected.shape:
            raise SampleError(
                f"Output {self.output!r} has the shape {actual.shape}, and that of the reference "
                f"has {expected.shape}."
            )
        assert self._kind is not None
        self._scores.add(true_values(self._kind, labels, self._shape), expected, actual)

    def result(self, retention: float) -> TaskResult | None:
        """The result of all batches; None if there were none."""
        if self._scores is None:
            return None
        result: TaskResult = self._scores.result(self.output, retention)
        return result

    @property
    def state(self) -> State:
        if self._scores is None:
            return {}
        return {**self._scores.state, "answer": np.array(self._shape, np.int64)}

    @state.setter
    def state(self, state: State) -> None:
        if state:
            state = dict(state)
            self._start(tuple(int(axis) for axis in state.pop("answer")))
            # Arrays from a file can be read-only.
            self._scores.state = {name: np.array(array) for name, array in state.items()}
