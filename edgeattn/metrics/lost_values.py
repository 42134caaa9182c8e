"""Values of an output, and heads of a map, of which an artifact knows no more than a constant.

The signal-to-noise ratio of an output is one of all its values. In integers they share one scale,
so that a share of 0.001 beside a price of 1000 is always zero, and the ratio does not change. A
value, one index of the last axis, is *lost* if the artifact's errors have at least the size of its
changes in the reference over all samples and positions:

    sum (a - e)^2 >= sum (e - mean e)^2

which is a coefficient of determination (Nash and Sutcliffe 1970, "River flow forecasting through
conceptual models", for a model and its observations) of 0 or less: the mean of the reference,
which ignores the input, has smaller errors. The same constant for every sample is lost.

Lost, but negligible, are

- values whose changes or errors are within the tolerance of float32, such as a sum that is 1 but
  for rounding;
- of class probabilities: a class that the reference predicts for all samples or for none;
- of other values from 0 to 1: those that change by at most :data:`STEPS` of 256 in the reference,
  because the integers of a sigmoid or softmax have steps of 1/256 in every runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeattn.metrics import exact_sum, pairwise
from edgeattn.metrics.constant_outputs import ROUNDING
from edgeattn.metrics.limits import Check, Limits
from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.printable import counted, listed
from edgeattn.tensors import Array

METRIC = "lost_values"
# Steps of 1/256 by which a value from 0 to 1 may change without being counted: rounding to the
# nearest step moves either end of its range by half a step, and zero may be in between.
STEPS = 2
# Exact sums have 560 bytes. Of outputs with more values, such as the words of a vocabulary, only
# those that are constant are lost.
MOST_SUMS = 1024
# A coefficient of determination below this one is that of a constant: the sums are rounded.
LEAST = 0.01


@dataclass(frozen=True)
class Lost:
    """Indices of lost values (or heads) of ``count``.

    Attributes:
        count: The number of values of the output.
        counted: Those that the limit counts.
        negligible: Those that change too little in the reference, and are constant in the artifact.
        classes: Whether the values are class probabilities.
    """

    count: int
    counted: tuple[int, ...] = ()
    negligible: tuple[int, ...] = ()
    classes: bool = False


class LostValues(Mergeable):
    """The lost values of one output over all batches that were added.

    ``state`` contains plain arrays, so that it can be stored, restored and merged.
    """

    RULES: ClassVar[dict[str, Rule]] = {
        "rows": np.add,
        "sums": np.add,
        "squares": np.add,
        "noise": np.add,
        "lowest": np.minimum,
        "highest": np.maximum,
        "ratio": np.maximum,
        "predicted": np.add,
        "distribution": np.minimum,
        "one_hot": np.minimum,
    }

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {}

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch: two arrays of the same shape, the sample axis first."""
        if not np.size(expected) or pairwise.are_classes(expected):
            return
        want, got = pairwise.mask_equal_non_finite(expected, actual)
        distribution, one_hot = pairwise.is_distribution(want), pairwise.is_one_hot(want)
        width = want.shape[-1] if want.ndim > 1 else 1
        e, a = (np.asarray(array, np.float64).reshape(-1, width) for array in (want, got))
        state: dict[str, Array] = {
            "rows": np.array(len(e), np.int64),
            # (2, values): of the reference and of the artifact.
            "lowest": np.stack([e.min(0), a.min(0)]),
            "highest": np.stack([e.max(0), a.max(0)]),
            "ratio": self._ratio(e, a),
            "predicted": np.bincount(e.argmax(-1), minlength=width),
            "distribution": np.array(distribution, np.int64),
            "one_hot": np.array(one_hot, np.int64),
        }
        self.merge(state | (_sums(e, a) if width <= MOST_SUMS else {}))

    def _ratio(self, expected: Array, actual: Array) -> Array:
        """By value: its largest error as a multiple of the tolerance."""
        with np.errstate(invalid="ignore", divide="ignore"):
            allowed = self._limits.atol + self._limits.rtol * np.abs(expected)
            difference = np.abs(actual - expected)
            ratio: Array = np.where(difference == 0.0, 0.0, difference / allowed).max(0)
        return ratio

    @property
    def lost(self) -> Lost:
        """The lost values; none of integers and one-hot rows, which are equal or not."""
        state = self.state
        if not state or state["one_hot"]:
            return Lost(0)
        lowest, highest = state["lowest"], state["highest"]
        with np.errstate(invalid="ignore"):
            largest = np.maximum(np.abs(lowest), np.abs(highest))
            constant = highest - lowest <= ROUNDING * largest  # (2, values)
            change = (highest - lowest)[0]
        lost = ~constant[0] & (constant[1] | self._is_noise)
        tolerance = self._limits.atol + self._limits.rtol * largest[0]
        counted = lost & (change > tolerance) & (state["ratio"] > 1) & ~self._negligible(change)
        return Lost(
            len(change),
            tuple(np.flatnonzero(counted).tolist()),
            tuple(np.flatnonzero(lost & constant[1] & ~counted).tolist()),
            bool(state["distribution"]),
        )

    @property
    def _is_noise(self) -> Array:
        """By value: whether its errors have at least the size of its changes in the reference."""
        rows, width = int(self.state["rows"]), self.state["lowest"].shape[1]
        result = np.zeros(width, np.bool_)
        if "sums" not in self.state:
            return result
        sums, squares = self.state["sums"], self.state["squares"]
        noise = exact_sum.values(self.state["noise"])
        for index in range(len(sums)):
            total, square = (exact_sum.fractions(x[index : index + 1]) for x in (sums, squares))
            if total is not None and square is not None:
                signal = exact_sum.to_float(square[0] - total[0] ** 2 / rows)
                result[index] = noise[index] >= (1 - LEAST) * signal
        return result

    def _negligible(self, change: Array) -> Array:
        state = self.state
        if state["distribution"]:
            predicted = state["predicted"]
            never_or_always: Array = (predicted == 0) | (predicted == state["rows"])
            return never_or_always
        bounded = state["lowest"][0].min() >= 0 and state["highest"][0].max() <= 1
        small: Array = (change <= STEPS / 256) & bounded
        return small

    def checks(self, check: Callable[..., Check]) -> Iterator[Check]:
        """The number of lost values, made by ``check(metric, value, limit, detail=...)``."""
        yield from _checks(check, self.lost, self._limits, "index")


def _sums(expected: Array, actual: Array) -> dict[str, Array]:
    """By value: exact sums of the reference, of its squares and of the squares of the errors.

    The arrays are ``(rows, values)``.
    """
    width = expected.shape[1]
    state = {name: exact_sum.zeros(width) for name in ("sums", "squares", "noise")}
    with np.errstate(invalid="ignore", over="ignore"):
        # Rounded means are as good: squares about them and their own squares add up to the same,
        # as in Chan, Golub and LeVeque (1979).
        mean = expected.mean(0)
        exact_sum.add(state["sums"], mean, times=len(expected))
        exact_sum.add_squares(state["squares"], mean, times=len(expected))
        exact_sum.add(state["squares"], ((expected - mean) ** 2).sum(0))
        exact_sum.add(state["noise"], ((actual - expected) ** 2).sum(0))
    return state


class ConstantHeads(Mergeable):
    """The heads of an attention map that are the same for every sample, over all batches.

    Maps are ``(samples, [heads,] [queries,] keys)``. Weights are from 0 to 1, and the smallest are
    0 in integers of any file that is right, so that single weights are not counted.
    """

    RULES: ClassVar[dict[str, Rule]] = {"lowest": np.minimum, "highest": np.maximum}

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {}

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch: two arrays of the same shape, the sample axis first."""
        if not np.size(expected):
            return
        maps = np.stack([np.asarray(expected, np.float64), np.asarray(actual, np.float64)])
        if maps.ndim < 5:
            maps = maps[:, :, None]
        # (2, heads, [queries,] keys): of the reference and of the artifact.
        self.merge({"lowest": maps.min(1), "highest": maps.max(1)})

    @property
    def lost(self) -> Lost:
        """The heads that change by more than :data:`STEPS` of 256 in the reference only."""
        if not self.state:
            return Lost(0)
        with np.errstate(invalid="ignore"):
            change = self.state["highest"] - self.state["lowest"]
        change = change.reshape(*change.shape[:2], -1).max(-1)  # (2, heads)
        constant = change[1] <= ROUNDING
        small = change[0] <= STEPS / 256
        return Lost(
            change.shape[1],
            tuple(np.flatnonzero(constant & ~small).tolist()),
            tuple(np.flatnonzero(constant & small & (change[0] > ROUNDING)).tolist()),
        )

    def checks(self, check: Callable[..., Check]) -> Iterator[Check]:
        """The number of constant heads, made by ``check(metric, value, limit, detail=...)``."""
        yield from _checks(check, self.lost, self._limits, "head")


def negligible_values(
    output: str, name: str, source: str, samples: int, lost: Lost
) -> Iterator[str]:
    """The warning about values of an output that ``name`` never changes, and that do not count.

    There is none about classes: one that never occurs may have no more than the probability 0.
    """
    values = lost.negligible
    if values and not lost.classes:
        yield (
            f"{counted(len(values), 'value')} of output {output!r} of {name} "
            f"(index {listed(values)}) never changed on {counted(samples, 'sample')} ({source}); "
            "the changes in the reference are too small for a limit"
        )


def _checks(check: Callable[..., Check], lost: Lost, limits: Limits, kind: str) -> Iterator[Check]:
    """The check of the counted values; none if there are no values that could be lost."""
    if lost.count:
        value = float(len(lost.counted))
        yield check(METRIC, value, limits.lost_values, detail=_detail(lost, kind))


def _detail(lost: Lost, kind: str) -> str | None:
    """What is lost, as text; None if nothing is. ``kind`` names what is counted."""
    values = lost.counted or lost.negligible
    if not values:
        return None
    text = f"{kind} {listed(values)} of {lost.count}"
    if lost.counted:
        return f"{text}, no better than a constant, but changing in the reference"
    return f"{text} constant, and changing too little in the reference to count"
