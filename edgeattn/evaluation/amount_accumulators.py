"""The coefficient of determination of predicted amounts, accumulated batch by batch."""

import math
from fractions import Fraction
from typing import ClassVar

import numpy as np

from edgeattn.evaluation.results import TaskResult
from edgeattn.metrics import exact_sum, sample_size, statistics
from edgeattn.metrics.bounded_mean import Histogram, rounded_up
from edgeattn.metrics.limits import SCORE, Limits
from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE
from edgeattn.samples.labels import REGRESSION, equal_labels
from edgeattn.tensors import Array


class RegressionAccumulator(Mergeable):
    """The coefficient of determination R2, with MAE and RMSE for information.

    ``R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2`` over the samples, every column centred. Sums of
    squares about the means of batches are combined as in Chan, Golub and LeVeque (1979), exactly.

    The drop of R2 is the mean increase of a sample's squared error, divided by the variance of the
    labels. Its limits assume that no error exceeds the range of the labels, because no data can
    exclude a rare error of any size. If a sample shows a larger error, the drop has no limit.
    """

    RULES: ClassVar[dict[str, Rule]] = {
        "samples": np.add,
        "sums": np.add,
        "squares": np.add,
        "lowest": np.minimum,
        "highest": np.maximum,
        "absolute": np.add,
        "squared": np.add,
        "increases": np.add,
    }

    def __init__(self, shape: tuple[int, ...]) -> None:
        columns = math.prod(shape)
        self.state: dict[str, Array] = {
            "samples": np.zeros((), np.int64),
            # Sums of the labels by column, and of the squares of all labels.
            "sums": exact_sum.zeros(columns),
            "squares": exact_sum.zeros(),
            "lowest": np.full(columns, np.inf),
            "highest": np.full(columns, -np.inf),
            # Sums of absolute and squared errors of the reference and of the artifact.
            "absolute": exact_sum.zeros(2),
            "squared": exact_sum.zeros(2),
            # The increase of a sample's mean squared error, a :class:`Histogram`.
            "increases": Histogram().counts,
        }

    def add(self, truth: Array, expected: Array, actual: Array) -> None:
        samples, state = len(truth), self.state
        y, before, after = (
            array.reshape(samples, -1).astype(np.float64) for array in (truth, expected, actual)
        )
        errors = [before - y, after - y]  # (samples, columns)
        with np.errstate(invalid="ignore", over="ignore"):
            exact_sum.add(state["absolute"], np.array([np.abs(error).sum() for error in errors]))
            squares = [(error**2).mean(-1) for error in errors]  # (samples,)
            exact_sum.add(state["squared"], np.array([part.sum() for part in squares]))
            increases = squares[1] - squares[0]
        # Without finite sums there is no result, whatever the histogram contains.
        Histogram(state["increases"]).add(np.nan_to_num(increases))
        # Rounded means are as good: squares about them and their own squares add up to the same.
        mean = y.mean(0)
        exact_sum.add(state["sums"], mean, times=samples)
        exact_sum.add_squares(state["squares"], mean, times=samples)
        exact_sum.add(state["squares"], ((y - mean) ** 2).sum(0))
        state["lowest"] = np.minimum(state["lowest"], y.min(0))
        state["highest"] = np.maximum(state["highest"], y.max(0))
        state["samples"] = state["samples"] + samples

    def result(self, output: str, limits: Limits) -> TaskResult:
        state, samples = self.state, int(self.state["samples"])
        columns, variance = len(state["sums"]), self._variance
        if variance == 0.0:
            raise equal_labels(output)
        squared = exact_sum.values(state["squared"]) / samples
        reference_score, artifact_score = (1.0 - float(part) / variance for part in squared)
        margin = limits.margin(reference_score)
        interval, verdict, needed = (math.nan, math.nan), FAIL, None
        if np.isfinite(squared).all():
            low, high = Histogram(state["increases"]).limits(self._largest)
            interval = low / variance, high / variance
            verdict = statistics.non_inferior(interval, margin)
            if verdict == INCONCLUSIVE and math.isfinite(high):
                needed = self._needed(margin * variance)
        absolute = exact_sum.values(state["absolute"]) / (samples * columns)
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
            question=SCORE,
            retention=limits.retention,
            needed_samples=needed,
            errors={
                "mae": (float(absolute[0]), float(absolute[1])),
                "rmse": (math.sqrt(squared[0]), math.sqrt(squared[1])),
            },
        )

    @property
    def _variance(self) -> float:
        """The mean over columns of their variance; NaN beyond the range of float64."""
        samples = int(self.state["samples"])
        sums = exact_sum.fractions(self.state["sums"])
        squares = exact_sum.fractions(self.state["squares"])
        if sums is None or squares is None:
            return math.nan
        centred = squares[0] - sum((part * part for part in sums), Fraction()) / samples
        return exact_sum.to_float(centred / (samples * len(sums)))

    @property
    def _largest(self) -> float:
        """The largest mean squared error of a sample: each error is the range of its labels."""
        return float(((self.state["highest"] - self.state["lowest"]) ** 2).mean())

    def _needed(self, margin: float) -> int | None:
        """The number of samples that would settle whether the mean increase is below ``margin``."""
        values, counts = Histogram(self.state["increases"]).upper()
        largest = rounded_up(self._largest)
        values = np.maximum(values / largest, -1.0)
        return sample_size.samples_for_mean(values, counts, margin / largest)
