"""A task judged batch by batch: what is kept of the answers has one size, however many there are.

A tally's ``state`` are plain arrays, so that work that was cut short goes on where it stood, to the
same result bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.evaluation.results import Outcome
from edgeattn.metrics import statistics
from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, Piles
from edgeattn.samples.labels import AMOUNTS, CLASSES, YES_NO, LabelFacts, kind_of, truth_of
from edgeattn.tensors import Array

# A confusion matrix of more classes is too large to be told.
MOST_CLASSES = 200

State = dict[str, Array]


class Tally(Protocol):
    state: State

    def add(self, truth: Array, before: Array, after: Array) -> None:
        """Some more samples: what is true, what the reference answers, what the artifact does."""
        ...

    def outcome(self, output: str, retention: float) -> Outcome:
        """What all of them come to; ``retention`` is the share of the score to be kept."""
        ...


class Decisions:
    """Classes, or yes and no at a ``threshold``: accuracy before and after.

    A sample of several decisions counts with the share of them that is right.
    """

    def __init__(self, answer: tuple[int, ...], threshold: float | None = None) -> None:
        self._threshold = threshold
        classes = answer[-1] if threshold is None else 2
        self._each = math.prod(answer[:-1] if threshold is None else answer)
        shape = (2, classes, classes) if classes <= MOST_CLASSES else (2, 0, 0)
        self.state: State = {
            # samples, right before, right after, lost, gained, leads
            "counts": np.zeros(6, np.int64),
            # How many samples lost so many of their decisions, from all gained to all lost.
            "losses": np.zeros(2 * self._each + 1, np.int64),
            "nearest": np.full(statistics.NEAREST, np.inf),
            "moved": np.zeros(()),
            "confusions": np.zeros(shape, np.int64),
        }

    def _decide(self, scores: Array) -> Array:
        if self._threshold is not None:
            return (scores > self._threshold).astype(np.int64)
        best: Array = np.argmax(np.where(np.isnan(scores), -np.inf, scores), -1)
        return best

    def add(self, truth: Array, before: Array, after: Array) -> None:
        samples, state = len(truth), self.state
        answers = self._decide(before), self._decide(after)
        # A NaN decides nothing: such an answer is wrong.
        sound = np.isfinite(after).reshape(samples, -1).all(-1, keepdims=True)
        right = (answers[0] == truth).reshape(samples, -1)
        kept = (answers[1] == truth).reshape(samples, -1) & sound
        lead, moved = self._leads(before, after)
        lost, gained = right & ~kept, kept & ~right
        sums = (part.sum() for part in (right, kept, lost, gained))
        state["counts"] += np.array([samples, *sums, lead.size], np.int64)
        balance = lost.sum(-1) - gained.sum(-1)  # (samples,)
        state["losses"] += np.bincount(balance + self._each, minlength=2 * self._each + 1)
        nearest = statistics.smallest(np.concatenate([state["nearest"], lead]))
        state["nearest"] = nearest
        state["moved"] = np.maximum(state["moved"], moved)  # keeps a NaN
        if state["confusions"].size:
            for matrix, answer in zip(state["confusions"], answers, strict=True):
                matrix += statistics.confusion(truth, answer, len(matrix))

    def _leads(self, before: Array, after: Array) -> tuple[Array, Array]:
        """How far each decision of the reference is from another; the most a lead has moved."""
        before, after = before.astype(np.float64), after.astype(np.float64)
        with np.errstate(invalid="ignore"):
            moved = np.max(np.abs(after - before), initial=0.0)
        if self._threshold is not None:
            return np.abs(before - self._threshold).ravel(), moved
        top = np.partition(before, -2, -1)
        return (top[..., -1] - top[..., -2]).ravel(), 2 * moved

    def outcome(self, output: str, retention: float) -> Outcome:
        samples, right, kept, lost, gained, leads = (int(n) for n in self.state["counts"])
        there = np.flatnonzero(self.state["losses"])
        counts = self.state["losses"][there]
        values = (there - self._each) / self._each
        before, after = right / samples / self._each, kept / samples / self._each
        low, high = statistics.bootstrap_counts(values, counts)
        gaining = int(counts[values < 0].sum())
        if not lost:
            # What was never seen cannot be resampled.
            moved = float(self.state["moved"])
            unseen = statistics.unseen_loss(samples, self.state["nearest"], leads, moved)
            high = max(high, unseen - gaining / samples)
        margin = (1.0 - retention) * before
        verdict = statistics.non_inferior((low, high), margin)
        needed = None
        if verdict == INCONCLUSIVE:
            drop = float(values @ counts) / samples
            spread = math.sqrt(float((values - drop) ** 2 @ counts) / samples)
            needed = statistics.needed_samples(drop, spread, samples, margin)
        matrices = self.state["confusions"]
        return Outcome(
            output=output,
            kind=CLASSES if self._threshold is None else YES_NO,
            score="accuracy",
            samples=samples,
            before=before,
            after=after,
            interval=(low, high),
            margin=margin,
            verdict=verdict,
            needed=needed,
            lost=lost,
            gained=gained,
            # By samples: decisions of one sample are not independent of each other.
            p_value=statistics.mcnemar(int(counts[values > 0].sum()), gaining),
            confusions=(matrices[0], matrices[1]) if matrices.size else None,
        )


class YesOrNo:
    """Yes from one half on where all scores are probabilities, from zero on where they are logits.

    Which of both is known at the end only, so both are tallied.
    """

    def __init__(self, answer: tuple[int, ...]) -> None:
        self._of = {"probability": Decisions(answer, 0.5), "logit": Decisions(answer, 0.0)}
        self._bounds = np.array([np.inf, -np.inf])

    @property
    def state(self) -> State:
        parts = {f"{k}/{n}": a for k, part in self._of.items() for n, a in part.state.items()}
        return {**parts, "bounds": self._bounds}

    @state.setter
    def state(self, state: State) -> None:
        self._bounds = state["bounds"]
        for name, part in self._of.items():
            part.state = {key: state[f"{name}/{key}"] for key in part.state}

    def add(self, truth: Array, before: Array, after: Array) -> None:
        low, high = self._bounds
        self._bounds = np.array([min(low, before.min()), max(high, before.max())], np.float64)
        for part in self._of.values():
            part.add(truth, before, after)

    def outcome(self, output: str, retention: float) -> Outcome:
        low, high = self._bounds
        kind = "probability" if low >= 0 and high <= 1 else "logit"
        return self._of[kind].outcome(output, retention)


class Amounts:
    """Regression: the share of variance explained, R2, must be kept; MAE and RMSE are told.

    ``R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2`` over the samples, every column centred. Means
    and sums of squares are joined as Chan, Golub and LeVeque (1979) do.
    """

    def __init__(self, answer: tuple[int, ...]) -> None:
        columns = math.prod(answer)
        self.state: State = {
            "samples": np.zeros((), np.int64),
            "mean": np.zeros(columns),
            "squares": np.zeros(columns),
            # Of the mean squared error that a sample has more: its mean and sum of squares.
            "loss": np.zeros(2),
            "absolute": np.zeros(2),
            "squared": np.zeros(2),
            "sums": np.zeros(statistics.PILES),
            "sizes": np.zeros(statistics.PILES),
        }

    def add(self, truth: Array, before: Array, after: Array) -> None:
        samples, state = len(truth), self.state
        y, one, other = (a.reshape(samples, -1).astype(np.float64) for a in (truth, before, after))
        errors = [one - y, other - y]  # (samples, columns)
        with np.errstate(invalid="ignore", over="ignore"):
            state["absolute"] += [np.abs(error).sum() for error in errors]
            squares = [(error**2).mean(-1) for error in errors]  # (samples,)
            state["squared"] += [part.sum() for part in squares]
            loss = squares[1] - squares[0]
            Piles(state["sums"], state["sizes"]).add(loss)
            count = int(state["samples"])
            mean, total = _joined(count, state["loss"][:1], state["loss"][1:], loss[:, None])
            state["loss"] = np.concatenate([mean, total])
        state["mean"], state["squares"] = _joined(count, state["mean"], state["squares"], y)
        state["samples"] = state["samples"] + samples

    def outcome(self, output: str, retention: float) -> Outcome:
        state, samples = self.state, int(self.state["samples"])
        columns = len(state["mean"])
        total = float(state["squares"].sum()) / (samples * columns)
        if total == 0.0:
            raise SampleError(
                f"The labels of output {output!r} are all the same: no error can be weighed on "
                "them.",
                hint="Give samples whose labels differ.",
            )
        squared = state["squared"] / samples
        before, after = (1.0 - float(part) / total for part in squared)
        margin = (1.0 - retention) * max(before, 0.0)
        interval, verdict, needed = (math.nan, math.nan), FAIL, None
        if np.isfinite(state["sums"]).all():
            interval = Piles(state["sums"], state["sizes"]).bootstrap(1.0 / total)
            verdict = statistics.non_inferior(interval, margin)
        if verdict == INCONCLUSIVE:
            drop = float(state["loss"][0]) / total
            spread = math.sqrt(float(state["loss"][1]) / samples) / total
            needed = statistics.needed_samples(drop, spread, samples, margin)
        absolute = state["absolute"] / (samples * columns)
        return Outcome(
            output=output,
            kind=AMOUNTS,
            score="r2",
            samples=samples,
            before=before,
            after=after,
            interval=interval,
            margin=margin,
            verdict=verdict,
            needed=needed,
            errors={
                "mae": (float(absolute[0]), float(absolute[1])),
                "rmse": (math.sqrt(squared[0]), math.sqrt(squared[1])),
            },
        )


def _joined(count: int, mean: Array, squares: Array, more: Array) -> tuple[Array, Array]:
    """The mean of each column and its sum of squared distances to it, of ``count`` and ``more``."""
    added, both = len(more), count + len(more)
    middle = more.mean(0)
    away = middle - mean
    return (
        mean + away * (added / both),
        squares + ((more - middle) ** 2).sum(0) + away**2 * (count * added / both),
    )


class TaskTally:
    """An output's answers against its labels; what kind of task it is shows with the first."""

    def __init__(self, output: str, facts: LabelFacts) -> None:
        self.output = output
        self._facts = facts
        self._kind: str | None = None
        self._tally: Any = None

    def _start(self, answer: tuple[int, ...]) -> None:
        self._kind = kind_of(self.output, self._facts, answer)
        kinds = {CLASSES: Decisions, YES_NO: YesOrNo, AMOUNTS: Amounts}
        self._answer = answer
        self._tally = kinds[self._kind](answer)

    def add(self, labels: Array, before: Array, after: Array) -> None:
        """Some more samples; raises :class:`SampleError` for labels that fit no such answers."""
        before, after = np.asarray(before), np.asarray(after)
        if self._tally is None:
            self._start(before.shape[1:])
        if after.shape != before.shape:
            raise SampleError(
                f"Output {self.output!r}: {after.shape} came where the reference has "
                f"{before.shape}."
            )
        assert self._kind is not None
        self._tally.add(truth_of(self._kind, labels, self._answer), before, after)

    def outcome(self, retention: float) -> Outcome | None:
        """What all of them come to; None where there were none."""
        if self._tally is None:
            return None
        found: Outcome = self._tally.outcome(self.output, retention)
        return found

    @property
    def state(self) -> State:
        if self._tally is None:
            return {}
        return {**self._tally.state, "answer": np.array(self._answer, np.int64)}

    @state.setter
    def state(self, state: State) -> None:
        if state:
            state = dict(state)
            self._start(tuple(int(axis) for axis in state.pop("answer")))
            # Arrays that were read are not always to be written to.
            self._tally.state = {name: np.array(array) for name, array in state.items()}
