"""Ranges of activations, measured on samples."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from edgeattn.tensors import Array

Range = tuple[float, float]
Key = TypeVar("Key", bound=Hashable)
# Fill values of masks (-1e9, or the lowest float32) are left out of ranges: with them, all real
# values would share one quantization step. exp(-FILL) is zero in any precision.
FILL = 1e4
# Number of subsets of the samples whose ranges are compared.
SUBSETS = 4


def range_of(value: Array) -> Range | None:
    """The minimum and maximum of an array without fill values; None if nothing is left."""
    real = value[np.abs(value) < FILL]
    return (float(real.min()), float(real.max())) if real.size else None


def merge_ranges(parts: Iterable[Mapping[Key, Range]]) -> dict[Key, Range]:
    """By key, the minimum and the maximum over all parts."""
    merged: dict[Key, Range] = {}
    for part in parts:
        for key, (low, high) in part.items():
            known = merged.get(key, (low, high))
            merged[key] = (min(low, known[0]), max(high, known[1]))
    return merged


def range_spread_notes(parts: Sequence[Mapping[Key, Range]]) -> tuple[str, ...]:
    """A note on how much the ranges of subsets of the samples differ; none without a difference
    to compare."""
    spreads = []
    for key, (low, high) in merge_ranges(parts).items():
        widths = [part[key][1] - part[key][0] for part in parts if key in part]
        if high > low and len(widths) > 1:
            spreads.append((max(widths) - min(widths)) / (high - low))
    if not spreads:
        return ()
    return (
        f"ranges differ by {float(np.median(spreads)):.0%} (median) between {len(parts)} subsets "
        "of the calibration samples",
    )
