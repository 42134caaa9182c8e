"""Metrics of an output over batches."""

import numpy as np
import pytest

from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import LIMITS, Check, checks_of
from edgeattn.metrics.running_metrics import RunningMetrics
from edgeattn.validation.artifact import is_by_chance


def test_batches_give_the_metrics_of_the_whole():
    generator = np.random.default_rng(4)
    expected = generator.dirichlet(np.ones(5), 700)
    actual = expected + 0.02 * generator.standard_normal(expected.shape)
    limits = LIMITS["int8"]
    metrics = RunningMetrics(limits)
    for part in np.array_split(np.arange(700), 9):
        metrics.add(expected[part], actual[part])

    def check(metric, value, limit=None, relation="<=", **_):
        return metric, value

    values = dict(metrics.checks(check))
    atol, rtol, near_tie = limits.atol, limits.rtol, limits.near_tie
    assert values == pytest.approx(
        {
            "max_abs_error": pairwise.max_abs_error(expected, actual),
            "mean_abs_error": pairwise.mean_abs_error(expected, actual),
            "cosine": pairwise.cosine(expected, actual),
            "minimal_atol": pairwise.minimal_atol(expected, actual, rtol=rtol),
            "tolerance_ratio": pairwise.tolerance_ratio(expected, actual, atol=atol, rtol=rtol),
            "snr_db": pairwise.snr_db(expected, actual),
            "worst_sample_db": min(
                pairwise.snr_db(*rows) for rows in zip(expected, actual, strict=True)
            ),
            "top1_agreement": pairwise.top1_agreement(expected, actual, near_tie=near_tie),
            "top3_agreement": pairwise.topk_agreement(expected, actual, k=3, near_tie=near_tie),
        }
    )
    assert metrics.new_non_finite == 0
    assert 0.9 < values["top1_agreement"] < 1


def test_samples_without_a_signal_have_no_ratio():
    expected, actual = np.zeros((3, 2)), np.zeros((3, 2))
    expected[1], actual[1] = 10, (11, 9)
    actual[2] = 1
    # Signal 200, noise 2.
    assert pairwise.worst_sample_db(expected, actual) == pytest.approx(20)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_classes_are_compared_by_the_share_of_equal_values(dtype):
    expected = np.ones((100, 2), dtype)
    actual = expected.copy()
    actual[:3, 0] = 0
    metrics = RunningMetrics(LIMITS["int8"])
    for rows in (slice(0, 40), slice(40, 100)):
        metrics.add(expected[rows], actual[rows])
    (check,) = metrics.checks(checks_of("a", "numbers", "best"))
    # 3 of 200 values differ.
    assert (check.metric, check.value, check.passed) == ("equal_values", 0.985, True)
    # Of 100 samples, 1.5, rounded up to 2, are others: scipy.stats.binomtest(2, 100)
    # .proportion_ci(0.95, "exact") is 0.00243 to 0.07038.
    assert (check.samples, check.detail) == (100, "95% interval 93.0% to 99.8%")


@pytest.mark.parametrize(
    ("others", "scheme", "passed", "by_chance"),
    [(0, "float32", True, False), (1, "float32", False, False), (1, "int8", False, True)],
)
def test_few_other_classes_may_be_chance(others, scheme, passed, by_chance):
    expected = np.arange(20)
    actual = expected + (expected < others)
    metrics = RunningMetrics(LIMITS[scheme])
    metrics.add(expected, actual)
    (check,) = metrics.checks(checks_of("a", "numbers", "best"))
    assert (check.passed, is_by_chance(check)) == (passed, by_chance)


@pytest.mark.parametrize(
    ("count", "ratio", "failed"),
    [
        (20, 1.5, set()),
        (21, 1.5, {"exceeding_samples"}),
        (1, 2.9, set()),
        (1, 3.1, {"tolerance_ratio"}),
    ],
)
def test_a_few_of_2000_float32_samples_may_exceed_the_tolerance(count, ratio, failed):
    limits = LIMITS["float32"]
    expected = np.full((2000, 3), 2.0)
    actual = expected.copy()
    actual[:count, 1] += ratio * (limits.atol + limits.rtol * 2.0)
    metrics = RunningMetrics(limits)
    for part in np.array_split(np.arange(2000), 7):
        metrics.add(expected[part], actual[part])

    def check(metric, value, limit=None, relation="<=", **_):
        return Check("artifact", "numbers", metric, value, limit, relation)

    checks = list(metrics.checks(check, dataset=True))
    assert {item.metric for item in checks if item.passed is False} == failed
    # The reference has few samples: none may exceed the tolerance.
    failures = {item.metric for item in metrics.checks(check) if item.passed is False}
    assert failures == {"tolerance_ratio"}


@pytest.mark.parametrize(("others", "passed"), [(1, True), (12, False)])
def test_one_hot_rows_are_limited_by_the_share_of_equal_classes(others, passed):
    """Another class in 1 of 90 rows gives 10 log10(90 / 2) = 16.5 dB, below the limit of int8."""
    expected = np.eye(4)[np.arange(90) % 4]
    actual = expected.copy()
    actual[:others] = np.eye(4)[(np.arange(others) + 1) % 4]
    metrics = RunningMetrics(LIMITS["int8"])
    for rows in (slice(0, 40), slice(40, 90)):
        metrics.add(expected[rows], actual[rows])
    checks = {check.metric: check for check in metrics.checks(checks_of("a", "numbers", "tags"))}
    assert checks["snr_db"].value == pytest.approx(10 * np.log10(90 / (2 * others)))
    assert checks["snr_db"].passed is None
    agreement = checks["top1_agreement"]
    assert agreement.value == pytest.approx(1 - others / 90)
    assert (agreement.passed, is_by_chance(agreement)) == (passed, False)


def test_rows_of_ones_and_other_rows_have_a_limit_of_the_ratio():
    expected = np.eye(4)[np.arange(8) % 4]
    actual = expected[::-1]
    metrics = RunningMetrics(LIMITS["int8"])
    metrics.add(expected, actual)
    metrics.add(np.full((8, 4), 0.25), np.full((8, 4), 0.25))
    checks = {check.metric: check for check in metrics.checks(checks_of("a", "numbers", "tags"))}
    assert checks["snr_db"].passed is False
