"""Inputs whose values select one of several branches, with the number of these.

Generated samples of other integers are 0 and 1, which would leave the further branches unused.
"""

from collections.abc import Sequence
from typing import Any

# Operations that pass an index on, limit it, or shift it by a constant.
_PASSED = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StridedSlice", "GatherV2"}
    | {"Minimum", "Maximum", "ClipByValue", "FloorMod", "AddV2", "Sub"}
)


def branch_counts(switches: Sequence[tuple[Any, int]], inputs: Sequence[Any]) -> dict[int, int]:
    """The number of branches by the position of an input.

    ``switches`` are indices with the number of their branches, ``inputs`` the placeholders of the
    traced graph. Indices inside loops and those that are results of other computations are left
    out.
    """
    positions = {tensor.op: position for position, tensor in enumerate(inputs)}
    counts: dict[int, int] = {}
    for index, count in switches:
        operation = index.op
        while operation.type in _PASSED:
            operation = operation.inputs[0].op
        position = positions.get(operation)
        if position is not None:
            counts[position] = max(count, counts.get(position, 0))
    return counts
