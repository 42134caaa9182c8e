"""The metrics of one output against Keras, and the checks that they become.

:meth:`OutputMetrics.of` computes them from arrays in memory; :class:`RunningMetrics` from batches,
in memory that does not grow with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check, Limits
from edgeattn.metrics.pairwise import TOP_CLASSES
from edgeattn.tensors import Array


@dataclass(frozen=True)
class OutputMetrics:
    """The metrics of one output; see the functions of the same names in :mod:`pairwise`.

    The agreements are None if the output is no probability distribution over classes, the second
    also if there are at most ``TOP_CLASSES`` classes.
    """

    max_abs_error: float
    mean_abs_error: float
    cosine: float
    minimal_atol: float
    tolerance_ratio: float
    snr_db: float
    top1_agreement: float | None = None
    topk_agreement: float | None = None

    @classmethod
    def of(
        cls, expected: Array, actual: Array, limits: Limits, ordinary: int | None = None
    ) -> OutputMetrics:
        """The metrics of two arrays of the same shape, the sample axis first.

        The signal-to-noise ratio is the smaller of that of the first ``ordinary`` rows and that of
        the other ones, because extreme values would hide the noise of ordinary samples.
        """
        parts = [slice(0, ordinary)]
        if ordinary is not None and len(expected) > ordinary:
            parts.append(slice(ordinary, None))
        top1 = topk = None
        if pairwise.is_distribution(expected):
            near_tie = limits.near_tie
            top1 = pairwise.top1_agreement(expected, actual, near_tie=near_tie)
            if expected.shape[-1] > TOP_CLASSES:
                topk = pairwise.topk_agreement(expected, actual, k=TOP_CLASSES, near_tie=near_tie)
        return cls(
            pairwise.max_abs_error(expected, actual),
            pairwise.mean_abs_error(expected, actual),
            pairwise.cosine(expected, actual),
            pairwise.minimal_atol(expected, actual, rtol=limits.rtol),
            pairwise.tolerance_ratio(expected, actual, atol=limits.atol, rtol=limits.rtol),
            float(np.min([pairwise.snr_db(expected[part], actual[part]) for part in parts])),
            top1,
            topk,
        )

    def checks(
        self, check: Callable[..., Check], limits: Limits, *, with_limits: bool = True
    ) -> Iterator[Check]:
        """A check for each metric, made by ``check(metric, value, limit, relation)``.

        Either the tolerance or the signal-to-noise ratio has a limit: the tolerance if the output
        is within it, or if the scheme has no other limit. ``with_limits=False`` reports the values
        without limits.
        """
        yield check("max_abs_error", self.max_abs_error)
        yield check("mean_abs_error", self.mean_abs_error)
        yield check("cosine", self.cosine)
        yield check("minimal_atol", self.minimal_atol)
        by_tolerance = self.tolerance_ratio <= 1 or math.isinf(limits.snr_db)
        ratio_limit = 1.0 if with_limits and by_tolerance else None
        snr_limit = limits.snr_db if with_limits and not by_tolerance else None
        yield check("tolerance_ratio", self.tolerance_ratio, ratio_limit)
        yield check("snr_db", self.snr_db, snr_limit, ">=")
        if self.top1_agreement is not None:
            top1_limit = limits.top1_agreement if with_limits else None
            yield check("top1_agreement", self.top1_agreement, top1_limit, ">=")
        if self.topk_agreement is not None:
            yield check(f"top{TOP_CLASSES}_agreement", self.topk_agreement, None, ">=")


class RunningMetrics:
    """The metrics of one output over batches, in memory of constant size.

    ``state`` contains plain arrays, so that it can be stored and restored.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {
            # values, absolute errors, signal, noise, products, squares of the actual values
            "sums": np.zeros(6),
            # absolute error, tolerance ratio, minimal atol
            "maxima": np.zeros(3),
            # new non-finite values; agreeing and counted rows for 1 and for TOP_CLASSES classes
            "counts": np.zeros(5, np.int64),
            # whether every row was a distribution, and the number of classes
            "classes": np.array([1, 0]),
        }

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch: two arrays of the same shape, the sample axis first."""
        limits, state = self._limits, self.state
        state["counts"][0] += int(pairwise.new_non_finite(expected, actual))
        want, got = pairwise.mask_equal_non_finite(expected, actual)
        signal, noise = pairwise.energies(want, got)
        product, squares = pairwise.products(want, got)
        errors = pairwise.mean_abs_error(want, got) * want.size
        state["sums"] += np.array([want.size, errors, signal, noise, product, squares])
        largest = (
            pairwise.max_abs_error(want, got),
            pairwise.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol),
            pairwise.minimal_atol(want, got, rtol=limits.rtol),
        )
        state["maxima"] = np.maximum(state["maxima"], largest)  # preserves NaN
        if not pairwise.is_distribution(want):
            state["classes"][0] = 0
            return
        state["classes"][1] = want.shape[-1]
        near_tie = limits.near_tie
        counts = [pairwise.topk_counts(want, got, k=k, near_tie=near_tie) for k in (1, TOP_CLASSES)]
        state["counts"][1:] += np.ravel(counts)

    def result(self) -> OutputMetrics:
        """The metrics of all batches."""
        values, errors, signal, noise, product, squares = (float(x) for x in self.state["sums"])
        largest, ratio, minimal_atol = (float(x) for x in self.state["maxima"])
        _, *counts = (int(n) for n in self.state["counts"])
        distribution, classes = (int(n) for n in self.state["classes"])
        top1 = topk = None
        if distribution and classes:
            top1 = counts[0] / counts[1] if counts[1] else 1.0
            if classes > TOP_CLASSES:
                topk = counts[2] / counts[3] if counts[3] else 1.0
        return OutputMetrics(
            largest,
            errors / values,
            pairwise.cosine_of(product, signal, squares),
            minimal_atol,
            ratio,
            pairwise.decibels(signal, noise),
            top1,
            topk,
        )

    def checks(self, check: Callable[..., Check], *, with_limits: bool) -> Iterator[Check]:
        """The checks of all batches, none if there were none.

        New NaN and infinities have a limit even with ``with_limits=False``.
        """
        if self.state["sums"][0]:
            yield check("non_finite", float(self.state["counts"][0]), 0.0)
            yield from self.result().checks(check, self._limits, with_limits=with_limits)
