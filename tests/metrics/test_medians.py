"""The confidence interval of a median."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeattn.metrics.medians import median_interval, required_values


@pytest.mark.parametrize(
    ("count", "rank"),
    # P(B < rank) <= 0.025 by hand: of B(6, 1/2), P(B < 1) = 1/64, P(B < 2) = 7/64; of B(10, 1/2),
    # P(B < 2) = 11/1024, P(B < 3) = 56/1024. For 25, ranks of the tables of the sign test.
    [(6, 1), (10, 2), (25, 8)],
)
def test_the_limits_are_order_statistics(count, rank):
    values = np.random.default_rng(count).permutation(np.arange(1, count + 1))
    middle, low, high = median_interval(values.tolist())
    assert (middle, low, high) == ((count + 1) / 2, rank, count + 1 - rank)


def test_five_values_have_no_interval():
    """2 * 0.5^5 = 0.0625 is more than 0.05."""
    with pytest.raises(ValueError, match="too few"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    # 0.5^10 = 0.00098 is more than 0.025 / 32 = 0.00078, and 0.5^11 is less.
    assert [required_values(medians) for medians in (1, 32)] == [6, 11]


def test_intervals_are_wider_if_more_medians_are_compared():
    """Of B(25, 1/2), P(B < 5) = 0.00046 and P(B < 6) = 0.00204; 0.025 / 16 = 0.00156."""
    values = list(range(1, 26))
    assert median_interval(values, 16) == (13, 5, 21)


@pytest.mark.parametrize("count", [6, 9, 25])
def test_the_interval_of_a_skewed_distribution_contains_its_median(count):
    """The median of the exponential distribution is ln 2."""
    samples = np.random.default_rng(5).exponential(size=(4000, count))
    intervals = [median_interval(row.tolist())[1:] for row in samples]
    covered = np.mean([low <= math.log(2) <= high for low, high in intervals])
    # At least 95%; of 4,000 simulations, less than 94.3% would be two standard deviations below.
    assert covered > 0.943
