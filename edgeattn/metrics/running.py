"""An output's numbers on a user's own data, batch by batch: sums and maxima of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import Check, Limits
from edgeattn.metrics.pairwise import TOP, is_distribution, new_non_finite, without_agreed
from edgeattn.tensors import Array


class Agreement:
    """The metrics of :mod:`edgeattn.metrics.pairwise` for outputs that arrive in batches."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {
            # values, absolute errors, signal, noise, products, squares of both sides
            "sums": np.zeros(6),
            # absolute error, tolerance ratio, minimal atol
            "maxima": np.zeros(3),
            # values that are newly not finite; rows that agree and rows that count, of 1 and of TOP
            "counts": np.zeros(5, np.int64),
            # whether every row was a distribution, and how many classes there are
            "classes": np.array([1, 0]),
        }

    def add(self, expected: Array, actual: Array) -> None:
        """Some more rows of one shape, the sample axis first."""
        limits, state = self._limits, self.state
        state["counts"][0] += int(new_non_finite(expected, actual))
        want, got = without_agreed(expected, actual)
        signal, noise = metrics.energies(want, got)
        product, other = metrics.products(want, got)
        errors = metrics.mean_abs_error(want, got) * want.size
        state["sums"] += np.array([want.size, errors, signal, noise, product, other])
        largest = (
            metrics.max_abs_error(want, got),
            metrics.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol),
            metrics.minimal_atol(want, got, rtol=limits.rtol),
        )
        state["maxima"] = np.maximum(state["maxima"], largest)  # keeps a NaN
        if not is_distribution(want):
            state["classes"][0] = 0
            return
        state["classes"][1] = want.shape[-1]
        counts = [metrics.topk_counts(want, got, k=k, near_tie=limits.near_tie) for k in (1, TOP)]
        state["counts"][1:] += np.ravel(counts)

    def checks(self, check: Callable[..., Check], *, judged: bool) -> Iterator[Check]:
        """The checks of all rows; without ``judged`` all but NaN and infinity are only told."""
        values, errors, signal, noise, product, other = (float(x) for x in self.state["sums"])
        largest, ratio, minimal = (float(x) for x in self.state["maxima"])
        fresh, *agreed = (int(n) for n in self.state["counts"])
        if not values:
            return
        limits = self._limits
        yield check("non_finite", float(fresh), 0.0)
        yield check("max_abs_error", largest)
        yield check("mean_abs_error", errors / values)
        yield check("cosine", metrics.cosine_of(product, signal, other))
        yield check("minimal_atol", minimal)
        snr = metrics.decibels(signal, noise)
        by_ratio = ratio <= 1 or math.isinf(limits.snr_db)
        yield check("tolerance_ratio", ratio, 1.0 if judged and by_ratio else None)
        yield check("snr_db", snr, limits.snr_db if judged and not by_ratio else None, ">=")
        distribution, classes = (int(n) for n in self.state["classes"])
        if not distribution or not classes:
            return
        share = agreed[0] / agreed[1] if agreed[1] else 1.0
        yield check("top1_agreement", share, limits.top1_agreement if judged else None, ">=")
        if classes > TOP:
            yield check(
                f"top{TOP}_agreement", agreed[2] / agreed[3] if agreed[3] else 1.0, None, ">="
            )
