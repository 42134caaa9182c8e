"""Rows of decimal numbers in lines of text, many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeattn.tensors import Array

# Integers of so many digits, and such powers of ten, are exact in float64, and their quotient is
# rounded once, as float() does.
_MAX_DIGITS = 15
_POWERS = 10.0 ** np.arange(_MAX_DIGITS + 1)
_NEWLINE, _COMMA, _MINUS, _DOT, _ZERO = b"\n,-.0"
_COMMAS = bytes.maketrans(b"\n", b",")
_NO_DIGITS = bytes(code for code in range(256) if code not in b"0123456789,\n")


def decimal_rows(lines: Sequence[bytes], columns: int) -> Array | None:
    """The numbers of lines as float64 ``(lines, columns)``, as float() reads each.

    They are separated by commas or spaces. None if a line has another number of fields, or one that
    is not a number.
    """
    text = b"\n".join(lines) + b"\n"
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if b" " in text:
        text = text.replace(b", ", b",") if b"," in text else text.replace(b" ", b",")
    codes = np.frombuffer(text, np.uint8)
    is_end = (codes == _COMMA) | (codes == _NEWLINE)
    ends = np.flatnonzero(is_end)
    if len(ends) != len(lines) * columns or (codes[ends[columns - 1 :: columns]] != _NEWLINE).any():
        return None
    try:
        return _numbers(text, codes, is_end, ends).reshape(-1, columns)
    except ValueError:
        return None


def _numbers(text: bytes, codes: Array, is_end: Array, ends: Array) -> Array:
    """The numbers of fields that end before ``ends``; :class:`ValueError` if one is none."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    negative = codes[starts] == _MINUS
    dots = np.flatnonzero(codes == _DOT)
    fields = np.arange(len(ends))
    if len(dots) != len(ends) or (dots < starts).any() or (dots > ends).any():
        fields = np.searchsorted(ends, dots)
    decimals = np.zeros(len(ends), np.int64)
    decimals[fields] = ends[fields] - dots - 1
    size = ends - starts - negative
    size[fields] -= 1
    # Fields that float() reads: with an exponent or two dots, for example.
    is_other = (codes - np.uint8(_ZERO) > 9) & ~is_end
    is_other[dots] = False
    is_other[starts[negative]] = False
    indices = [
        np.searchsorted(ends, np.flatnonzero(is_other)),
        fields[1:][fields[1:] == fields[:-1]],
        np.flatnonzero((size < 1) | (size > _MAX_DIGITS)),
    ]
    others = set(np.concatenate(indices).tolist())
    few = others if len(others) <= len(ends) // 4 else ()
    numbers = {field: float(text[starts[field] : ends[field]]) for field in few}
    # NaN and infinity have no digits.
    if len(few) < len(others) or not all(map(math.isfinite, numbers.values())):
        return np.array([float(field) for field in text.translate(_COMMAS).split(b",")[:-1]])
    integers = np.fromstring(text.translate(_COMMAS, _NO_DIGITS), np.int64, sep=",")
    values: Array = integers / _POWERS[np.minimum(decimals, _MAX_DIGITS)]
    np.negative(values, where=negative, out=values)
    for field, number in numbers.items():
        values[field] = number
    return values
