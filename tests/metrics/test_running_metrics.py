"""Metrics of an output over batches."""

import numpy as np
import pytest

from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.running_metrics import RunningMetrics


def test_batches_give_the_metrics_of_the_whole():
    generator = np.random.default_rng(4)
    expected = generator.dirichlet(np.ones(5), 700)
    actual = expected + 0.02 * generator.standard_normal(expected.shape)
    limits = LIMITS["int8"]
    metrics = RunningMetrics(limits)
    for part in np.array_split(np.arange(700), 9):
        metrics.add(expected[part], actual[part])

    def check(metric, value, limit=None, relation="<="):
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
