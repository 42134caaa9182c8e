"""What weights go to: followed through a traced graph, with the axis they are normalised over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SAME = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "EnsureShape"),
    *("Tile", "BroadcastTo", "AddV2", "Add", "Maximum", "Minimum", "RealDiv", "ClipByValue"),
    *("Select", "SelectV2"),
)
_PRODUCTS = ("Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_FUNCTIONS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If")
# A graph is not searched without end.
MOST = 10_000


@dataclass(frozen=True)
class Weighed:
    """Data that is multiplied by weights; ``doubt`` says why that may be no attention."""

    doubt: str | None


def weighed_by(weights: Any, axis: int, lengths: Sequence[int] = ()) -> Weighed | None:
    """What ``weights``, normalised over ``axis``, multiply; None where they multiply no data.

    ``lengths`` are those of the model's sequences.
    """
    waiting = [(weights, axis)]
    seen: set[str] = set()
    doubts: list[str] = []
    while waiting and len(seen) < MOST:
        tensor, where = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        for operation in tensor.consumers():
            if operation.type in _FUNCTIONS:
                doubts.append("its weights go into a function that cannot be looked into")
            elif operation.type in _PRODUCTS:
                doubt = _product(operation, tensor, where, lengths)
                if doubt is None:
                    continue
                if doubt == "":
                    return Weighed(None)
                if doubt == _MASK:
                    waiting.append((operation.outputs[0], where))
                else:
                    doubts.append(doubt)
            else:
                moved = _moved(operation, tensor, where)
                if moved is not None:
                    waiting.append((operation.outputs[0], moved))
    return Weighed(doubts[0]) if doubts else None


_MASK = "a mask"


def _product(operation: Any, tensor: Any, axis: int, lengths: Sequence[int]) -> str | None:
    """ "" where data with positions is weighed, a doubt where it may be, None where none is."""
    others = [item for item in operation.inputs if item is not tensor]
    if len(others) != 1:
        return None  # multiplied by itself
    other = others[0]
    rank = other.shape.rank
    if rank is None or not is_data(other):
        return _MASK if operation.type == "Mul" and not is_data(other) else None
    there = _meets(operation, tensor, axis, other)
    if there is None:
        return None
    if operation.type == "Mul" and _is_mask(other):
        return _MASK
    size = other.shape[there]
    if rank == 2:
        if size in lengths:
            return ""
        return f"it weighs {size} numbers of a sample, which are no sequence that the model takes"
    if size not in lengths and there != rank - 1 and _put_together(other):
        return f"it weighs {size} results that are put side by side, which may be no sequence"
    return ""


def _meets(operation: Any, tensor: Any, axis: int, other: Any) -> int | None:
    """The axis of ``other`` that the weights' ``axis`` meets in a product; None where none."""
    size, rank = tensor.shape[axis], tensor.shape.rank
    left = operation.inputs[0] is tensor
    if operation.type == "Mul":
        there = other.shape.rank - (rank - axis)
        return there if there >= 0 and other.shape[there] == size and size != 1 else None
    if operation.type == "Einsum":
        return _meets_in_einsum(operation, axis, left=left)
    flags = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    turned, other_turned = (operation.get_attr(flag) for flag in (flags if left else flags[::-1]))
    contracted = rank - 1 if left != turned else rank - 2
    if axis != contracted:
        return None
    return int(other.shape.rank) - (2 if left != other_turned else 1)


def _meets_in_einsum(operation: Any, axis: int, *, left: bool) -> int | None:
    equation = operation.get_attr("equation")
    equation = equation.decode() if isinstance(equation, bytes) else equation
    terms = equation.replace(" ", "").split("->")[0].split(",")
    mine, its = terms if left else terms[::-1]
    if "." in equation or len(mine) <= axis:
        return None
    return its.index(mine[axis]) if mine[axis] in its else None


def _moved(operation: Any, tensor: Any, axis: int) -> int | None:
    """Where ``axis`` is behind an operation that only moves ``tensor`` about; None where lost."""
    import tensorflow as tf

    if not operation.outputs or operation.outputs[0].shape.rank is None:
        return None
    result, rank = operation.outputs[0], tensor.shape.rank
    kind = operation.type
    if kind in _SAME:
        others = [item for item in operation.inputs if item is not tensor]
        if kind in ("AddV2", "Add") and any(is_data(item) for item in others):
            return None
        there = result.shape.rank - (rank - axis)
        return there if there >= 0 and result.shape[there] == tensor.shape[axis] else None
    if kind == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        return _by_size(tensor, axis, result) if order is None else int(list(order).index(axis))
    if kind == "ExpandDims":
        place = tf.get_static_value(operation.inputs[1])
        if place is None:
            return None
        return axis + (int(place) % (rank + 1) <= axis)
    if kind == "Squeeze":
        gone = [a % rank for a in operation.get_attr("squeeze_dims")]
        gone = gone or [k for k, size in enumerate(tensor.shape) if size == 1]
        return None if axis in gone else axis - sum(a < axis for a in gone)
    if kind in ("Mean", "Sum", "Max"):
        axes = tf.get_static_value(operation.inputs[1])
        if axes is None or operation.inputs[0] is not tensor:
            return None
        gone = [int(a) % rank for a in axes.reshape(-1)]
        if axis in gone:
            return None
        return axis if operation.get_attr("keep_dims") else axis - sum(a < axis for a in gone)
    if kind in ("Reshape", "StridedSlice", "GatherV2", "Pack", "ConcatV2"):
        return _by_size(tensor, axis, result)
    return None


def _by_size(tensor: Any, axis: int, result: Any) -> int | None:
    """The axis of ``result`` that has the size of ``tensor``'s and as much behind it."""
    size = tensor.shape[axis]
    same = [k for k, found in enumerate(result.shape) if found == size and k > 0]
    if size is None or not same:
        return None

    def behind(shape: Any, place: int) -> float:
        return math.prod(1 if item is None else int(item) for item in shape[place + 1 :])

    alike = [k for k in same if behind(result.shape, k) == behind(tensor.shape, axis)]
    return (alike or same)[0]


def _is_mask(tensor: Any) -> bool:
    """Whether a tensor is made of true and false, and not of numbers."""
    operation = tensor.op
    while operation.type in ("Identity", "ExpandDims", "Squeeze", "Reshape", "Transpose", "Cast"):
        if operation.type == "Cast" and operation.inputs[0].dtype.name == "bool":
            return True
        operation = operation.inputs[0].op
    return bool(tensor.dtype.name == "bool")


def _put_together(tensor: Any) -> bool:
    """Whether a tensor is several results stacked, and not a sequence from its beginning."""
    operation = tensor.op
    while operation.type in ("Identity", "ExpandDims", "Reshape", "Transpose", "Cast"):
        operation = operation.inputs[0].op
    return operation.type in ("Pack", "ConcatV2")


def is_data(tensor: Any) -> bool:
    """Whether its values come from the model's inputs, and not from weights alone."""
    import tensorflow as tf

    if tf.executing_eagerly() or not hasattr(tensor, "op"):
        return False
    waiting, seen = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        # Weights come into a function as placeholders too, of their handles.
        if operation.type == "Placeholder" and operation.outputs[0].dtype != tf.resource:
            return True
        if operation.name not in seen:
            seen.add(operation.name)
            waiting.extend(source.op for source in operation.inputs)
    return False
