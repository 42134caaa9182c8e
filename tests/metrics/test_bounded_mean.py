"""Limits of the mean of bounded values: worked by hand, and compared with the true mean."""

import math

import numpy as np
import pytest

from edgeattn.metrics.bounded_mean import Histogram, mean_limits, refuted, rounded_up


def capital(bet, mean, values):
    """The gambler's capital after staking ``bet / (1 - mean)`` on every value, from 1."""
    return math.prod(1 + bet / (1 - mean) * (mean - value) for value in values)


def test_the_limit_is_where_the_capital_reaches_forty():
    values = [0.0] * 60 + [0.1, -0.05, 0.02]
    _, high = mean_limits(*np.unique(values, return_counts=True))
    bets = [0.999 * 2.0**-k for k in range(18)]
    prior = [0.5] + [0.5 / 17] * 17
    mixed = sum(p * capital(bet, high, values) for p, bet in zip(prior, bets, strict=True))
    assert mixed == pytest.approx(40, rel=1e-6)


def test_samples_without_a_loss():
    """Half of the capital is staked: (1 + 0.999 m / (1 - m))^n is 80, up to the other bets."""
    for samples in (100, 500, 3000):
        low, high = mean_limits(np.zeros(1), np.array([samples]))
        staked = 80 ** (1 / samples) - 1
        assert high == pytest.approx(staked / (0.999 + staked), rel=0.03)
        assert low == -high


def test_limits_approach_the_mean():
    generator = np.random.default_rng(3)
    values, counts = np.unique(generator.choice([-0.5, 0.0, 0.5], 100_000), return_counts=True)
    mean = values @ counts / 100_000
    low, high = mean_limits(values, counts)
    assert low < mean < high
    # Two to three times 1.96 standard errors of 0.41 / sqrt(n).
    assert 0.0025 < high - mean < 0.0076
    assert 0.0025 < mean - low < 0.0076


def test_rows_of_datasets():
    values = np.array([-0.2, 0.0, 0.3])
    counts = np.array([[1, 300, 0], [0, 300, 90], [50, 50, 0]])
    assert refuted(0.05, values, counts).tolist() == [True, False, True]
    for row, expected in zip(counts, (True, False, True), strict=True):
        assert refuted(0.05, values, row) == expected
        assert (mean_limits(values, row)[1] <= 0.05) == expected
    assert refuted(1.0, values, counts).all()


# Histograms


def test_values_are_rounded_by_less_than_their_bins():
    generator = np.random.default_rng(4)
    values = generator.standard_normal(500) * 10.0 ** generator.integers(-9, 9, 500)
    values[:5] = [0.0, -0.0, 1.0, -1.0, 1e-30]
    for value in values:
        histogram = Histogram()
        histogram.add(np.array([value]))
        (high,), _ = histogram.upper()
        (low,), _ = histogram.lower()
        assert low <= value <= high
        assert high - low <= 0.0233 * max(abs(low), abs(high)) + 1e-24


def test_batches_give_the_histogram_of_the_whole():
    values = np.random.default_rng(5).standard_normal(1000)
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(values, 7):
        parts.add(part)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert whole.counts.sum() == 1000


def test_limits_of_a_histogram():
    values = np.random.default_rng(6).uniform(-3, 8, 2000)
    histogram = Histogram()
    histogram.add(values)
    exact = mean_limits(values / 8, np.ones(2000))
    low, high = histogram.limits(8.0)
    # Rounding widens the limits by at most 2.4% of a value.
    assert 8 * exact[0] - 0.2 < low < 8 * exact[0] + 1e-9
    assert 8 * exact[1] - 1e-9 < high < 8 * exact[1] + 0.2


def test_a_value_beyond_the_largest_leaves_no_limit():
    histogram = Histogram()
    histogram.add(np.array([0.0] * 5000 + [9.0]))
    low, high = histogram.limits(8.0)
    assert high == math.inf
    assert -1 < low < 0
    negative = Histogram()
    negative.add(np.array([0.0] * 5000 + [-9.0, 1e30, -1e30]))
    assert negative.limits(8.0) == (-math.inf, math.inf)


def test_rounding_up():
    for value in (1e-30, 0.02, 1.0, 7.3, 1e23, 1e40):
        assert value <= rounded_up(value) <= max(1.0234 * value, 1e-24)
