"""Numbers of samples that settle a question in 80% of the datasets that resemble the one measured.

Such a dataset is drawn from the values that were measured, as often as they occurred. A question is
settled if the verdict is pass or fail.
"""

from collections.abc import Callable

import numpy as np

from edgeattn.metrics.bounded_mean import refuted
from edgeattn.metrics.statistics import ALPHA, binomial_cdf, drop_limits
from edgeattn.tensors import Array

POWER = 0.8
# Larger numbers are not searched for.
MOST = 10_000_000
SEED = 20240607
# Datasets that are drawn for each number of samples.
_DRAWS = 2_000
_DRAWS_OF_VALUES = 400


def samples_for_share(count: int, samples: int, margin: float) -> int | None:
    """The number of samples for :func:`~edgeattn.metrics.statistics.share_limits`; exact.

    None if more than :data:`MOST` are needed.

    Args:
        count: Observed count.
        samples: Number of samples measured.
        margin: Largest accepted share.
    """
    share = count / samples

    def settled(number: int) -> float:
        # The largest count that passes, and the smallest that fails, or one beyond the end.
        passing = _first(lambda k: binomial_cdf(k, number, margin) > ALPHA, number) - 1
        failing = _first(lambda k: 1 - binomial_cdf(k - 1, number, margin) < ALPHA, number)
        return binomial_cdf(passing, number, share) + 1 - binomial_cdf(failing - 1, number, share)

    return _smallest(settled, samples) if 0 < margin < 1 else None


def samples_for_drop(lost: int, gained: int, samples: int, margin: float) -> int | None:
    """The number of samples for :func:`~edgeattn.metrics.statistics.drop_limits`, as above."""
    shares = np.array([lost, gained, samples - lost - gained]) / samples

    def settled(number: int) -> float:
        draws = np.random.default_rng(SEED).multinomial(number, shares, _DRAWS)
        low, high = drop_limits(draws[:, 0], draws[:, 1], number)
        return float(((high <= margin) | (low > margin)).mean())

    return _smallest(settled, samples) if 0 < margin < 1 else None


def samples_for_mean(values: Array, counts: Array, margin: float) -> int | None:
    """The number of samples for :func:`~edgeattn.metrics.bounded_mean.mean_limits`, as above.

    Args:
        values: Distinct values within -1 and 1, those of a sample, ``(values,)``.
        counts: How often each occurred ``(values,)``.
        margin: Largest accepted mean.
    """
    samples = int(counts.sum())
    values, counts = _merged(values, counts)

    def settled(number: int) -> float:
        generator = np.random.default_rng(SEED)
        draws = generator.multinomial(number, counts / samples, _DRAWS_OF_VALUES)
        decided = refuted(margin, values, draws) | refuted(-margin, -values, draws)
        return float(decided.mean())

    return _smallest(settled, samples) if 0 < margin < 1 else None


def _merged(values: Array, counts: Array) -> tuple[Array, Array]:
    """Neighbouring values replaced by their means, so that at most 100 remain."""
    order = np.argsort(values)
    values, counts = values[order], counts[order]
    starts = np.unique(np.linspace(0, len(values), 100, endpoint=False).astype(np.int64))
    merged = np.add.reduceat(counts, starts)
    return np.add.reduceat(values * counts, starts) / merged, merged


def _first(holds: Callable[[int], bool], end: int) -> int:
    """The smallest number from 0 that ``holds``, which all larger ones do; ``end + 1`` if none."""
    low, high = 0, end + 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _smallest(settled: Callable[[int], float], samples: int) -> int | None:
    """The smallest number above ``samples`` that settles enough datasets, within half a percent."""
    low = high = samples + 1
    while settled(high) < POWER:
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1 + high // 200:
        middle = (low + high) // 2
        if settled(middle) < POWER:
            low = middle
        else:
            high = middle
    return high
