"""Which operators have an integer form in Lite Micro, and which tensors share a scale with them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.mask_fills import range_of_constant
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_int16 import (
    ACTIVATIONS,
    FIXED_SCALE,
    HEADROOM,
    LARGEST,
)

# Operators with one input whose output has the same scale.
MOVING = {
    *("RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "UNPACK"),
    *("EXPAND_DIMS", "SQUEEZE", "REVERSE_V2", "PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D"),
    *("BROADCAST_TO", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND"),
}
# Operators whose inputs and output must have one scale, with the positions of these inputs.
JOINING = {"PACK": None, "CONCATENATION": None, "SELECT_V2": (1, 2), "MAXIMUM": None}
JOINING["MINIMUM"] = None
# Operators that scale their result.
SCALING = {
    *("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"),
    *("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "MEAN", "SUM", "RELU", "LEAKY_RELU", "ABS", "RSQRT"),
}
# Operators that Lite Micro has in int8, but not in int16. The scale stays the same.
NARROW = {"REDUCE_MIN", "REDUCE_MAX"}
SUPPORTED = NARROW | MOVING | set(JOINING) | SCALING | FIXED_SCALE
BINARY = {"ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "BATCH_MATMUL"}
# Operators that have an integer form for some inputs only.
LOOKING = {"CAST", "GATHER", "CUMSUM", "FILL"}
# How a threshold in units of the scale becomes an integer, so that ``x < 2.5`` is ``n < 3``.
COMPARISONS: dict[str, Callable[[Array], Array]] = {
    "LESS": np.ceil,
    "GREATER_EQUAL": np.ceil,
    "GREATER": np.floor,
    "LESS_EQUAL": np.floor,
    "EQUAL": np.rint,
    "NOT_EQUAL": np.rint,
}
# By how much a threshold that is a multiple of the scale may differ from an integer: scales are
# float32.
ROUNDING = 0.01
# The largest count in int8.
MOST_COUNTED = 127


def has_integer_form(file: TFLiteFile, graph: Any, operator: Any) -> bool:
    """Whether an operator with float32 results has an integer form, if its ranges are known.

    Operators in a loop have one by their type, because written out they have other inputs.
    """
    kind = file.kind(operator)
    if graph is not file.main:
        return kind in SUPPORTED | LOOKING | {"QUANTIZE", "DEQUANTIZE", "DYNAMIC_UPDATE_SLICE"}
    source = graph.tensors[int(operator.inputs[0])] if len(operator.inputs) else None
    if kind == "CAST":
        return file.dtype(source) == "BOOL"
    if kind == "GATHER":
        return file.constant(source) is not None and not operator.builtinOptions.axis
    if kind == "CUMSUM":
        return _sums_truth(file, operator)
    # Operators of loops that are written out are not needed then.
    return kind in SUPPORTED | {"QUANTIZE", "DEQUANTIZE", "DYNAMIC_UPDATE_SLICE", "FILL"}


def _sums_truth(file: TFLiteFile, operator: Any) -> bool:
    """Whether a cumulative sum counts truth values, few enough for int8."""
    graph = file.main
    makers = {int(i): item for item in graph.operators for i in item.outputs}
    index = int(operator.inputs[0])
    few = max(map(int, graph.tensors[index].shape), default=0) <= MOST_COUNTED
    while index in makers and file.kind(makers[index]) in MOVING:
        index = int(makers[index].inputs[0])
    if not few or index not in makers or file.kind(makers[index]) != "CAST":
        return False
    return file.dtype(graph.tensors[int(makers[index].inputs[0])]) == "BOOL"


def positions(file: TFLiteFile, operator: Any) -> tuple[int, ...]:
    """The positions of an operator's inputs that are activations."""
    kind = file.kind(operator)
    if kind in JOINING:
        return JOINING[kind] or tuple(range(len(operator.inputs)))
    if kind in BINARY:
        return (0, 1)
    return ACTIVATIONS.get(kind, (0,))


def joined_ranges(file: TFLiteFile, ranges: Ranges) -> Ranges:
    """``ranges`` with one range for all tensors that must have one scale.

    A value that they are compared with is a multiple of this scale, see :func:`_with_step_at`.
    """
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.get(index, index) != index:
            index = parent[index]
        return index

    for operator in file.main.operators:
        kind = file.kind(operator)
        if kind in MOVING or kind in JOINING:
            first, *others = (
                *map(int, operator.outputs),
                *(int(operator.inputs[k]) for k in positions(file, operator)),
            )
            for other in others:
                parent[root(other)] = root(first)
    joined: dict[int, tuple[float, float]] = {}
    for index in {*ranges, *parent}:
        value = file.constant(file.main.tensors[index])
        known = ranges.get(index)
        if known is None and value is not None and value.dtype == np.float32:
            known = range_of_constant(value)
        if known is not None:
            low, high = joined.get(root(index), known)
            joined[root(index)] = min(low, known[0]), max(high, known[1])
    compared: set[int] = set()
    for index, threshold in _compared(file):
        group = root(index)
        if threshold and group in joined and group not in compared:
            joined[group] = _with_step_at(threshold, *joined[group])
            compared.add(group)
    return {index: joined[root(index)] for index in ranges}


def integer_threshold(kind: str, value: Array, scale: float) -> Array:
    """The integer that integers of this scale are compared with, by an operator of this type."""
    exact = np.asarray(value, np.float64) / scale
    nearest = np.rint(exact)
    is_integer = np.abs(exact - nearest) <= ROUNDING
    return np.where(is_integer, nearest, COMPARISONS[kind](exact))


def _compared(file: TFLiteFile) -> Iterator[tuple[int, float]]:
    """The real tensors that are compared with a constant, and this constant."""
    tensors = file.main.tensors
    for operator in file.main.operators:
        if file.kind(operator) in COMPARISONS:
            source, constant = map(int, operator.inputs)
            value = file.constant(tensors[constant])
            if file.dtype(tensors[source]) == "FLOAT32" and value is not None and value.size == 1:
                yield source, float(value.item())


def _with_step_at(value: float, low: float, high: float) -> tuple[float, float]:
    """A range of at least ``low`` to ``high``, of which ``value`` is an integer in int16.

    If it were between two integers, it would depend on the last digit of a quotient whether a
    program rounds it to the one that it is compared with. That of a padded step is often the
    largest magnitude, half of the largest int16, which is not an integer.
    """
    largest = max(abs(low), abs(high))
    steps = math.floor(abs(value) * LARGEST / (HEADROOM * largest)) if largest else 0
    if steps < 1:
        return low, high
    largest = abs(value) * LARGEST / (HEADROOM * steps)
    return (low, largest) if high >= -low else (-largest, high)
