"""Where the axes of a tensor are in the result of an operation that moves data."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Axes = tuple[int, ...]

# Results with the axes of the operands, aligned from the last.
_ALIGNED = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "EnsureShape"),
    *("Tile", "BroadcastTo", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs"),
    "Split",
)
_BY_SIZE = ("Reshape", "StridedSlice", "GatherV2", "Pack", "ConcatV2")
REDUCTIONS = ("Mean", "Sum", "Max", "Min")


def axes_behind(operation: Any, tensor: Any, axes: Axes) -> Axes | None:
    """The positions of ``axes`` in the result, if all remain; a reshape may split or join them."""
    if operation.type == "Reshape":
        moved = _reshaped(tensor.shape, axes, operation.outputs[0].shape)
        if moved is not None:
            return moved
    positions = [axis_behind(operation, tensor, axis) for axis in axes]
    known = [position for position in positions if position is not None]
    return tuple(known) if len(set(known)) == len(axes) else None


def axis_behind(operation: Any, tensor: Any, axis: int) -> int | None:
    """The position of ``axis`` in the result of an operation that moves data, if it remains."""
    if not operation.outputs or operation.outputs[0].shape.rank is None:
        return None
    result, rank = operation.outputs[0], tensor.shape.rank
    kind = operation.type
    if kind in _ALIGNED:
        return aligned_axis(tensor, axis, result)
    if kind == "Transpose":
        order = static_value(operation.inputs[1])
        if order is None:
            # Of several axes of that size, none is known to be it.
            is_one = list(result.shape).count(tensor.shape[axis]) == 1
            return _axis_by_size(tensor, axis, result) if is_one else None
        return [int(a) % rank for a in order].index(axis)
    if kind == "ExpandDims":
        inserted = static_value(operation.inputs[1])
        return None if inserted is None else axis + (int(inserted) % (rank + 1) <= axis)
    if kind == "Squeeze":
        squeezed = [a % rank for a in operation.get_attr("squeeze_dims")]
        squeezed = squeezed or [k for k, size in enumerate(tensor.shape) if size == 1]
        return None if axis in squeezed else axis - sum(a < axis for a in squeezed)
    if kind == "Unpack":
        removed = operation.get_attr("axis") % rank
        return None if axis == removed else axis - (removed < axis)
    if kind in REDUCTIONS:
        return _axis_behind_reduction(operation, tensor, axis)
    if kind == "StridedSlice" and not any(
        operation.get_attr(mask) for mask in ("shrink_axis_mask", "new_axis_mask")
    ):
        return axis  # a part of the positions, if the size differs
    return _axis_by_size(tensor, axis, result) if kind in _BY_SIZE else None


def aligned_axis(tensor: Any, axis: int, other: Any) -> int | None:
    """The axis of ``other`` that ``axis`` meets if the last axes are aligned, if of equal size."""
    position = int(other.shape.rank) - (int(tensor.shape.rank) - axis)
    same = position >= 0 and other.shape[position] == tensor.shape[axis]
    return position if same else None


def _axis_behind_reduction(operation: Any, tensor: Any, axis: int) -> int | None:
    reduced = static_value(operation.inputs[1])
    if reduced is None or operation.inputs[0] is not tensor:
        return None
    removed = [int(a) % tensor.shape.rank for a in reduced.reshape(-1)]
    if axis in removed:
        return None
    return axis if operation.get_attr("keep_dims") else axis - sum(a < axis for a in removed)


def static_value(tensor: Any) -> Any:
    """The value of a tensor that depends on constants and known ranks alone, None if unknown.

    TensorFlow itself does not subtract, as in the order of the axes of a softmax over an axis
    other than the last.
    """
    import tensorflow as tf

    value = tf.get_static_value(tensor)
    kind = tensor.op.type
    if value is not None or kind not in _FOLDED:
        return value
    operands = [static_value(item) for item in tensor.op.inputs]
    return None if any(item is None for item in operands) else _FOLDED[kind](*operands)


_FOLDED: dict[str, Callable[..., Any]] = {
    "Sub": np.subtract,
    "AddV2": np.add,
    "FloorMod": np.mod,
    "Range": np.arange,
    "Pack": lambda *items: np.stack(items),
    "ConcatV2": lambda *items: np.concatenate(items[:-1], int(items[-1])),
}


def _reshaped(before: Any, axes: Axes, after: Any) -> Axes | None:
    """The axes of ``after`` whose elements are those of ``axes``, None if there are none."""
    if before.rank is None or after.rank is None:
        return None
    sources = [k for k in axes if before[k] != 1]
    spans = [_span(before, axis) for axis in sources]
    if not spans or any(span is None for span in spans):
        return None
    joined: list[tuple[int, int]] = []
    for low, high in sorted(span for span in spans if span is not None):
        if joined and joined[-1][1] == low:
            low = joined.pop()[0]
        joined.append((low, high))
    result = []
    for position in range(1, after.rank):
        span = _span(after, position)
        if span is None or span[0] == span[1]:
            continue
        if any(low <= span[0] and span[1] <= high for low, high in joined):
            result.append(position)
    same = math.prod(after[k] for k in result) == math.prod(before[k] for k in sources)
    return tuple(result) if same else None


def _span(shape: Any, axis: int) -> tuple[int, int] | None:
    """The numbers of elements of a step along ``axis`` and of the whole axis."""
    sizes: Sequence[int | None] = shape.as_list()[axis:]
    known = [size for size in sizes if size is not None]
    if len(known) != len(sizes):
        return None
    return math.prod(known[1:]), math.prod(known)


def _axis_by_size(tensor: Any, axis: int, result: Any) -> int | None:
    """The axis of ``result`` with the size of ``axis``, and as many elements behind it if any."""
    size = tensor.shape[axis]
    candidates = [k for k, other in enumerate(result.shape) if other == size and k > 0]
    if size is None or not candidates:
        return None

    def elements_behind(shape: Any, position: int) -> float:
        return math.prod(1 if item is None else int(item) for item in shape[position + 1 :])

    behind = elements_behind(tensor.shape, axis)
    exact = [k for k in candidates if elements_behind(result.shape, k) == behind]
    return (exact or candidates)[0]
