"""Notes on the ranges of subsets, on hand-written ranges."""

from __future__ import annotations

from edgeattn_converters.quantization.ranges import range_spread_notes


def test_spread_between_subsets() -> None:
    # Widths 2, 4 and 3 of a range of -1 to 3, and no difference: 50% and 0%, with a median of 25%.
    parts = [{"a": (0.0, 2.0), "b": (0.0, 1.0)}, {"a": (-1.0, 3.0), "b": (0.0, 1.0)}]
    (note,) = range_spread_notes([*parts, {"a": (0.0, 3.0), "b": (0.0, 1.0)}])
    assert note.startswith("ranges differ by 25% (median) between 3 subsets")
