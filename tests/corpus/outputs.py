"""Statuses of a route, from its outputs and those of Keras."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.pairwise import is_one_hot, snr_db, topk_counts
from edgeattn.metrics.statistics import share_limits

RIGHT, INEXACT, REFUSED, WRONG, CRASHED = "right", "inexact", "refused", "wrong", "crashed"
# Largest difference of a file with float weights, relative to 1 + the largest value of the output,
# and the relative change of inputs after which Keras itself must move less than that.
TOLERANCES = {"float32": (1e-4, 1e-6), "float16": (2e-2, 1e-3)}
# The samples here are not those of the bundle, so a quantized file may miss the limit by this much.
MARGIN_DB = 10.0
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Expected:
    """What Keras computes from ``inputs``; ``moved`` from inputs changed by each of the tolerances.

    ``names`` are those of the outputs if the model returns a dictionary.
    """

    inputs: Arrays
    outputs: Arrays
    moved: dict[float, list[Arrays]]
    names: tuple[str, ...] = ()

    def difference(self, actual: Sequence[np.ndarray], scheme: str = "float32") -> str | None:
        """How ``actual`` differs from the outputs of Keras by more than ``scheme`` explains."""
        if len(actual) != len(self.outputs):
            return f"{len(actual)} outputs instead of {len(self.outputs)}"
        for index, (expected, values) in enumerate(zip(self.outputs, actual, strict=True)):
            if expected.size != values.size:
                return f"output {index} has the shape {values.shape} instead of {expected.shape}"
            reason = self._difference(index, np.reshape(values, expected.shape), scheme)
            if reason:
                return reason
        return None

    def _difference(self, index: int, actual: np.ndarray, scheme: str) -> str | None:
        expected = self.outputs[index]
        finite = np.isfinite(expected)
        expected = np.where(finite, expected, 0).astype(np.float64)
        actual = np.where(finite, actual, 0).astype(np.float64)
        if not np.isfinite(actual).all():
            return f"output {index} is not finite"
        if scheme not in TOLERANCES and is_one_hot(expected):
            return _other_classes(index, expected, actual, scheme)
        if scheme not in TOLERANCES:
            decibels = snr_db(expected, actual)
            within = np.abs(actual - expected).max(initial=0) <= 1e-4
            if within or decibels >= LIMITS[scheme].snr_db - MARGIN_DB:
                return None
            return f"output {index} has a signal-to-noise ratio of {decibels:.0f} dB"
        tolerance, step = TOLERANCES[scheme]
        allowed = tolerance * (1 + np.abs(expected).max(initial=0))
        stable = finite.copy()
        for outputs in self.moved[step]:
            with np.errstate(invalid="ignore"):
                stable &= np.abs(outputs[index] - expected) < allowed
        error = np.where(stable, np.abs(actual - expected), 0).max(initial=0)
        return f"output {index} differs by {error:.2g}" if error > allowed else None


def _other_classes(index: int, expected: np.ndarray, actual: np.ndarray, scheme: str) -> str | None:
    """Whether more rows have another class than chance explains, as in a verdict."""
    equal, rows = topk_counts(expected, actual, k=1)
    if share_limits(rows - equal, rows)[0] <= 1 - LIMITS[scheme].top1_agreement:
        return None
    return f"output {index} has another class in {rows - equal} of {rows} rows"


def expected_outputs(
    predict: Callable[[Arrays], Any], inputs: Arrays, exact: bool = False
) -> Expected:
    """What ``predict`` returns; ``exact`` inputs have no neighbors, because they are tokens."""
    steps = [] if exact else [sign * step for _, step in TOLERANCES.values() for sign in (-1, 1)]
    changed = [[_changed(array, step) for array in inputs] for step in (0.0, *steps)]
    # In one call, because a call of Keras' predict takes longer than these models.
    outputs = predict([np.concatenate(arrays) for arrays in zip(*changed, strict=True)])
    names = tuple(outputs) if isinstance(outputs, dict) else ()
    pieces = [np.split(array, len(changed)) for array in flat(outputs)]
    moved: dict[float, list[Arrays]] = {step: [] for _, step in TOLERANCES.values()}
    for position, step in enumerate(steps, start=1):
        moved[abs(step)].append([piece[position] for piece in pieces])
    return Expected(inputs, [piece[0] for piece in pieces], moved, names)


def _changed(array: np.ndarray, step: float) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return (array * (1 + step)).astype(array.dtype)


def flat(outputs: Any) -> Arrays:
    """The arrays of nested outputs, in order."""
    if isinstance(outputs, dict):
        return [array for value in outputs.values() for array in flat(value)]
    if isinstance(outputs, list | tuple):
        return [array for value in outputs for array in flat(value)]
    return [np.asarray(outputs)]
