"""What paired samples can tell of a drop: intervals, tests, and how many samples would settle it.

The interval of a drop is a paired percentile bootstrap (Efron and Tibshirani 1993, chapter 13), the
test of the disagreements McNemar's exact one (McNemar 1947), the decision that of non-inferiority:
the interval's upper end against the margin.
"""

from __future__ import annotations

import math

import numpy as np

from edgeattn.tensors import Array

PASS, FAIL, INCONCLUSIVE, NOT_RUN = "pass", "fail", "inconclusive", "not run"

RESAMPLES = 10_000
SEED = 20240607
# Amounts are dealt into so many piles, which are resampled: the same distribution of the mean, in
# bounded memory, however many samples there are.
PILES = 4_000
# The normal distribution's, for the 95% in the middle.
Z = 1.959964
# The smallest leads that the density of leads near zero is told from.
NEAREST = 10
# Numbers drawn at a time, which bounds what resampling takes.
_DRAWN = 1_000_000


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: were losses as likely as gains?

    Twice the smaller tail of a binomial distribution of ``lost + gained`` fair throws, at most 1.
    """
    throws, fewer = lost + gained, min(lost, gained)
    if not throws:
        return 1.0
    whole = math.lgamma(throws + 1) - throws * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(throws - k + 1)) for k in range(fewer + 1)
    )
    return min(1.0, 2.0 * tail)


def bootstrap(losses: Array) -> tuple[float, float]:
    """The 95% interval of the mean of paired differences, one a sample, by seeded resampling."""
    losses = np.asarray(losses, np.float64)
    if len(np.unique(losses)) <= 64:
        return bootstrap_counts(*np.unique(losses, return_counts=True))
    piles = Piles()
    piles.add(losses)
    return piles.bootstrap()


def bootstrap_counts(values: Array, counts: Array) -> tuple[float, float]:
    """As :func:`bootstrap`, of losses that take few values: each of ``values`` so many times.

    How often each is drawn is one multinomial throw, which is what drawing samples comes to.
    """
    generator = np.random.default_rng(SEED)
    total = int(counts.sum())
    means = np.empty(RESAMPLES)
    rows = max(1, _DRAWN // len(values))
    for start in range(0, RESAMPLES, rows):
        part = means[start : start + rows]
        part[:] = generator.multinomial(total, counts / total, size=len(part)) @ values / total
    return _middle(means)


class Piles:
    """Losses dealt into at most :data:`PILES` piles, block by block at random, as they come.

    Up to that many samples every one is a pile of its own: the plain bootstrap.
    """

    def __init__(self, sums: Array | None = None, sizes: Array | None = None) -> None:
        self.sums = np.zeros(PILES) if sums is None else sums
        self.sizes = np.zeros(PILES) if sizes is None else sizes

    def add(self, losses: Array) -> None:
        """Deal more of them; the same in one call and in several."""
        first = int(self.sizes.sum())
        for block in range(first // PILES, (first + len(losses) - 1) // PILES + 1):
            order = np.random.default_rng((SEED, block)).permutation(PILES)
            start = max(block * PILES, first)
            part = losses[start - first : (block + 1) * PILES - first]
            dealt = order[start - block * PILES :][: len(part)]
            # A block deals no pile twice.
            self.sums[dealt] += part
            self.sizes[dealt] += 1

    def bootstrap(self, scale: float = 1.0) -> tuple[float, float]:
        """The 95% interval of the mean loss, times ``scale``."""
        used = self.sizes > 0
        sums, sizes = self.sums[used] * scale, self.sizes[used]
        generator = np.random.default_rng(SEED)
        means = np.empty(RESAMPLES)
        for start in range(0, RESAMPLES, 250):
            part = means[start : start + 250]
            picks = generator.integers(0, len(sums), (len(part), len(sums)))
            part[:] = sums[picks].sum(-1) / sizes[picks].sum(-1)
        return _middle(means)


def _middle(means: Array) -> tuple[float, float]:
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def unseen_loss(
    samples: int, nearest: Array | None = None, leads: int = 0, error: float = math.inf
) -> float:
    """The share of decisions that may be lost where none of ``samples`` was, at 95%.

    Counting alone bounds it by ``1 - 0.05^(1/n)``, the rule of three (Hanley and Lippman-Hand
    1983). The scores know more: a decision falls only if the reference's lead is smaller than the
    most that a lead has moved, ``error``. How many of the ``leads`` are so small is told from the
    :data:`NEAREST` smallest, ``nearest``, taken to be spread evenly down to zero, plus two standard
    errors.
    """
    counted = 1.0 - math.pow(0.05, 1.0 / samples)
    if nearest is None or leads < 2 * NEAREST or not math.isfinite(error):
        return counted
    reach = float(np.max(nearest))
    if reach <= error:
        return counted
    near = (NEAREST + 2 * math.sqrt(NEAREST)) / leads
    return min(counted, near * error / reach)


def smallest(leads: Array) -> Array:
    """The :data:`NEAREST` smallest, in order, or all where there are fewer."""
    return np.sort(leads.ravel())[:NEAREST]


def non_inferior(interval: tuple[float, float], margin: float) -> str:
    """Whether a drop with this 95% interval is shown to be within the margin, or beyond it."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return FAIL
    if high <= margin:
        return PASS
    return FAIL if low > margin else INCONCLUSIVE


def needed_samples(drop: float, spread: float, samples: int, margin: float) -> int | None:
    """How many samples like these would settle it; None where the drop lies on the margin.

    The n whose interval, by the normal approximation ``drop ± z spread / sqrt(n)``, ends at the
    margin, ``spread`` being the standard deviation of a sample's loss; where nothing was lost, the
    n at which the rule of three does.
    """
    away = abs(margin - drop)
    if not spread and drop <= 0:
        if not 0 < margin < 1:
            return None
        return max(math.ceil(math.log(0.05) / math.log1p(-margin)), samples + 1)
    if away <= 1e-3 * spread:
        return None
    return max(math.ceil((Z * spread / away) ** 2), samples + 1)


def confusion(truth: Array, answers: Array, classes: int) -> Array:
    """``(true class, answer)`` counts."""
    matrix: Array = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth.ravel(), answers.ravel()), 1)
    return matrix


def wilson(right: int, samples: int) -> tuple[float, float]:
    """The 95% score interval of a share, ``right`` of ``samples`` (Wilson 1927).

    ``(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)``: within 0 and 1 for any share.
    """
    p, square = right / samples, Z**2 / samples
    middle = (p + square / 2) / (1 + square)
    half = Z * math.sqrt(p * (1 - p) / samples + square / (4 * samples)) / (1 + square)
    return middle - half, middle + half
