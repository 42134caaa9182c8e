"""Integers in lines of text, also those that float64 does not represent."""

import json
from decimal import Decimal
from typing import Any

import numpy as np

from edgeattn.tensors import Array

_BEYOND = 2.0**64  # more than any integer dtype has


class _Number(float):
    """A number with a decimal point or an exponent, and its text."""

    text: str

    def __new__(cls, text: str) -> "_Number":
        number = super().__new__(cls, text)
        number.text = text
        return number


def of_json(text: str) -> Any:
    """The values of a line of JSON, for :func:`integers`."""
    return json.loads(text, parse_float=_Number)


def of_fields(text: str) -> list[Any]:
    """The numbers of a line that are separated by commas or spaces, for :func:`integers`."""
    return list(map(_of_field, text.replace(",", " ").split()))


def _of_field(field: str) -> Any:
    try:
        return int(field)
    except ValueError:
        return _Number(field)


def integers(values: Any, dtype: str) -> Array | None:
    """The values in an integer dtype; None if some are no integers, or are beyond its range."""
    array = np.array(_exact(values), dtype=object)
    limits = np.iinfo(dtype)
    for value in array.flat:
        # bool is an int; other numbers are not integers.
        if not isinstance(value, int) or not limits.min <= value <= limits.max:
            return None
    return array.astype(dtype)


def _exact(value: Any) -> Any:
    """A value with integers in place of numbers such as ``1e3``, in lists of any depth."""
    if isinstance(value, list):
        return list(map(_exact, value))
    if isinstance(value, _Number) and abs(value) < _BEYOND:
        number = Decimal(value.text.strip())
        return int(number) if number == number.to_integral_value() else value
    return value
