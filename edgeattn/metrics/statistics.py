"""Statistics of paired scores: confidence intervals, tests and sample sizes.

The interval of a drop is a paired percentile bootstrap (Efron and Tibshirani 1993, chapter 13). The
disagreements are tested with McNemar's exact test (McNemar 1947). The decision is a test of
non-inferiority: the upper end of the interval is compared with the margin.
"""

import math

import numpy as np

from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn.tensors import Array

RESAMPLES = 10_000
SEED = 20240607
# Losses of amounts are added up in this many groups, which are resampled instead of the samples:
# the same distribution of the mean, in constant memory.
GROUPS = 4_000
# The 97.5% quantile of the standard normal distribution, for two-sided 95% intervals.
Z = 1.959964
# The number of smallest leads that estimate the density of leads near zero.
NEAREST = 10
# Random numbers drawn at a time, which bounds the memory of resampling.
_DRAWS = 1_000_000


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: are losses as likely as gains?

    Twice the smaller tail of the binomial distribution B(``lost + gained``, 1/2), at most 1.
    """
    trials, fewer = lost + gained, min(lost, gained)
    if not trials:
        return 1.0
    scale = math.lgamma(trials + 1) - trials * math.log(2)
    tail = math.fsum(
        math.exp(scale - math.lgamma(k + 1) - math.lgamma(trials - k + 1)) for k in range(fewer + 1)
    )
    return min(1.0, 2.0 * tail)


def bootstrap_counts(values: Array, counts: Array) -> tuple[float, float]:
    """The 95% interval of a mean loss, from few ``values`` that occur ``counts`` times each.

    A resample is one multinomial draw of the counts, which equals drawing the samples.
    """
    generator = np.random.default_rng(SEED)
    total = int(counts.sum())
    means = np.empty(RESAMPLES)
    rows = max(1, _DRAWS // len(values))
    for start in range(0, RESAMPLES, rows):
        part = means[start : start + rows]
        part[:] = generator.multinomial(total, counts / total, size=len(part)) @ values / total
    return _interval(means)


class LossGroups:
    """Losses in at most :data:`GROUPS` groups, assigned at random as they arrive.

    Up to that many samples, each group contains one sample: the ordinary bootstrap.
    """

    def __init__(self, sums: Array | None = None, sizes: Array | None = None) -> None:
        self.sums = np.zeros(GROUPS) if sums is None else sums
        self.sizes = np.zeros(GROUPS) if sizes is None else sizes

    def add(self, losses: Array) -> None:
        """Add losses; the result is the same for one call and for several."""
        first = int(self.sizes.sum())
        for block in range(first // GROUPS, (first + len(losses) - 1) // GROUPS + 1):
            order = np.random.default_rng((SEED, block)).permutation(GROUPS)
            start = max(block * GROUPS, first)
            part = losses[start - first : (block + 1) * GROUPS - first]
            targets = order[start - block * GROUPS :][: len(part)]
            # No group occurs twice within a block.
            self.sums[targets] += part
            self.sizes[targets] += 1

    def bootstrap(self, scale: float = 1.0) -> tuple[float, float]:
        """The 95% interval of the mean loss times ``scale``."""
        used = self.sizes > 0
        sums, sizes = self.sums[used] * scale, self.sizes[used]
        generator = np.random.default_rng(SEED)
        means = np.empty(RESAMPLES)
        for start in range(0, RESAMPLES, 250):
            part = means[start : start + 250]
            picks = generator.integers(0, len(sums), (len(part), len(sums)))
            part[:] = sums[picks].sum(-1) / sizes[picks].sum(-1)
        return _interval(means)


def _interval(means: Array) -> tuple[float, float]:
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def unseen_loss(
    samples: int, nearest: Array | None = None, leads: int = 0, error: float = math.inf
) -> float:
    """An upper bound, at 95%, of the share of decisions that are lost, if none of the samples was.

    Counting alone bounds it by ``1 - 0.05^(1/n)``, the rule of three (Hanley and Lippman-Hand
    1983). The scores give a tighter bound, because a decision can only change if the reference's
    lead is smaller than the largest change of a lead. The share of such leads is estimated from
    the :data:`NEAREST` smallest ones, assumed to be uniform down to zero, plus two standard errors.

    Args:
        samples: Number of samples.
        nearest: The :data:`NEAREST` smallest leads.
        leads: Number of all leads.
        error: Largest change of a lead.
    """
    by_count = 1.0 - math.pow(0.05, 1.0 / samples)
    if nearest is None or leads < 2 * NEAREST or not math.isfinite(error):
        return by_count
    reach = float(np.max(nearest))
    if reach <= error:
        return by_count
    density = (NEAREST + 2 * math.sqrt(NEAREST)) / leads
    return min(by_count, density * error / reach)


def smallest(leads: Array) -> Array:
    """The :data:`NEAREST` smallest leads in ascending order, or all if there are fewer."""
    return np.sort(leads.ravel())[:NEAREST]


def non_inferior(interval: tuple[float, float], margin: float) -> str:
    """The verdict on a drop with this 95% interval: is it within the margin or beyond it?"""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return FAIL
    if high <= margin:
        return PASS
    return FAIL if low > margin else INCONCLUSIVE


def needed_samples(drop: float, spread: float, samples: int, margin: float) -> int | None:
    """The number of samples that a conclusive verdict would take; None if the drop is the margin.

    The smallest n for which the interval ``drop ± z spread / sqrt(n)`` (normal approximation) ends
    at the margin. If nothing was lost, the n given by the rule of three.

    Args:
        drop: Measured drop of the score.
        spread: Standard deviation of the loss of a sample.
        samples: Number of samples measured so far.
        margin: Largest accepted drop.
    """
    distance = abs(margin - drop)
    if not spread and drop <= 0:
        if not 0 < margin < 1:
            return None
        return max(math.ceil(math.log(0.05) / math.log1p(-margin)), samples + 1)
    if distance <= 1e-3 * spread:
        return None
    return max(math.ceil((Z * spread / distance) ** 2), samples + 1)


def confusion(truth: Array, predicted: Array, classes: int) -> Array:
    """The confusion matrix ``(true class, predicted class)``."""
    matrix: Array = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth.ravel(), predicted.ravel()), 1)
    return matrix


def wilson(right: int, samples: int) -> tuple[float, float]:
    """The 95% score interval of the share ``right / samples`` (Wilson 1927).

    ``(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)``, which is always within 0 and 1.
    """
    p, square = right / samples, Z**2 / samples
    middle = (p + square / 2) / (1 + square)
    half = Z * math.sqrt(p * (1 - p) / samples + square / (4 * samples)) / (1 + square)
    return middle - half, middle + half
