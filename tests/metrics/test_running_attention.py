"""Metrics of an attention map over batches: what a mean over many samples would hide."""

import math

import numpy as np
import pytest

from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import LIMITS, Check
from edgeattn.metrics.running_attention import WORST_SAMPLE, RunningAttention

STEPS = 40


def checks(expected, actual, scheme="int8", parts=1, dataset=False):
    metrics = RunningAttention(LIMITS[scheme])
    for rows in np.array_split(np.arange(len(expected)), parts):
        metrics.add(expected[rows], actual[rows])

    def check(metric, value, limit=None, relation="<=", heads=()):
        return Check("artifact", "attention", metric, value, limit, relation, "map", heads)

    return {item.metric: item for item in metrics.checks(check, dataset=dataset)}


@pytest.mark.parametrize("shape", [(70, 6), (70, 3, 6), (70, 2, 3, 6)])
def test_batches_give_the_metrics_of_the_whole(shape):
    generator = np.random.default_rng(4)
    expected = generator.dirichlet(np.ones(shape[-1]), shape[:-1])
    actual = np.abs(expected + 0.02 * generator.standard_normal(shape))
    values = {name: item.value for name, item in checks(expected, actual, parts=9).items()}
    heads = range(shape[1]) if len(shape) == 4 else [slice(None)]
    pairs = [
        (expected[:, head], actual[:, head]) if len(shape) == 4 else (expected, actual)
        for head in heads
    ]
    errors = [np.abs(a - e).reshape(len(e), -1).max(-1) for e, a in pairs]
    share = max((error > LIMITS["int8"].attention_max_abs).mean() for error in errors)
    assert values.pop("exceeding_maps") == pytest.approx(share)
    assert values.pop("worst_jensen_shannon") == pytest.approx(
        max(
            pairwise.jensen_shannon(e[None], a[None])
            for pair in pairs
            for e, a in zip(*pair, strict=True)
        )
    )
    for name, value in values.items():
        worst = max if name not in ("topk_overlap", "argmax_stability") else min
        metric = getattr(pairwise, name)
        assert value == pytest.approx(worst(metric(*pair) for pair in pairs)), name


@pytest.mark.parametrize("scheme", LIMITS)
def test_seven_uniform_maps_of_200_fail(scheme):
    expected = np.full((200, STEPS), 0.1 / (STEPS - 1))
    expected[:, 3] = 0.9
    actual = expected.copy()
    actual[:70:10] = 1 / STEPS
    result = checks(expected, actual, scheme, parts=20, dataset=True)
    # 0.9 instead of 1/40
    assert result["max_abs_error"].value == pytest.approx(0.9 - 1 / STEPS)
    for metric in ("max_abs_error", "exceeding_maps", "worst_jensen_shannon"):
        assert not result[metric].passed
    assert result["exceeding_maps"].value == 7 / 200


@pytest.mark.parametrize(
    ("count", "error", "failed"),
    [
        # A few larger errors are expected among many samples, but not among few.
        (20, 1.2, set()),
        (21, 1.2, {"exceeding_maps"}),
        (1, 2.9, set()),
        (1, 3.1, {"max_abs_error"}),
    ],
)
def test_errors_of_a_few_of_2000_samples(count, error, failed):
    expected = np.full((2000, STEPS), 0.35 / (STEPS - 2))
    expected[:, :2] = [0.4, 0.25]
    actual = expected.copy()
    actual[:count, 0] -= error * 0.05
    actual[:count, 1] += error * 0.05
    result = checks(expected, actual, dataset=True)
    assert {name for name, item in result.items() if item.passed is False} == failed
    # The reference has few samples: none may exceed the limit.
    assert not checks(expected, actual)["max_abs_error"].passed


def test_a_few_wrong_maps_without_a_peak_fail():
    """Every weight is within 0.05 and the mean within its limit, but not the worst sample."""
    expected = np.full((2000, STEPS), 1 / STEPS)
    actual = expected.copy()
    actual[:7] = np.where(np.arange(STEPS) % 2, 2 / STEPS, 0.0)  # half of the steps get nothing
    result = checks(expected, actual)
    assert {name for name, item in result.items() if item.passed is False} == {
        "worst_jensen_shannon"
    }
    # (KL(p || m) + KL(q || m)) / 2 = (ln(4/3) / 2 + ln(4/3)) / 2 by hand
    assert result["worst_jensen_shannon"].value == pytest.approx(0.75 * math.log(4 / 3))
    assert result["worst_jensen_shannon"].limit == WORST_SAMPLE * LIMITS["int8"].attention_jsd


def test_heads_are_not_averaged():
    expected = np.random.default_rng(1).dirichlet(np.ones(5), (30, 4, 3))
    actual = expected.copy()
    actual[:, 2] = np.roll(actual[:, 2], 1, -1)
    result = checks(expected, actual)
    assert [value > 0.05 for value in result["max_abs_error"].heads] == [False, False, True, False]
    assert not result["max_abs_error"].passed


def test_nan_in_any_batch_fails():
    expected = np.full((60, STEPS), 1 / STEPS)
    actual = expected.copy()
    actual[31, 4] = np.nan
    metrics = RunningAttention(LIMITS["int8"])
    metrics.add(expected[:30], actual[:30])
    assert metrics.new_non_finite == 0
    metrics.add(expected[30:], actual[30:])
    assert metrics.new_non_finite == 1
    assert math.isnan(checks(expected, actual, parts=4)["max_abs_error"].value)


def test_the_state_can_be_restored():
    expected = np.random.default_rng(2).dirichlet(np.ones(5), (60, 2, 3))
    actual = np.roll(expected, 1, 0)
    first = RunningAttention(LIMITS["int8"])
    first.add(expected[:40], actual[:40])
    second = RunningAttention(LIMITS["int8"])
    second.state = {name: array.copy() for name, array in first.state.items()}
    first.add(expected[40:], actual[40:])
    second.add(expected[40:], actual[40:])
    assert list(first.checks(Check)) == list(second.checks(Check))
