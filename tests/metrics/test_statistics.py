"""Statistics of paired scores: hand-computed values and comparisons with SciPy."""

import math

import numpy as np
import pytest

from edgeattn.metrics import statistics
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS

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


# Exact limits of a share


@pytest.mark.parametrize(
    ("count", "trials", "probability"),
    [(0, 20, 0.1), (3, 20, 0.1), (19, 20, 0.99), (40, 1000, 0.02), (70_000, 1_000_000, 0.07)],
)
def test_the_binomial_distribution(count, trials, probability):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binom.cdf(count, trials, probability)
    assert statistics.binomial_cdf(count, trials, probability) == pytest.approx(expected, rel=1e-7)


def test_the_ends_of_the_binomial_distribution():
    assert statistics.binomial_cdf(-1, 5, 0.5) == 0.0
    assert statistics.binomial_cdf(5, 5, 0.5) == 1.0
    assert statistics.binomial_cdf(2, 5, 0.0) == 1.0
    assert statistics.binomial_cdf(2, 5, 1.0) == 0.0
    # 1/32, and 1/32 + 5/32.
    assert statistics.binomial_cdf(0, 5, 0.5) == pytest.approx(1 / 32)
    assert statistics.binomial_cdf(1, 5, 0.5) == pytest.approx(6 / 32)


@pytest.mark.parametrize("samples", [20, 500, 3000])
def test_a_count_of_zero(samples):
    """No success has a probability of 2.5% at the upper limit."""
    low, high = statistics.share_limits(0, samples)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert (1 - high) ** samples == pytest.approx(0.025)
    assert statistics.share_limits(samples, samples) == pytest.approx((1 - high, 1.0))


@pytest.mark.parametrize(("count", "samples"), [(1, 20), (7, 500), (499, 500), (1200, 40_000)])
def test_share_limits_agree_with_scipy(count, samples):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(count, samples).proportion_ci(method="exact")
    assert statistics.share_limits(count, samples) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


# Limits of a difference of paired shares


def test_neither_lost_nor_gained():
    """The larger one of the score limit z^2 / (n + z^2) and the exact one, (1 - p)^n = 2.5%."""
    low, high = statistics.drop_limits(0, 0, 500)
    assert high == pytest.approx(3.841459 / 503.841459, rel=1e-6)
    assert low == -high
    _, high = statistics.drop_limits(0, 0, 20)
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))


def score_statistic(lost, gained, samples, drop):
    """Tango's statistic with the share gained that is most likely, by a search over a grid."""
    share = np.linspace(max(0.0, -drop), (1 - drop) / 2, 200_001)[1:-1]
    same = samples - lost - gained
    likelihood = (
        lost * np.log(share + drop) + gained * np.log(share) + same * np.log1p(-2 * share - drop)
    )
    best = share[likelihood.argmax()]
    return (lost - gained - samples * drop) / math.sqrt(samples * (2 * best + drop - drop**2))


@pytest.mark.parametrize(("lost", "gained", "samples"), [(6, 2, 200), (2, 40, 300), (40, 30, 1000)])
def test_drop_limits_are_where_the_score_test_rejects(lost, gained, samples):
    low, high = statistics.drop_limits(lost, gained, samples)
    assert low < (lost - gained) / samples < high
    # Half a sample is the continuity correction.
    assert score_statistic(lost, gained - 0.5, samples, high) == pytest.approx(-1.96, abs=2e-3)
    assert score_statistic(lost - 0.5, gained, samples, low) == pytest.approx(1.96, abs=2e-3)


@pytest.mark.parametrize(("lost", "gained", "samples"), [(3, 0, 40), (9, 1, 200), (12, 0, 500)])
def test_few_losses_have_an_exact_limit(lost, gained, samples):
    low, _ = statistics.drop_limits(lost, gained, samples)
    assert low <= statistics.share_limits(lost, samples)[0] - gained / samples + 1e-9


def test_drop_limits_of_arrays():
    lost, gained = np.array([0, 3, 20]), np.array([0, 1, 25])
    low, high = statistics.drop_limits(lost, gained, 400)
    for row in range(3):
        assert statistics.drop_limits(lost[row], gained[row], 400) == (low[row], high[row])
    # Lost and gained change places.
    assert (-high == statistics.drop_limits(gained, lost, 400)[0]).all()


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


@pytest.mark.parametrize("margin", [0.02, 0.01, 0.001])
@pytest.mark.parametrize("samples", [40, 100, 200, 370])
def test_the_exact_risks_at_the_limit(samples, margin):
    """The probabilities of a pass and of a fail at a true drop of ``margin``, over all results."""
    for share in (0.001, 0.01, 0.1):
        lost, gained = np.indices((4 * round(5 + samples * (margin + share)),) * 2).reshape(2, -1)
        possible = lost + gained <= samples
        lost, gained = lost[possible], gained[possible]
        factorial = np.cumsum(np.log(np.maximum(np.arange(samples + 1), 1)))
        same = samples - lost - gained
        logarithm = (
            (factorial[samples] - factorial[lost] - factorial[gained] - factorial[same])
            + lost * math.log(margin + share)
            + gained * math.log(share)
            + same * math.log1p(-margin - 2 * share)
        )
        probability = np.exp(logarithm)
        assert probability.sum() == pytest.approx(1, abs=1e-4)
        low, high = statistics.drop_limits(lost, gained, samples)
        assert probability[high <= margin].sum() <= 0.025
        assert probability[low > margin].sum() <= 0.03
