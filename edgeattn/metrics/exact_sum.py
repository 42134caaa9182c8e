"""Exact sums of floating-point numbers: the same for any order, and for any division into parts.

A sum is a fixed-point number with 32 bits per digit, wide enough for every float64, as in Kulisch
(2013), *Computer Arithmetic and Validity*, chapter 8. Adding numbers and combining sums are
additions of integers, so nothing is rounded before :func:`values` returns the nearest float64.

Sums of the shape ``S`` are int64 arrays ``S + (WIDTH,)``: the digits, least significant first, then
how often infinity, minus infinity and NaN were added.
"""

import math
from fractions import Fraction

import numpy as np

from edgeattn.tensors import Array

_BITS = 32
_MASK = (1 << _BITS) - 1
# The exponent of the least significant bit: that of the smallest float64.
_LOWEST = -1074
# From the lowest bit to the largest float64, and 32 more bits for sums.
_DIGITS = (1024 - _LOWEST) // _BITS + 2
WIDTH = _DIGITS + 3


def zeros(*shape: int) -> Array:
    """Sums of nothing."""
    return np.zeros((*shape, WIDTH), np.int64)


def add(sums: Array, numbers: Array, times: int = 1) -> None:
    """Add ``numbers``, each ``times`` times, to ``sums`` in place.

    ``numbers`` have the shape of the sums, or axes before it that are summed. ``times`` numbers of
    one sum are at most 2**29 in a call.
    """
    digits = _digits(np.asarray(numbers, np.float64))
    leading = tuple(range(digits.ndim - sums.ndim))
    sums += times * digits.sum(leading)
    # Digits keep their sign bit free for 2**31 more numbers.
    carries = sums[..., : _DIGITS - 1] >> _BITS
    sums[..., : _DIGITS - 1] -= carries << _BITS
    sums[..., 1:_DIGITS] += carries


def add_squares(sums: Array, numbers: Array, times: int = 1) -> None:
    """Add the squares of ``numbers``, without rounding them, as :func:`add` does.

    A square is a float64 and its rounding error (Dekker 1971, "A floating-point technique for
    extending the available precision"), exact if neither overflows nor underflows.
    """
    numbers = np.asarray(numbers, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = numbers * numbers
        shifted = 134217729.0 * numbers  # 2**27 + 1
        high = shifted - (shifted - numbers)
        low = numbers - high
        errors = ((high * high - squares) + 2.0 * high * low) + low * low
    add(sums, squares, times)
    add(sums, np.where(np.isfinite(squares), np.nan_to_num(errors), 0.0), times)


def values(sums: Array) -> Array:
    """The sums, each rounded once to the nearest float64."""
    flat = sums.reshape(-1, WIDTH)
    rounded = np.array([_rounded(row) for row in flat], np.float64)
    return rounded.reshape(sums.shape[:-1])


def fractions(sums: Array) -> list[Fraction] | None:
    """The sums as exact numbers, flattened; None if one is infinite or NaN."""
    flat = sums.reshape(-1, WIDTH)
    if flat[:, _DIGITS:].any():
        return None
    return [Fraction(_integer(row)) / 2**-_LOWEST for row in flat]


def to_float(number: Fraction) -> float:
    """The nearest float64, or an infinity beyond its range."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _digits(numbers: Array) -> Array:
    """Each number as a sum: the three digits that its 53 bits are in."""
    finite = np.isfinite(numbers)
    mantissas, exponents = np.frexp(np.where(finite, numbers, 0.0))
    signs = np.sign(mantissas).astype(np.int64)
    bits = np.abs(mantissas * 2.0**53).astype(np.int64)
    lowest = exponents.astype(np.int64) - 53 - _LOWEST
    # Subnormal numbers have fewer bits, so that these are zeros.
    bits >>= np.maximum(-lowest, 0)
    lowest = np.maximum(lowest, 0)
    first, shift = lowest // _BITS, lowest % _BITS
    low, high = (bits & _MASK) << shift, (bits >> _BITS) << shift
    parts = np.stack([low & _MASK, (low >> _BITS) + (high & _MASK), high >> _BITS], -1)
    digits = zeros(*numbers.shape)
    places = first[..., None] + np.arange(3)
    np.put_along_axis(digits, places, signs[..., None] * parts, -1)
    digits[..., _DIGITS:] = np.stack([numbers == np.inf, numbers == -np.inf, np.isnan(numbers)], -1)
    return digits


def _integer(row: Array) -> int:
    """The sum in units of the smallest float64."""
    total = 0
    for digit in reversed(row[:_DIGITS].tolist()):
        total = (total << _BITS) + digit
    return total


def _rounded(row: Array) -> float:
    positive, negative, undefined = row[_DIGITS:].tolist()
    if undefined or (positive and negative):
        return math.nan
    if positive or negative:
        return math.inf if positive else -math.inf
    return to_float(Fraction(_integer(row)) / 2**-_LOWEST)
