"""Outputs that are the same for every sample."""

import numpy as np
import pytest

from edgeattn.metrics.constant_outputs import ConstancyCheck, is_constant, is_varied

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
