"""The accuracy of classes and of binary decisions, accumulated batch by batch."""

import math
from typing import ClassVar

import numpy as np

from edgeattn.evaluation.results import TaskResult
from edgeattn.metrics import bounded_mean, sample_size, statistics
from edgeattn.metrics.limits import CHANGED, Limits
from edgeattn.metrics.merging import Mergeable, Rule, combined
from edgeattn.metrics.verdict import INCONCLUSIVE
from edgeattn.samples.labels import BINARY, CLASSIFICATION
from edgeattn.tensors import Array

# Confusion matrices of more classes are not stored.
MAX_CONFUSION_CLASSES = 200

Interval = tuple[float, float]
_BOUNDS: dict[str, Rule] = {"lowest": np.minimum, "highest": np.maximum}


class DecisionAccumulator(Mergeable):
    """Accuracy of classes or, with a ``threshold``, of binary decisions.

    ``shape`` is that of one sample's output. A sample with several decisions counts with the share
    of them that is right, or that changed.
    """

    RULES: ClassVar[dict[str, Rule]] = dict.fromkeys(
        ("counts", "losses", "changes", "confusions"), np.add
    )

    def __init__(self, shape: tuple[int, ...], threshold: float | None = None) -> None:
        self._threshold = threshold
        classes = shape[-1] if threshold is None else 2
        self._decisions = math.prod(shape[:-1] if threshold is None else shape)
        matrices = (2, classes, classes) if classes <= MAX_CONFUSION_CLASSES else (2, 0, 0)
        self.state: dict[str, Array] = {
            # samples, right by the reference, right by the artifact, lost, gained
            "counts": np.zeros(5, np.int64),
            # The number of samples by their balance of lost decisions, from all gained to all lost.
            "losses": np.zeros(2 * self._decisions + 1, np.int64),
            # The number of samples by their changed decisions, from none to all.
            "changes": np.zeros(self._decisions + 1, np.int64),
            "confusions": np.zeros(matrices, np.int64),
        }

    def _decide(self, scores: Array) -> Array:
        if self._threshold is not None:
            return (scores > self._threshold).astype(np.int64)
        best: Array = np.argmax(np.where(np.isnan(scores), -np.inf, scores), -1)
        return best

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        samples, state = len(truth), self.state
        before, after = (self._decide(scores) for scores in (expected, actual))
        # A sample with a NaN or an infinity has no valid decision.
        finite = np.isfinite(actual).reshape(samples, -1).all(-1, keepdims=True)
        right_before = (before == truth).reshape(samples, -1)
        right_after = (after == truth).reshape(samples, -1) & finite
        changed = (before != after).reshape(samples, -1) | ~finite  # (samples, decisions)
        lost, gained = right_before & ~right_after, right_after & ~right_before
        sums = (part.sum() for part in (right_before, right_after, lost, gained))
        state["counts"] += np.array([samples, *sums], np.int64)
        balance = lost.sum(-1) - gained.sum(-1)  # (samples,)
        state["losses"] += np.bincount(balance + self._decisions, minlength=2 * self._decisions + 1)
        state["changes"] += np.bincount(changed.sum(-1), minlength=self._decisions + 1)
        if state["confusions"].size:
            for matrix, predicted in zip(state["confusions"], (before, after), strict=True):
                matrix += statistics.confusion(truth, predicted, len(matrix))

    def result(self, output: str, limits: Limits) -> TaskResult:
        samples, right_before, right_after, lost, gained = map(int, self.state["counts"])
        reference_score = right_before / samples / self._decisions
        margin = limits.margin(reference_score)
        changed, changed_interval = self._changed()
        interval = self._drop_interval()
        decisive = changed_interval if limits.task_question == CHANGED else interval
        verdict = statistics.non_inferior(decisive, margin)
        losses, matrices = self.state["losses"], self.state["confusions"]
        return TaskResult(
            output=output,
            kind=CLASSIFICATION if self._threshold is None else BINARY,
            metric="accuracy",
            samples=samples,
            reference_score=reference_score,
            artifact_score=right_after / samples / self._decisions,
            interval=interval,
            margin=margin,
            verdict=verdict,
            question=limits.task_question,
            changed=changed,
            changed_interval=changed_interval,
            retention=limits.retention,
            needed_samples=self._needed(limits, margin) if verdict == INCONCLUSIVE else None,
            lost=lost,
            gained=gained,
            # Counted by sample, because decisions on one sample are not independent.
            p_value=statistics.mcnemar(
                int(losses[self._decisions + 1 :].sum()), int(losses[: self._decisions].sum())
            ),
            confusions=(matrices[0], matrices[1]) if matrices.size else None,
        )

    def _changed(self) -> tuple[float, Interval]:
        """The share of changed decisions, and its interval."""
        values, counts = self._changes()
        share = float(values @ counts) / int(counts.sum())
        if self._decisions == 1:
            changed, samples = int(self.state["changes"][1]), int(counts.sum())
            return share, statistics.share_limits(changed, samples)
        low, high = bounded_mean.mean_limits(values, counts)
        return share, (max(low, 0.0), high)

    def _drop_interval(self) -> Interval:
        if self._decisions == 1:
            gained, same, lost = map(int, self.state["losses"])
            low, high = statistics.drop_limits(lost, gained, gained + same + lost)
            return float(low), float(high)
        return bounded_mean.mean_limits(*self._losses())

    def _needed(self, limits: Limits, margin: float) -> int | None:
        """The number of samples that would settle the question; see :mod:`sample_size`."""
        if limits.task_question == CHANGED:
            if self._decisions > 1:
                return sample_size.samples_for_mean(*self._changes(), margin)
            same, changed = map(int, self.state["changes"])
            return sample_size.samples_for_share(changed, same + changed, margin)
        if self._decisions > 1:
            return sample_size.samples_for_mean(*self._losses(), margin)
        gained, same, lost = map(int, self.state["losses"])
        return sample_size.samples_for_drop(lost, gained, gained + same + lost, margin)

    def _changes(self) -> tuple[Array, Array]:
        """Shares of a sample's decisions that changed, and how often they occurred."""
        occurring = np.flatnonzero(self.state["changes"])
        return occurring / self._decisions, self.state["changes"][occurring]

    def _losses(self) -> tuple[Array, Array]:
        """Lost minus gained shares of a sample's decisions, and how often they occurred."""
        occurring = np.flatnonzero(self.state["losses"])
        return occurring / self._decisions - 1.0, self.state["losses"][occurring]


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
        # The smallest and the largest score of the reference.
        self._bounds = {"lowest": np.array(np.inf), "highest": np.array(-np.inf)}

    @property
    def state(self) -> dict[str, Array]:
        arrays = {f"{k}/{n}": a for k, part in self._parts.items() for n, a in part.state.items()}
        return {**arrays, **self._bounds}

    @state.setter
    def state(self, state: dict[str, Array]) -> None:
        self._bounds = {name: state[name] for name in self._bounds}
        for name, part in self._parts.items():
            part.state = {key: state[f"{name}/{key}"] for key in part.state}

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        extremes = {"lowest": expected.min(), "highest": expected.max()}
        self._bounds = combined(_BOUNDS, self._bounds, extremes)
        for part in self._parts.values():
            part.add(truth, expected, actual)

    def merge(self, state: dict[str, Array]) -> None:
        """Add what another accumulator has accumulated."""
        self._bounds = combined(_BOUNDS, self._bounds, {name: state[name] for name in _BOUNDS})
        for name, part in self._parts.items():
            part.merge({key: state[f"{name}/{key}"] for key in part.state})

    def result(self, output: str, limits: Limits) -> TaskResult:
        low, high = self._bounds["lowest"], self._bounds["highest"]
        kind = "probability" if low >= 0 and high <= 1 else "logit"
        return self._parts[kind].result(output, limits)
