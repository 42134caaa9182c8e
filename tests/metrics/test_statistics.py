"""Statistics of paired scores: hand-computed values and comparisons with SciPy."""

import math

import numpy as np
import pytest

from edgeattn.metrics import statistics
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS


def bootstrap(losses):
    """The 95% interval of the mean loss, from counts of values or from groups of samples."""
    values, counts = np.unique(losses, return_counts=True)
    if len(values) <= 64:
        return statistics.bootstrap_counts(values, counts)
    groups = statistics.LossGroups()
    groups.add(losses)
    return groups.bootstrap()


# McNemar


def test_mcnemar_by_hand():
    # 0 of 5: 2 / 32. 1 of 4: 2 (1 + 4) / 16. Equal numbers: more than 1, hence 1.
    assert statistics.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert statistics.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert statistics.mcnemar(1, 3) == pytest.approx(10 / 16)
    assert statistics.mcnemar(3, 3) == 1.0
    assert statistics.mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (2, 9), (17, 31), (400, 480), (5000, 5300)])
def test_mcnemar_is_the_exact_binomial_test(lost, gained):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert statistics.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-7)


# The bootstrap


def test_bootstrap_of_decisions_agrees_with_the_normal_approximation():
    loss = np.zeros(10_000)
    loss[:300], loss[300:400] = 1, -1
    low, high = bootstrap(loss)
    # Mean 0.02, variance 0.04 - 0.0004: 1.96 standard errors are 0.0039.
    assert low == pytest.approx(0.02 - 0.0039, abs=2e-4)
    assert high == pytest.approx(0.02 + 0.0039, abs=2e-4)
    assert bootstrap(loss) == (low, high)


@pytest.mark.parametrize("samples", [300, 50_000])
def test_bootstrap_of_amounts(samples):
    """With one sample per group, and with several."""
    loss = np.random.default_rng(3).standard_normal(samples) * 2 + 1
    low, high = bootstrap(loss)
    half = statistics.Z * loss.std() / math.sqrt(samples)
    assert low == pytest.approx(loss.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(loss.mean() + half, abs=0.08 * half)


def test_loss_groups_do_not_depend_on_batches():
    losses = np.random.default_rng(4).standard_normal(9_000)
    whole, parts = statistics.LossGroups(), statistics.LossGroups()
    whole.add(losses)
    for part in np.array_split(losses, 7):
        parts.add(part)
    assert parts.sizes.tolist() == whole.sizes.tolist()
    assert set(whole.sizes.tolist()) == {2.0, 3.0}
    np.testing.assert_allclose(parts.sums, whole.sums)
    assert whole.sums.sum() == pytest.approx(losses.sum())
    assert whole.bootstrap(2.0) == pytest.approx(tuple(2 * x for x in whole.bootstrap()))


def test_bootstrap_has_its_nominal_coverage():
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        loss = generator.choice([-1, 0, 1], p=[0.03, 0.92, 0.05], size=800)
        low, high = bootstrap(loss)
        covered += low <= 0.02 <= high
    assert 180 <= covered <= 199


# Losses that no sample shows


def test_the_rule_of_three():
    # (1 - p)^n = 0.05: about 3 / n.
    assert statistics.unseen_loss(300) == pytest.approx(0.009936, abs=1e-6)
    assert (1 - statistics.unseen_loss(1000)) ** 1000 == pytest.approx(0.05)


def test_leads_give_a_tighter_bound_than_counts():
    nearest = statistics.smallest(np.linspace(0.001, 1.0, 1000))
    assert nearest.tolist() == pytest.approx([k / 1000 for k in range(1, 11)])
    # Ten leads reach up to 0.01, the error is a tenth of that: (10 + 2 sqrt 10) / 1000 / 10.
    assert statistics.unseen_loss(1000, nearest, 1000, 0.001) == pytest.approx(0.001632, abs=1e-6)
    assert statistics.unseen_loss(1000, nearest, 1000, 0.0) == 0.0
    # If the error reaches the leads, or is unknown, the bound is that of counting.
    for error in (0.01, 0.5, math.inf, math.nan):
        assert statistics.unseen_loss(1000, nearest, 1000, error) == statistics.unseen_loss(1000)
    assert statistics.unseen_loss(12, nearest, 12, 0.0) == statistics.unseen_loss(12)


# The interval of a share


def test_wilson_by_hand():
    # z² = 3.8415. 5 of 10: 0.5 ± 1.96 sqrt(0.025 + 0.0096) / 1.384.
    low, high = statistics.wilson(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    # All of n: from n / (n + z²) to 1.
    assert statistics.wilson(100, 100) == pytest.approx((100 / 103.8415, 1.0), abs=1e-6)
    assert statistics.wilson(0, 100) == pytest.approx((0.0, 3.8415 / 103.8415), abs=1e-6)


@pytest.mark.parametrize(("right", "samples"), [(350, 360), (1, 7), (99, 100), (0, 3)])
def test_wilson_agrees_with_scipy(right, samples):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, samples).proportion_ci(method="wilson")
    assert statistics.wilson(right, samples) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )


# The decision


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.02, 0.0099), PASS),
        ((-0.02, 0.01), PASS),
        ((0.0, 0.011), INCONCLUSIVE),
        ((0.01, 0.02), INCONCLUSIVE),
        ((0.0101, 0.02), FAIL),
        ((math.nan, math.nan), FAIL),
    ],
)
def test_non_inferior(interval, verdict):
    assert statistics.non_inferior(interval, 0.01) == verdict


def test_no_number_of_samples_decides_a_drop_equal_to_the_margin():
    # One of a hundred is lost: a drop of 0.01 with a standard deviation of 0.0995.
    assert statistics.needed_samples(0.01, 0.0995, 100, 0.01) is None
    assert statistics.needed_samples(0.0, 0.0, 50, 0.0) is None
    # 1.96 standard errors of 0.2 / sqrt(n) are 0.01.
    assert statistics.needed_samples(0.0, 0.2, 100, 0.01) == 1537
