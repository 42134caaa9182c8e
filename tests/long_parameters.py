"""Parameters of tests of which ``make test`` takes a part and ``make test-long`` the others."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def only(values: Iterable[Any], *quick: Any) -> list[Any]:
    """All ``values``; those that are not in ``quick`` are long tests."""
    return [
        value if value in quick else pytest.param(value, marks=pytest.mark.long) for value in values
    ]


def every_third(values: Sequence[Any]) -> list[Any]:
    """All ``values``; two of three are long tests."""
    return only(values, *values[::3])


def is_in_part(file: str, part: str) -> bool:
    """Whether the tests of a file are in ``part``, which is ``2/3`` for the second third."""
    number, count = map(int, part.split("/"))
    return zlib.crc32(file.encode()) % count == number % count
