"""Values beside their limits in messages."""

from __future__ import annotations

import pytest

from edgeattn.metrics.limits import Check


@pytest.mark.parametrize(
    ("value", "limit", "relation", "text"),
    [
        (19.9701, 20.0, ">=", "snr_db of o is 19.97 (limit >= 20)"),
        (0.0100004, 0.01, "<=", "snr_db of o is 0.0100004 (limit <= 0.01)"),
        (7.5, 20.0, ">=", "snr_db of o is 7.5 (limit >= 20)"),
        (20.004, 20.0, ">=", "snr_db of o is 20 (limit >= 20)"),
    ],
)
def test_a_value_that_misses_its_limit_differs_from_it(
    value: float, limit: float, relation: str, text: str
) -> None:
    check = Check("tflite int8", "numbers", "snr_db", value, limit, relation, "o")
    assert check.comparison == text
