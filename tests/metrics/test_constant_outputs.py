"""Outputs that are the same for every sample."""

import numpy as np
import pytest

from edgeattn.metrics.constant_outputs import ConstancyCheck, is_constant, is_varied, lost_values

ROWS = np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("output", "constant"),
    [
        (np.zeros((9, 1)), True),
        (np.full((9, 4), 0.3, np.float32), True),
        # One unit in the last place: the same number, summed in another order.
        (np.float32(0.3) * (1 + np.finfo(np.float32).eps * (np.arange(9) % 2)[:, None]), True),
        (ROWS, False),
        # Small numbers that change are not constant.
        (1e-9 * ROWS, False),
        (1.0 + 1e-5 * ROWS, False),
        (np.zeros((1, 4)), False),
        (np.full((9, 4), np.nan), False),
        (np.array([True] * 9), True),
    ],
)
def test_constant(output, constant):
    assert is_constant(output) is constant
    batches = ConstancyCheck()
    for part in np.array_split(output, 3):
        batches.add(part)
    assert batches.constant is constant


def test_varied_inputs():
    same = np.ones((5, 3))
    assert not is_varied({"x": same})
    assert is_varied({"x": same, "z": np.arange(5)})
    assert not is_varied({"x": same[:1]})


@pytest.mark.parametrize(
    ("scale", "lost"),
    [
        ([1e-3, 1e3, 1e-3, 1e3], [0, 2]),
        ([1, 1, 1, 1], []),
        ([0, 1e3, 0, 1e3], []),  # dead in the reference too
    ],
)
def test_values_that_one_scale_for_all_loses(scale, lost):
    expected = ROWS * scale
    step = np.abs(expected).max() / 127
    assert lost_values(expected, np.rint(expected / step) * step) == lost
    steps = np.stack([expected, -expected], axis=1)  # two positions
    assert lost_values(steps, np.rint(steps / step) * step) == lost


def test_probabilities_may_vanish():
    scores = np.exp(ROWS * [1, 1, 1, 0.1] - [0, 0, 0, 15])
    expected = scores / scores.sum(-1, keepdims=True)
    assert lost_values(expected, np.rint(expected * 256) / 256) == []
