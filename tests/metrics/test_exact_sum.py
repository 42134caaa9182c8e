"""Exact sums: compared with math.fsum and with fractions, in any order and any division."""

import math
from fractions import Fraction

import numpy as np
import pytest

from edgeattn.metrics import exact_sum

GENERATOR = np.random.default_rng(8)
# Of all magnitudes, subnormal ones included, so that ordinary sums lose most of them.
NUMBERS = GENERATOR.standard_normal(900) * 10.0 ** GENERATOR.integers(-322, 300, 900)


def total(parts: list[np.ndarray]) -> np.ndarray:
    """The sums of the parts, each accumulated on its own and then combined."""
    sums = []
    for part in parts:
        sums.append(exact_sum.zeros())
        for number in part:
            exact_sum.add(sums[-1], number)
    return np.add.reduce(sums)


@pytest.mark.parametrize("parts", [1, 2, 7, 900])
def test_a_sum_does_not_depend_on_order_and_division(parts: int) -> None:
    shuffled = GENERATOR.permutation(NUMBERS)
    assert exact_sum.values(total(np.array_split(shuffled, parts))) == math.fsum(NUMBERS)


def test_terms_that_cancel() -> None:
    sums = exact_sum.zeros(2)
    for pair in ((1e300, 1.0), (1.0, 2.0**-53), (-1e300, 2.0**-106)):
        exact_sum.add(sums, np.array(pair))
    assert exact_sum.values(sums).tolist() == [1.0, 1.0 + 2.0**-52]


@pytest.mark.parametrize(
    "number", [0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -0.1]
)
def test_one_number_is_its_own_sum(number: float) -> None:
    sums = exact_sum.zeros()
    exact_sum.add(sums, number)
    assert exact_sum.values(sums) == number
    exact_sum.add(sums, number, times=3)
    assert exact_sum.fractions(sums) == [4 * Fraction(number)]


def test_leading_axes_are_summed() -> None:
    numbers = GENERATOR.standard_normal((50, 3))
    sums = exact_sum.zeros(3)
    exact_sum.add(sums, numbers)
    assert exact_sum.values(sums).tolist() == [math.fsum(column) for column in numbers.T]


def test_squares_are_not_rounded() -> None:
    numbers = GENERATOR.standard_normal(40) * 10.0 ** GENERATOR.integers(-100, 100, 40)
    sums = exact_sum.zeros()
    exact_sum.add_squares(sums, numbers, times=7)
    assert exact_sum.fractions(sums) == [7 * sum(Fraction(x) ** 2 for x in numbers)]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((math.inf, 1.0), math.inf),
        ((1.0, -math.inf), -math.inf),
        ((math.inf, -math.inf), math.nan),
        ((math.nan, 1.0), math.nan),
        # Beyond the largest float64, and back.
        ((1.7e308, 1.7e308), math.inf),
        ((-1.7e308, -1.7e308), -math.inf),
        ((1.7e308, 1.7e308, -1.7e308), 1.7e308),
    ],
)
def test_infinities_and_nan(numbers: tuple[float, ...], expected: float) -> None:
    sums = total([np.array([number]) for number in numbers])
    assert exact_sum.values(sums) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    if not all(map(math.isfinite, numbers)):
        assert exact_sum.fractions(sums) is None


def test_many_numbers_do_not_overflow_the_digits() -> None:
    sums = exact_sum.zeros()
    for _ in range(40):
        exact_sum.add(sums, -1.0 - 2.0**-52, times=2**29)
        sums = sums + sums
    exact = Fraction(0)
    for _ in range(40):
        exact = 2 * (exact - 2**29 * (1 + Fraction(1, 2**52)))
    assert exact_sum.values(sums) == float(exact)
