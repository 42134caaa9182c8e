"""One range for what the unrolled steps of a recurrence have in common.

Each step has tensors of its own. In a few hundred samples, the first steps of most sequences see
small values only, and a larger one in another sequence would be clipped.
"""

from collections.abc import Hashable
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.float_operators import layer_pattern
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.ranges import Ranges

# How many operators back two tensors must agree to have the same role in their steps.
DEPTH = 2
SELECTIONS = {"SELECT", "SELECT_V2"}


def share_step_ranges(file: TFLiteFile, ranges: Ranges, layers: tuple[str, ...]) -> Ranges:
    """``ranges`` with those of tensors with the same role in the steps of one layer joined.

    ``layers`` are the recurrent layers, which the names of tensors contain.
    """
    if not layers:
        return ranges
    inside = layer_pattern(layers)
    graph = file.main
    makers = {
        int(index): (operator, position)
        for operator in graph.operators
        for position, index in enumerate(operator.outputs)
    }

    def role(index: int, depth: int = DEPTH) -> Hashable:
        if index not in makers:
            return index
        operator, position = makers[index]
        kind = file.kind(operator)
        if kind == "SPLIT":
            return kind, position  # a gate
        if kind in SELECTIONS and depth < DEPTH:
            return "SELECT"  # a state that a mask keeps, in the first step a constant
        inputs = [int(i) for i in operator.inputs if int(i) >= 0]
        if depth < DEPTH:
            # The first cell is a product, the others are sums.
            kind = "MUL" if kind == "ADD" else kind
        return (kind, *(role(i, depth - 1) for i in inputs)) if depth else None

    groups: dict[Hashable, list[int]] = {}
    for index in ranges:
        match = inside.search(file.name(graph.tensors[index]))
        if match and index in makers:
            key = (match[1], _shape(graph.tensors[index]), role(index))
            groups.setdefault(key, []).append(index)
    joined: dict[int, Range] = dict(ranges)
    for members in groups.values():
        low, high = (pick(ranges[i][end] for i in members) for end, pick in ((0, min), (1, max)))
        joined.update(dict.fromkeys(members, (low, high)))
    return joined


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(axis) for axis in tensor.shape)
