"""The number of samples that settles a question, checked with other simulated datasets."""

import math

import numpy as np
import pytest

from edgeattn.metrics.bounded_mean import mean_limits
from edgeattn.metrics.sample_size import samples_for_drop, samples_for_mean, samples_for_share
from edgeattn.metrics.statistics import drop_limits, non_inferior, share_limits
from edgeattn.metrics.verdict import INCONCLUSIVE

DATASETS = 2_000
# Three standard errors of 80% of the datasets, and of the draws that found the number.
ERROR = 3 * math.sqrt(0.8 * 0.2 / DATASETS * 2)


def settled(limits, margin):
    """The share of datasets with these limits that lead to a verdict."""
    verdicts = [non_inferior((low, high), margin) for low, high in limits]
    return sum(verdict != INCONCLUSIVE for verdict in verdicts) / len(verdicts)


def settled_shares(count, samples, margin, number):
    draws = np.random.default_rng(1).binomial(number, count / samples, DATASETS)
    known = {int(k): share_limits(int(k), number) for k in np.unique(draws)}
    return settled([known[int(k)] for k in draws], margin)


def settled_drops(lost, gained, samples, margin, number):
    shares = np.array([lost, gained, samples - lost - gained]) / samples
    draws = np.random.default_rng(2).multinomial(number, shares, DATASETS)
    low, high = drop_limits(draws[:, 0], draws[:, 1], number)
    return settled(zip(low, high, strict=True), margin)


@pytest.mark.parametrize(
    ("count", "samples", "margin"),
    [(1, 200, 0.02), (3, 100, 0.02), (8, 300, 0.01), (2, 1000, 0.004)],
)
def test_changed_answers(count, samples, margin):
    number = samples_for_share(count, samples, margin)
    assert number > samples
    assert settled_shares(count, samples, margin, number) >= 0.8 - ERROR
    assert settled_shares(count, samples, margin, round(0.8 * number)) < 0.8 + ERROR


@pytest.mark.parametrize(
    ("lost", "gained", "samples", "margin"),
    [(6, 4, 500, 0.01), (3, 0, 200, 0.02), (12, 2, 300, 0.02), (1, 5, 100, 0.02)],
)
def test_drops(lost, gained, samples, margin):
    number = samples_for_drop(lost, gained, samples, margin)
    assert number > samples
    assert settled_drops(lost, gained, samples, margin, number) >= 0.8 - ERROR
    assert settled_drops(lost, gained, samples, margin, round(0.8 * number)) < 0.8 + ERROR


@pytest.mark.parametrize(
    ("values", "counts", "margin"),
    [([0.0, 0.05], [150, 50], 0.02), ([-0.5, 0.0, 1.0], [4, 193, 3], 0.02)],
)
def test_means(values, counts, margin):
    values, counts = np.array(values), np.array(counts)
    number = samples_for_mean(values, counts, margin)
    assert number > counts.sum()
    generator = np.random.default_rng(3)
    for size, low, high in ((number, 0.7, 1.0), (round(0.6 * number), 0.0, 0.8)):
        draws = generator.multinomial(size, counts / counts.sum(), 150)
        share = settled([mean_limits(values, draw) for draw in draws], margin)
        assert low <= share <= high


def test_samples_without_a_loss():
    """With one sample less, the limit is above the margin."""
    for margin in (0.05, 0.02):
        number = samples_for_share(0, 10, margin)
        assert number == math.ceil(math.log(0.025) / math.log1p(-margin))
        assert share_limits(0, number)[1] <= margin < share_limits(0, number - 1)[1]
    # Larger numbers are found within half a percent.
    expected = math.log(0.025) / math.log1p(-0.001)
    assert expected <= samples_for_share(0, 10, 0.001) <= 1.005 * expected + 1
    number = samples_for_drop(0, 0, 10, 0.02)
    assert drop_limits(0, 0, number)[1] <= 0.02 < drop_limits(0, 0, number - 1)[1]


def test_a_value_that_equals_its_limit_is_never_settled():
    assert samples_for_share(2, 100, 0.02) is None
    assert samples_for_drop(4, 2, 100, 0.02) is None
    assert samples_for_mean(np.array([0.0, 0.5]), np.array([24, 1]), 0.02) is None
    assert samples_for_drop(0, 0, 100, 0.0) is None
