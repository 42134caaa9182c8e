"""Medians of repeated measurements that are compared with each other: confidence intervals."""

from collections.abc import Sequence
from statistics import median

from edgeattn.metrics.statistics import ALPHA, binomial_cdf

# How a median compares with the lowest one.
FASTEST, NO_DIFFERENCE, SLOWER = "fastest", "no difference measured", "slower"


def required_values(medians: int = 1) -> int:
    """The number of values of each of ``medians`` medians below which there are no intervals."""
    count = 1
    while 0.5**count > ALPHA / medians:
        count += 1
    return count


def median_interval(values: Sequence[float], medians: int = 1) -> tuple[float, float, float]:
    """The median of at least :func:`required_values` ``values``, and the limits of its interval.

    The intervals of all ``medians`` that are compared contain the true ones with a probability of
    95% together, so that two that are equal have disjoint intervals in 5% of cases at most; each
    of them has the level 1 - 0.05 / ``medians`` (Bonferroni).

    The limits are the k-th smallest and the k-th largest value. The true median lies between them
    with a probability of ``1 - 2 P(B < k)``, where B is binomial with n = ``len(values)`` and
    p = 1/2; k is the largest number for which this is at least the level. It holds for any
    continuous distribution of independent values (David and Nagaraja 2003, Order Statistics,
    section 7.1).
    """
    if len(values) < required_values(medians):
        raise ValueError(f"{len(values)} values are too few for an interval")
    ordered = sorted(values)
    k = 1
    while binomial_cdf(k, len(ordered), 0.5) <= ALPHA / medians:
        k += 1
    return float(median(ordered)), float(ordered[k - 1]), float(ordered[-k])


def fastest_indices(estimates: Sequence[tuple[float, float, float]]) -> list[int]:
    """The indices of the estimates that are not shown to be above another one.

    These are that of the lowest median and all whose intervals overlap with its interval.
    """
    if not estimates:
        return []
    lowest = min(estimates, key=lambda estimate: estimate[0])
    return [k for k, (_, low, _) in enumerate(estimates) if low <= lowest[2]]
