"""Metrics of an output over batches."""

import numpy as np
import pytest

from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import LIMITS, Check
from edgeattn.metrics.running_metrics import RunningMetrics


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
            "top1_agreement": pairwise.top1_agreement(expected, actual, near_tie=near_tie),
            "top3_agreement": pairwise.topk_agreement(expected, actual, k=3, near_tie=near_tie),
        }
    )
    assert metrics.new_non_finite == 0
    assert 0.9 < values["top1_agreement"] < 1


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
