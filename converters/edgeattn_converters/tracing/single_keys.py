"""Weights that are taken apart: each multiplies a value of its own, and the products are added."""

from collections.abc import Iterator
from typing import Any

from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.tracing.axes import Axes, static_value
from edgeattn_converters.tracing.origins import is_mask, is_weights

_MOVES = (
    *("Identity", "StopGradient", "Cast", "ExpandDims", "Squeeze", "Reshape", "Transpose"),
    *("Tile", "BroadcastTo"),
)
_MAX_VISITED = 50


def takes_one_key(operation: Any, tensor: Any, axes: Axes) -> bool:
    """Whether the results have a single element of ``tensor`` along one of ``axes``."""
    sizes = tensor.shape.as_list()
    return any(sizes[axis] != 1 and _takes_one(operation, tensor, axis) for axis in axes)


def _takes_one(operation: Any, tensor: Any, axis: int) -> bool:
    kind, rank = operation.type, int(tensor.shape.rank)
    if kind == "Unpack":
        return bool(operation.get_attr("axis") % rank == axis)
    if kind == "GatherV2":
        indices, along = operation.inputs[1], static_value(operation.inputs[2])
        is_own = operation.inputs[0] is tensor and along is not None and along % rank == axis
        return is_own and indices.shape.rank is not None and indices.shape.num_elements() == 1
    if kind == "StridedSlice" and axis in _removed_axes(operation, rank):
        return True
    if kind in ("Split", "SplitV", "StridedSlice"):
        shapes = [item.shape for item in operation.outputs]
        return all(shape.rank == rank and shape[axis] == 1 for shape in shapes)
    return False


def _removed_axes(operation: Any, rank: int) -> set[int]:
    """The axes of which a slice takes one element each, and which its result lacks."""
    count = int(operation.inputs[1].shape[0])
    masks = {
        name: operation.get_attr(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis")
    }
    removed, axis = set(), 0
    for k in range(count):
        bit = 1 << k
        if masks["ellipsis"] & bit:
            behind = sum(not masks["new_axis"] & (1 << j) for j in range(k + 1, count))
            axis = rank - behind
        elif not masks["new_axis"] & bit:
            if masks["shrink_axis"] & bit:
                removed.add(axis)
            axis += 1
    return removed


def multiplied_values(operation: Any, *, constants: bool = False) -> Iterator[Any]:
    """The data that the single weights in the results of ``operation`` multiply.

    With ``constants``, those that have more axes than that of the samples are data, too.
    """
    waiting, visited = list(operation.outputs), 0
    while waiting and visited < _MAX_VISITED:
        tensor = waiting.pop()
        for user in dict.fromkeys(tensor.consumers()):
            visited += 1
            if user.type in _MOVES:
                waiting.extend(user.outputs)
            elif user.type == "Mul":
                for other in user.inputs:
                    # A mask or a gate of weights is no value.
                    is_value = other is not tensor and (
                        is_data(other) or (constants and (other.shape.rank or 0) > 1)
                    )
                    if is_value and not is_mask(other) and not is_weights(other):
                        yield other
