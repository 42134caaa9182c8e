"""Bounds of computed values that hold for any input.

Twice the range of the calibration samples is more than an LSTM can reach in its first steps: its
cell is at most 1 after the first step, and grows by at most 1 in each. What these steps round is
amplified the most.

Values that only sigmoids and tanh read need no range beyond that in which the results change.
"""

from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.integer_forms import JOINING, MOVING, NARROW, positions
from edgeattn_converters.quantization.least_ranges import FIXED_RANGES
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_int16 import HEADROOM

SUMS = {"ADD", "SUB"}
# Operators whose results have the smallest and the largest value of their inputs at most.
CHOOSING = MOVING | set(JOINING) | NARROW
# From here, the results of int16 are less than a unit, 1/32768, from their bounds.
SATURATED = {"LOGISTIC": 10.6, "TANH": 5.6}
# Operators that may clip values before instead of after.
CLIPPABLE = MOVING - {"AVERAGE_POOL_2D"}


def value_bounds(file: TFLiteFile) -> Ranges:
    """The bounds of the values of the main graph that have some, by tensor index.

    They are those of interval arithmetic, which takes values for independent, and include zero.
    """
    tensors = file.main.tensors
    bounds: Ranges = {}

    def known(index: int) -> Range | None:
        value = file.constant(tensors[index])
        if value is None or not value.size:
            return bounds.get(index)
        return float(value.min()), float(value.max())

    for operator in file.main.operators:
        kind = file.kind(operator)
        limits: Range | None = FIXED_RANGES.get(kind)
        if kind in CHOOSING | SUMS | {"MUL", "FULLY_CONNECTED"}:
            indices = [int(operator.inputs[k]) for k in positions(file, operator)]
            if all(file.dtype(tensors[index]) == "FLOAT32" for index in indices):
                parts = [part for index in indices if (part := known(index)) is not None]
                limits = _bounds(file, operator, parts) if len(parts) == len(indices) else None
        # The fill values of masks may be as large as float32 can be, or infinite.
        if limits is not None and np.isfinite(limits).all():
            low, high = min(limits[0], 0.0), max(limits[1], 0.0)
            bounds.update(dict.fromkeys(map(int, operator.outputs), (low, high)))
    return bounds


def needed_magnitudes(file: TFLiteFile) -> dict[int, float]:
    """By tensor index, the magnitudes beyond which values change no result, if there are any."""
    graph = file.main
    needed: dict[int, float] = {}
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in set(map(int, operator.inputs)):
            readers.setdefault(index, []).append(operator)
    outputs = set(map(int, graph.outputs))

    def by(operator: Any) -> float:
        """What an operator needs."""
        kind = file.kind(operator)
        if kind not in CLIPPABLE:
            return SATURATED.get(kind, np.inf)
        return max(needed.get(index, np.inf) for index in map(int, operator.outputs))

    for operator in reversed(graph.operators):
        for index in set(map(int, operator.outputs)) - outputs:
            needed[index] = max((by(reader) for reader in readers.get(index, ())), default=np.inf)
    return {index: value for index, value in needed.items() if np.isfinite(value)}


def within_bounds(file: TFLiteFile, ranges: Ranges) -> Ranges:
    """``ranges`` that, doubled as in int16, are no wider than the bounds of their values and than
    what is needed of them."""
    largest = needed_magnitudes(file)
    for index, (low, high) in value_bounds(file).items():
        largest[index] = min(max(-low, high), largest.get(index, np.inf))
    limited = dict(ranges)
    for index, limit in largest.items():
        low, high = ranges.get(index, (0.0, 0.0))
        doubled = HEADROOM * max(abs(low), abs(high))
        if 0 < limit < doubled:
            limited[index] = (low * limit / doubled, high * limit / doubled)
    return limited


def _bounds(file: TFLiteFile, operator: Any, inputs: list[Range]) -> Range | None:
    """Those of an operator's results, from those of its inputs."""
    kind = file.kind(operator)
    if kind == "FULLY_CONNECTED":
        return _of_product(file, operator, *inputs)
    if kind == "MUL":
        products = [first * second for first in inputs[0] for second in inputs[1]]
        return min(products), max(products)
    if kind in SUMS:
        (low, high), (other_low, other_high) = inputs
        if kind == "SUB":
            other_low, other_high = -other_high, -other_low
        return low + other_low, high + other_high
    return min(low for low, _ in inputs), max(high for _, high in inputs)


def _of_product(file: TFLiteFile, operator: Any, x: Range) -> Range | None:
    """The bounds of a product with constant weights, over all of its units."""
    indices = [int(index) for index in operator.inputs[1:] if int(index) >= 0]
    values = [file.constant(file.main.tensors[index]) for index in indices]
    if any(value is None or value.dtype != np.float32 for value in values):
        return None
    weights, *bias = [np.asarray(value, np.float64) for value in values]
    positive, negative = (np.clip(part, 0, None).sum(axis=1) for part in (weights, -weights))
    offset = bias[0] if bias else 0.0
    lowest = positive * x[0] - negative * x[1] + offset
    highest = positive * x[1] - negative * x[0] + offset
    return float(lowest.min()), float(highest.max())
