"""Confidence limits of a mean of which only the largest possible value is known.

A betting confidence bound (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random
variables by betting"): it assumes nothing about how often a large value occurs, so that a rare
large loss that no sample shows cannot slip under it. Limits are one-sided at 97.5%.
"""

import math

import numpy as np

from edgeattn.metrics.statistics import ALPHA, bisect
from edgeattn.tensors import Array

# Bets as shares of the largest possible one, and their prior weights. The largest bet is the best
# one if no sample shows a loss.
_BETS = 0.999 * 2.0 ** -np.arange(18)  # (bets,)
_LOG_PRIOR = np.log(np.append(0.5, np.full(17, 0.5 / 17)))
# Magnitudes of a histogram's values: 100 per decade.
_EDGES = 10.0 ** (np.arange(-2400, 2401) / 100)


def mean_limits(values: Array, counts: Array) -> tuple[float, float]:
    """Lower and upper limit of a mean, if a single value lies within -1 and 1.

    Args:
        values: The distinct values ``(values,)``.
        counts: How often each value occurs ``(values,)``.
    """
    return -upper_mean(-values, counts), upper_mean(values, counts)


def upper_mean(values: Array, counts: Array) -> float:
    """The upper limit of :func:`mean_limits`; values may be less than -1."""
    mean = float(values @ counts) / int(counts.sum())
    return bisect(lambda limit: bool(refuted(limit, values, counts)), mean, 1.0 - 1e-9)


def refuted(mean: float, values: Array, counts: Array) -> Array:
    """Whether a true mean of ``mean`` or more is refuted, for each row of ``counts``.

    A gambler with a capital of 1 stakes a fixed share on every value being less than ``mean``. If
    the true mean is ``mean`` or more, the expected capital at the end is at most 1, also that of a
    mixture of several shares, and exceeds ``1 / ALPHA`` with a probability of at most ``ALPHA``
    (Markov's inequality).

    Args:
        mean: The mean to refute, less than 1.
        values: Values of at most 1 ``(values,)``.
        counts: How often each occurs, ``(values,)`` or ``(datasets, values)``.
    """
    if mean >= 1.0:
        return np.ones(counts.shape[:-1], np.bool_)
    bets = _BETS / (1.0 - mean)
    gains = counts @ np.log1p(bets * (mean - values[:, None])) + _LOG_PRIOR  # (datasets, bets)
    top = gains.max(-1)
    capital = top + np.log(np.exp(gains - top[..., None]).sum(-1))
    over: Array = capital >= -math.log(ALPHA)
    return over


class Histogram:
    """Counts of values by sign and magnitude, in memory of constant size.

    A value is known within 2.4% of its size. Limits use the end of its bin that makes them wider,
    so they stay valid. The state does not depend on how the values were divided into batches.
    """

    def __init__(self, counts: Array | None = None) -> None:
        self.counts = np.zeros(len(_BIN_ENDS), np.int64) if counts is None else counts

    def add(self, values: Array) -> None:
        """Count finite ``values`` of any shape."""
        magnitudes = np.searchsorted(_EDGES, np.abs(values)) + 1
        bins = np.where(values == 0.0, 0, np.sign(values) * magnitudes).astype(np.int64)
        self.counts += np.bincount(bins.ravel() + _ZERO, minlength=len(self.counts))

    def upper(self) -> tuple[Array, Array]:
        """Values rounded up, and how often each occurs."""
        used = np.flatnonzero(self.counts)
        return _BIN_ENDS[used], self.counts[used]

    def lower(self) -> tuple[Array, Array]:
        """Values rounded down, and how often each occurs."""
        used = np.flatnonzero(self.counts)
        return -_BIN_ENDS[::-1][used], self.counts[used]

    def limits(self, largest: float) -> tuple[float, float]:
        """Lower and upper limit of the mean, if no value exceeds ``largest`` in magnitude.

        A limit is infinite if a value does exceed it on that side: nothing is known then.
        """
        largest = rounded_up(largest)
        values, counts = self.lower()
        low = -_upper(-values / largest, counts)
        values, counts = self.upper()
        return largest * low, largest * _upper(values / largest, counts)


def _upper(values: Array, counts: Array) -> float:
    return upper_mean(values, counts) if (values <= 1.0).all() else math.inf


def rounded_up(value: float) -> float:
    """``value``, rounded up to the end of its bin, so that values of the bin do not exceed it."""
    return float(_EDGES[np.searchsorted(_EDGES, value)]) if value <= _EDGES[-1] else value


# The upper ends of all bins, from the most negative values to the largest.
_BIN_ENDS = np.concatenate([-_EDGES[::-1], [-0.0, 0.0], _EDGES, [np.inf]])
_ZERO = len(_EDGES) + 1
