"""Ranges that are wide enough for the kernels of TFLite.

A kernel ends the process if a step of its result is a tiny part of what its operands distinguish.
That happens to values that are zero in calibration only, such as states before a sequence starts.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.integer_forms import JOINING, MOVING, positions
from edgeattn_converters.quantization.mask_fills import Range, range_of_constant
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_weights import CHANNELS

SUMS = {"ADD", "SUB"}
PRODUCTS = {"MUL", "BATCH_MATMUL", *CHANNELS}
# The ranges of these results do not depend on calibration.
FIXED_RANGES = {"LOGISTIC": (0.0, 1.0), "SOFTMAX": (0.0, 1.0), "TANH": (-1.0, 1.0)}
STEPS = 255  # of int8


def with_least_ranges(
    file: TFLiteFile, graph: Any, ranges: Ranges, float_names: Collection[str] = ()
) -> Ranges:
    """``ranges`` of a float graph, with those of sums and products widened where necessary.

    Operators of ``float_names`` stay float32, whose kernels compute any range.

    A step of a sum is at least 1/255 of one of its operands, and a step of a product that of the
    product of two steps. Smaller values would be rounded away in the operands.
    """
    makers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    widened = dict(ranges)

    @cache
    def width(index: int) -> float:
        value = file.constant(graph.tensors[index])
        measured = widened.get(index) if value is None else range_of_constant(value)
        own = _width(measured or (0.0, 0.0))
        maker = makers.get(index)
        if maker is None or file.name(graph.tensors[index]) in float_names:
            return own
        kind = file.kind(maker)
        if kind in MOVING or kind in JOINING:
            # A part of a value has the scale of the whole.
            return max(own, *(width(int(maker.inputs[k])) for k in positions(file, maker)))
        return _width(FIXED_RANGES[kind]) if kind in FIXED_RANGES else own

    for operator in graph.operators:
        index, kind = int(operator.outputs[0]), file.kind(operator)
        if index not in widened or kind not in SUMS | PRODUCTS:
            continue
        if file.name(graph.tensors[index]) in float_names:
            continue
        first, second = (width(int(i)) for i in operator.inputs[:2])
        least = max(first, second) if kind in SUMS else first * second
        low, high = widened[index]
        missing = least / STEPS - _width((low, high))
        if missing > 0:
            widened[index] = (min(low, 0.0) - missing / 2, max(high, 0.0) + missing / 2)
    return widened


def _width(limits: Range) -> float:
    """The width of a range that includes zero, as every quantized one does."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)
