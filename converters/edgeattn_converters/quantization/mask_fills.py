"""Fill values of masks, which ranges leave out.

With -1e9 or the lowest float32 in a range, all real values would share one quantization step.
Magnitude alone does not identify a fill value, because a price or a pressure in Pa is as large as
the -1e4 of some masks. Fill values come from a constant, and are therefore (sums of) one number in
all samples, whereas real values differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile

Range = tuple[float, float]
# The smallest fill value. exp(-FILL) is zero in any precision.
FILL = 1e4
# The smallest sum of one and a score.
LEAST_SUM = 0.9 * FILL
# No real value is that large: inputs are at most 1e6, see :mod:`edgeattn_converters.calibration`.
ENORMOUS = 1e8
# Fill values differ by the scores that they were added to. Magnitudes of one level differ by this
# share, and levels next to each other count as one.
LEVEL = 0.03
# So many masks can be added up, such as one for each step of a best path.
SUMMANDS = 10
SUMS = frozenset({"ADD", "SUB"})
PRODUCTS = frozenset({"FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "WHILE"})
# A softmax gives a masked key at most exp(-DEPTH) of the largest weight. In int8, weights below
# 1/512 are zero.
DEPTH = 8.0
# A constant of so many times the ranges of the other operand and of the sum saturates the sum,
# also if ranges are doubled later.
SATURATING = 64.0


@dataclass(frozen=True)
class Extent:
    """The values of one tensor in some samples.

    Attributes:
        usual, large: Ranges of the finite values below and from :data:`LEAST_SUM`, in magnitude.
        levels: Logarithms of the magnitudes of the large ones, in units of :data:`LEVEL`.
        infinite: Which infinities there are: the negative one, the positive one.
    """

    usual: Range | None = None
    large: Range | None = None
    levels: frozenset[int] = frozenset()
    infinite: tuple[bool, bool] = (False, False)

    @classmethod
    def of(cls, value: Array) -> Extent:
        whole = _range(value)
        if whole is None or -LEAST_SUM < whole[0] <= whole[1] < LEAST_SUM:
            return cls(whole)
        is_large = np.abs(value) >= LEAST_SUM
        large = value[is_large & np.isfinite(value)].astype(np.float64)
        levels = np.rint(np.log(np.abs(large)) / LEVEL).astype(int)
        return cls(
            _range(value[~is_large & np.isfinite(value)]),
            _range(large),
            frozenset(np.unique(levels).tolist()),
            (bool(np.isneginf(value).any()), bool(np.isposinf(value).any())),
        )

    def merged(self, other: Extent) -> Extent:
        return Extent(
            _union(self.usual, other.usual),
            _union(self.large, other.large),
            self.levels | other.levels,
            (self.infinite[0] or other.infinite[0], self.infinite[1] or other.infinite[1]),
        )

    def range(self, *, masked: bool) -> Range | None:
        """The minimum and maximum of the real values; None if there is none.

        ``masked`` is whether the graph has a constant that may be a fill value; without one,
        infinities are overflows. Fill values among nothing but zeros are a mask itself, which has
        no range either. A range without them has room for values that a softmax makes (almost)
        zero.
        """
        below, above = self.infinite if masked else (False, False)
        real = self.whole
        if self.large is not None and self._has_fills(masked):
            below, above = below or self.large[0] < 0, above or self.large[1] > 0
            real = self.usual
        if not below and not above:
            return real
        if real is None or real == (0.0, 0.0):
            return None
        return real[0] - DEPTH * below, real[1] + DEPTH * above

    @property
    def whole(self) -> Range | None:
        """The minimum and maximum of all finite values."""
        return _union(self.usual, self.large)

    def _has_fills(self, masked: bool) -> bool:
        if not self.levels:
            return False
        least = min(self.levels)
        if not masked and least < np.log(ENORMOUS) / LEVEL:
            return False
        sums = [least + round(np.log(count) / LEVEL) for count in range(1, SUMMANDS + 1)]
        return all(any(abs(level - item) <= 1 for item in sums) for level in self.levels)


def range_of_constant(value: Array) -> Range | None:
    """The minimum and maximum of a constant without fill values; None if nothing is left."""
    return _range(value[~_is_fill(value)])


def has_fills(constants: Iterable[Array]) -> bool:
    """Whether one of the constants has fill values."""
    return any(_is_fill(value).any() for value in constants if value.dtype.kind == "f")


def mask_operators(file: TFLiteFile) -> set[str]:
    """The names of the results that are multiplied by a fill value, and of what they are computed
    from.

    The smallest error of a mask, multiplied by 1e9, would hide every key.
    """
    graph = file.main
    makers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    pending = [
        int(operator.outputs[0])
        for operator in graph.operators
        if file.kind(operator) in ("MUL", "DIV")
        and has_fills(
            value
            for i in operator.inputs
            for value in [file.constant(graph.tensors[int(i)])]
            if value is not None
        )
    ]
    visited: set[int] = set()
    while pending:
        index = pending.pop()
        maker = makers.get(index)
        if maker is None or index in visited or file.kind(maker) in PRODUCTS:
            continue
        visited.add(index)
        pending += [int(i) for i in maker.inputs if int(i) >= 0]
    return {file.name(graph.tensors[i]) for i in visited}


def limit_fills(file: TFLiteFile, graph: Any, operator: Any, ranges: Mapping[int, Range]) -> None:
    """Limit the fill values in a constant of a sum to what saturates the sum in integers, in place.

    The kernels of TFLite end the process if a step of an operand is too large for the result.
    """
    if file.kind(operator) not in SUMS:
        return
    inputs = [int(i) for i in operator.inputs]
    result = ranges.get(int(operator.outputs[0]))
    for position, other in enumerate(reversed(inputs)):
        value = file.constant(graph.tensors[inputs[position]])
        if value is None or value.dtype != np.float32 or result is None or other not in ranges:
            continue
        limit = SATURATING * max(1.0, *map(abs, (*result, *ranges[other])))
        limited = np.where(_is_fill(value), np.clip(value, -limit, limit), value)
        if not np.array_equal(limited, value):
            name = f"{file.name(graph.tensors[inputs[position]])}/limited"
            inputs[position] = file.add_constant(graph, limited.astype(np.float32), name)
    operator.inputs = inputs


def _is_fill(value: Array) -> Array:
    """Which values of a constant are fill values: enormous ones, and large ones among zeros."""
    is_large = np.abs(value) >= FILL
    if (value[~is_large] == 0).all():
        return is_large
    return np.asarray(np.abs(value) >= ENORMOUS)


def _range(value: Array) -> Range | None:
    return (float(value.min()), float(value.max())) if value.size else None


def _union(first: Range | None, second: Range | None) -> Range | None:
    if first is None or second is None:
        return first or second
    return min(first[0], second[0]), max(first[1], second[1])
