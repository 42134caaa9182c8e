"""Statistics of paired results: confidence limits, a test and the decision, valid for rare faults.

A fault of one sample in a hundred is often absent from a hundred samples. No limit here therefore
assumes that unseen samples resemble those seen. Every limit is one-sided at 97.5%, and the two of
an interval form a 95% interval. :mod:`edgeattn.metrics.bounded_mean` has the limits of amounts.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn.tensors import Array

# The probability at which a true value beyond a limit is tolerated.
ALPHA = 0.025
# The 97.5% quantile of the standard normal distribution.
Z = NormalDist().inv_cdf(1 - ALPHA)
# Up to this number of lost or gained samples, exact limits can be wider than approximate ones.
_FEW = 50


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: are losses as likely as gains?

    Twice the smaller tail of the binomial distribution B(``lost + gained``, 1/2), at most 1.
    """
    trials, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2.0 * binomial_cdf(fewer, trials, 0.5)) if trials else 1.0


def binomial_cdf(count: int, trials: int, probability: float) -> float:
    """The probability of at most ``count`` successes in ``trials``.

    The regularised incomplete beta function ``I(1 - p; n - k, k + 1)`` as a continued fraction
    (Press et al. 2007, section 6.4).
    """
    if count < 0:
        return 0.0
    if count >= trials or probability <= 0.0:
        return 1.0
    if probability >= 1.0:
        return 0.0
    return _incomplete_beta(trials - count, count + 1, 1.0 - probability, probability)


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """``I(x; a, b)``; ``complement`` is ``1 - x``, which is more precise if it is small."""
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, complement, x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    # Lentz's method.
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d)
            c = 1.0 + term / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-13:
            break
    return front * fraction


def share_limits(count: int, samples: int) -> tuple[float, float]:
    """The exact lower and upper limit of a share of which ``count / samples`` was observed.

    Clopper and Pearson (1934): the shares for which a count at least, or at most, this large has a
    probability of 2.5%.
    """
    return 1.0 - _upper_share(samples - count, samples), _upper_share(count, samples)


def others_of(share: float, samples: int) -> int:
    """The number of samples that are not in ``share``, rounded up: none only if all are."""
    return math.ceil((1.0 - share) * samples - 1e-9)


def _upper_share(count: int, samples: int) -> float:
    if count >= samples:
        return 1.0
    if not count:
        return -math.expm1(math.log(ALPHA) / samples)
    return bisect(lambda p: binomial_cdf(count, samples, p) <= ALPHA, count / samples, 1.0)


def bisect(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest value within ``low`` and ``high`` that is ``beyond``, rounded up by 1e-12."""
    while high - low > 1e-12:
        middle = (low + high) / 2
        if beyond(middle):
            high = middle
        else:
            low = middle
    return high


def drop_limits(lost: Array | int, gained: Array | int, samples: int) -> tuple[Array, Array]:
    """Lower and upper limits of the share lost minus the share gained, of paired samples.

    Tango's score interval for paired proportions (Tango 1998) with a continuity correction of half
    a sample, or an exact limit of :func:`share_limits` if that is wider: that of the share lost if
    no sample is lost or gained, or of a few lost or gained samples.

    Args:
        lost: Numbers of samples that are right with the reference only, of any shape.
        gained: Numbers of samples that are right with the artifact only, of the same shape.
        samples: Number of all samples.
    """
    lost, gained = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    return -_upper_drop(gained, lost, samples), _upper_drop(lost, gained, samples)


def _upper_drop(lost: Array, gained: Array, samples: int) -> Array:
    low, high = (lost - gained) / samples, np.ones(lost.shape)
    corrected = np.maximum(gained - 0.5, 0.0)
    for _ in range(40):
        middle = (low + high) / 2
        beyond = _tango(lost, corrected, samples, middle) <= -Z
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    exact = np.where(lost + gained == 0, _upper_share(0, samples), -1.0)
    for few in np.unique(gained[(gained > 0) & (gained <= _FEW)]):
        limit = lost / samples - share_limits(int(few), samples)[0]
        exact = np.where(gained == few, np.maximum(exact, limit), exact)
    return np.maximum(high, exact)


def _tango(lost: Array, gained: Array, samples: int, drop: Array) -> Array:
    """The score statistic of a true difference ``drop`` of the shares, between -1 and 1."""
    # The share gained is the larger root of a x^2 + b x + c.
    a = 2 * samples
    b = (2 * samples - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    share_gained = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = samples * (2 * share_gained + drop * (1 - drop))
    statistic: Array = (lost - gained - samples * drop) / np.sqrt(np.maximum(variance, 1e-300))
    return statistic


def non_inferior(interval: tuple[float, float], margin: float) -> str:
    """The verdict on a drop with this 95% interval: is it within the margin or beyond it?"""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return FAIL
    if high <= margin:
        return PASS
    return FAIL if low > margin else INCONCLUSIVE


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
