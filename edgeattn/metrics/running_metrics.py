"""The metrics of one output over batches, in memory of constant size."""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from edgeattn.metrics import exact_sum, pairwise
from edgeattn.metrics.limits import EXCEEDING_SHARE, WORST_FACTOR, Check, Limits
from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.metrics.pairwise import TOP_CLASSES
from edgeattn.metrics.statistics import others_of, share_limits
from edgeattn.tensors import Array


class RunningMetrics(Mergeable):
    """The metrics of :mod:`edgeattn.metrics.pairwise` over all batches that were added.

    ``state`` contains plain arrays, so that it can be stored, restored and merged.
    """

    RULES: ClassVar[dict[str, Rule]] = {
        "sums": np.add,
        "maxima": np.maximum,  # preserves NaN
        "counts": np.add,
        "distribution": np.minimum,
        "one_hot": np.minimum,
        "classes": np.maximum,
        "exceeding": np.add,
        "worst_sample": np.minimum,  # preserves NaN
        "equal": np.add,
    }

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {
            # absolute errors, signal, noise, products, squares of the actual values
            "sums": exact_sum.zeros(5),
            # absolute error, tolerance ratio, minimal atol
            "maxima": np.zeros(3),
            # values; new non-finite ones; agreeing and counted rows for 1 and TOP_CLASSES classes
            "counts": np.zeros(6, np.int64),
            # whether every row was a distribution
            "distribution": np.ones((), np.int64),
            "one_hot": np.ones((), np.int64),
            "classes": np.zeros((), np.int64),
            # samples beyond the tolerance, and all samples
            "exceeding": np.zeros(2, np.int64),
            # the signal-to-noise ratio of a sample
            "worst_sample": np.full((), np.inf),
            # equal values, values and samples of classes
            "equal": np.zeros(3, np.int64),
        }

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch: two arrays of the same shape, the sample axis first."""
        limits, state = self._limits, self.state
        state["counts"][:2] += [np.size(expected), int(pairwise.new_non_finite(expected, actual))]
        if pairwise.are_classes(expected):
            state["equal"] += [np.sum(expected == actual), np.size(expected), len(expected)]
            return
        want, got = pairwise.mask_equal_non_finite(expected, actual)
        worst = pairwise.worst_sample_db(want, got)
        state["worst_sample"] = np.minimum(state["worst_sample"], worst)  # preserves NaN
        signal, noise = pairwise.energies(want, got)
        product, squares = pairwise.products(want, got)
        errors = pairwise.mean_abs_error(want, got) * want.size
        exact_sum.add(state["sums"], np.array([errors, signal, noise, product, squares]))
        largest = (
            pairwise.max_abs_error(want, got),
            pairwise.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol),
            pairwise.minimal_atol(want, got, rtol=limits.rtol),
        )
        state["maxima"] = np.maximum(state["maxima"], largest)  # preserves NaN
        beyond = pairwise.samples_beyond(want, got, atol=limits.atol, rtol=limits.rtol)
        state["exceeding"] += [beyond, len(want)]
        if not pairwise.is_one_hot(want):
            state["one_hot"] = np.zeros((), np.int64)
        if not pairwise.is_distribution(want):
            state["distribution"] = np.zeros((), np.int64)
            return
        state["classes"] = np.array(want.shape[-1], np.int64)
        near_tie = limits.near_tie
        counts = [pairwise.topk_counts(want, got, k=k, near_tie=near_tie) for k in (1, TOP_CLASSES)]
        state["counts"][2:] += np.ravel(counts)

    @property
    def empty(self) -> bool:
        return not self.state["counts"][0]

    @property
    def new_non_finite(self) -> int:
        """The number of values that are finite in the reference only."""
        return int(self.state["counts"][1])

    def checks(
        self,
        check: Callable[..., Check],
        *,
        snr_db: float | None = None,
        dataset: bool = False,
    ) -> Iterator[Check]:
        """A check for each metric, made by ``check(metric, value, limit, relation)``.

        Either the tolerance or the signal-to-noise ratio has a limit: the tolerance if the output
        is within it, or if the scheme has no other limit. ``snr_db`` replaces the ratio of all
        batches. On a ``dataset``, which may have any number of samples, a few may exceed the
        tolerance. Classes have no errors, only the share of equal values, whose interval counts
        samples: values of one depend on each other. One-hot rows have no limit of the ratio, which
        another class in one of 100 rows would miss: the share of equal classes is limited.
        """
        if self.empty:
            return
        equal, values, rows = (int(n) for n in self.state["equal"])
        if values:
            share, limit = equal / values, self._limits.top1_agreement
            low, high = share_limits(others_of(share, rows), rows)
            detail = f"95% interval {1 - high:.1%} to {1 - low:.1%}"
            yield check("equal_values", share, limit, ">=", samples=rows, detail=detail)
            return
        sums = exact_sum.values(self.state["sums"])
        errors, signal, noise, product, squares = (float(x) for x in sums)
        limits = self._limits
        largest, ratio, minimal_atol = (float(x) for x in self.state["maxima"])
        yield check("max_abs_error", largest)
        yield check("mean_abs_error", errors / int(self.state["counts"][0]))
        yield check("cosine", pairwise.cosine_of(product, signal, squares))
        yield check("minimal_atol", minimal_atol)
        classes = int(self.state["classes"])
        one_hot = bool(self.state["one_hot"]) and classes > 0
        by_ratio = ratio <= 1 or math.isinf(limits.snr_db)
        snr = pairwise.decibels(signal, noise) if snr_db is None else snr_db
        tolerant = dataset and math.isinf(limits.snr_db)
        if tolerant:
            exceeding, samples = (int(n) for n in self.state["exceeding"])
            yield check("exceeding_samples", exceeding / samples, EXCEEDING_SHARE)
        most = WORST_FACTOR if tolerant else 1.0
        yield check("tolerance_ratio", ratio, most if by_ratio else None)
        yield check("snr_db", snr, None if by_ratio or one_hot else limits.snr_db, ">=")
        yield check("worst_sample_db", float(self.state["worst_sample"]), None, ">=")
        if not self.state["distribution"] or not classes:
            return
        top1, counted1, topk, counted_k = (int(n) for n in self.state["counts"][2:])
        share = top1 / counted1 if counted1 else 1.0
        yield check("top1_agreement", share, limits.top1_agreement, ">=", samples=counted1)
        if classes > TOP_CLASSES:
            share = topk / counted_k if counted_k else 1.0
            yield check(f"top{TOP_CLASSES}_agreement", share, None, ">=")
