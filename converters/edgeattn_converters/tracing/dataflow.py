"""Follows softmax weights through a traced graph to the data that they multiply.

The axis over which the weights are normalized is followed along, to know which axis of the data it
meets in a product.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.lowering.composed_operations import with_named_axes

_ELEMENTWISE = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "EnsureShape"),
    *("Tile", "BroadcastTo", "AddV2", "Add", "Maximum", "Minimum", "RealDiv", "ClipByValue"),
    *("Select", "SelectV2", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs"),
)
_PRODUCTS = ("Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_FUNCTIONS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If")
# The largest number of tensors to visit.
MAX_VISITED = 10_000


# Their results depend on the shape of a tensor, and not on its values.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


@dataclass(frozen=True)
class WeightedSum:
    """Data that is multiplied by weights; ``doubt`` is why this may not be attention.

    ``data`` are the tensors, none if a function that cannot be analyzed takes the weights.
    """

    doubt: str | None
    data: tuple[Any, ...] = ()


def find_weighted_sum(weights: Any, axis: int, lengths: Sequence[int] = ()) -> WeightedSum | None:
    """The data that ``weights``, normalized over ``axis``, multiply; ``None`` if there is none.

    ``lengths`` are the sequence lengths of the model's inputs.
    """
    waiting = [(weights, axis)]
    visited: set[str] = set()
    doubts: list[str] = []
    certain: list[Any] = []
    doubtful: list[Any] = []
    while waiting and len(visited) < MAX_VISITED:
        tensor, position = waiting.pop()
        if tensor.name in visited:
            continue
        visited.add(tensor.name)
        for operation in tensor.consumers():
            if operation.type in _FUNCTIONS:
                doubts.append("its weights are passed to a function that cannot be analyzed")
            elif operation.type in _PRODUCTS:
                doubt = _product(operation, tensor, position, lengths)
                if doubt is None:
                    continue
                partner = next(item for item in operation.inputs if item is not tensor)
                if doubt == "":
                    certain.append(partner)
                elif doubt == _MASK:
                    waiting.append((operation.outputs[0], position))
                else:
                    doubts.append(doubt)
                    doubtful.append(partner)
            else:
                moved = axis_behind(operation, tensor, position)
                if moved is not None:
                    waiting.append((operation.outputs[0], moved))
    if certain:
        return WeightedSum(None, tuple(certain))
    return WeightedSum(doubts[0], tuple(doubtful)) if doubts else None


_MASK = "a mask"


def _product(operation: Any, tensor: Any, axis: int, lengths: Sequence[int]) -> str | None:
    """ "" if a product weights a sequence, a doubt if it may, ``None`` if it does not."""
    others = [item for item in operation.inputs if item is not tensor]
    if len(others) != 1:
        return None  # a square
    other = others[0]
    rank = other.shape.rank
    if rank is None or not is_data(other):
        return _MASK if operation.type == "Mul" and not is_data(other) else None
    partner = _partner_axis(operation, tensor, axis, other)
    if partner is None:
        return None
    if operation.type == "Mul" and _is_mask(other):
        return _MASK
    size = other.shape[partner]
    if rank == 2:
        if size in lengths:
            return ""
        return f"it weights {size} values per sample, which are not an input sequence"
    if size not in lengths and partner != rank - 1 and _is_stacked(other):
        return f"it weights {size} stacked results, which may not be a sequence"
    return ""


def _partner_axis(operation: Any, tensor: Any, axis: int, other: Any) -> int | None:
    """The axis of ``other`` that ``axis`` of ``tensor`` meets in a product, if any."""
    size, rank = tensor.shape[axis], tensor.shape.rank
    left = operation.inputs[0] is tensor
    if operation.type == "Mul":
        partner = other.shape.rank - (rank - axis)
        return partner if partner >= 0 and other.shape[partner] == size and size != 1 else None
    if operation.type == "Einsum":
        return _partner_axis_in_einsum(operation, axis, left=left)
    flags = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    transposed, other_transposed = (
        operation.get_attr(flag) for flag in (flags if left else flags[::-1])
    )
    contracted = rank - 1 if left != transposed else rank - 2
    if axis != contracted:
        return None
    return int(other.shape.rank) - (2 if left != other_transposed else 1)


def _partner_axis_in_einsum(operation: Any, axis: int, *, left: bool) -> int | None:
    equation = operation.get_attr("equation")
    equation = equation.decode() if isinstance(equation, bytes) else equation
    equation = equation.replace(" ", "")
    shapes = [tuple(item.shape) for item in operation.inputs]
    equation = with_named_axes(equation, shapes) or equation
    terms = equation.split("->")[0].split(",")
    own, other = terms if left else terms[::-1]
    if "." in equation or len(own) <= axis:
        return None
    return other.index(own[axis]) if own[axis] in other else None


def axis_behind(operation: Any, tensor: Any, axis: int) -> int | None:
    """The position of ``axis`` in the result of an operation that moves data, if it remains."""
    import tensorflow as tf

    if not operation.outputs or operation.outputs[0].shape.rank is None:
        return None
    result, rank = operation.outputs[0], tensor.shape.rank
    kind = operation.type
    if kind in _ELEMENTWISE:
        others = [item for item in operation.inputs if item is not tensor]
        if kind in ("AddV2", "Add") and any(is_data(item) for item in others):
            return None
        position = result.shape.rank - (rank - axis)
        same = position >= 0 and result.shape[position] == tensor.shape[axis]
        return position if same else None
    if kind == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        return _axis_by_size(tensor, axis, result) if order is None else list(order).index(axis)
    if kind == "ExpandDims":
        inserted = tf.get_static_value(operation.inputs[1])
        return None if inserted is None else axis + (int(inserted) % (rank + 1) <= axis)
    if kind == "Squeeze":
        removed = [a % rank for a in operation.get_attr("squeeze_dims")]
        removed = removed or [k for k, size in enumerate(tensor.shape) if size == 1]
        return None if axis in removed else axis - sum(a < axis for a in removed)
    if kind in ("Mean", "Sum", "Max"):
        axes = tf.get_static_value(operation.inputs[1])
        if axes is None or operation.inputs[0] is not tensor:
            return None
        removed = [int(a) % rank for a in axes.reshape(-1)]
        if axis in removed:
            return None
        return axis if operation.get_attr("keep_dims") else axis - sum(a < axis for a in removed)
    if kind in ("Reshape", "StridedSlice", "GatherV2", "Pack", "ConcatV2"):
        return _axis_by_size(tensor, axis, result)
    return None


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


def _is_mask(tensor: Any) -> bool:
    """Whether a tensor is computed from booleans."""
    operation = tensor.op
    while operation.type in ("Identity", "ExpandDims", "Squeeze", "Reshape", "Transpose", "Cast"):
        if operation.type == "Cast" and operation.inputs[0].dtype.name == "bool":
            return True
        operation = operation.inputs[0].op
    return bool(tensor.dtype.name == "bool")


def _is_stacked(tensor: Any) -> bool:
    """Whether a tensor is several results stacked, and not a sequence to begin with."""
    operation = tensor.op
    while operation.type in ("Identity", "ExpandDims", "Reshape", "Transpose", "Cast"):
        operation = operation.inputs[0].op
    return operation.type in ("Pack", "ConcatV2")


def is_data(tensor: Any) -> bool:
    """Whether a tensor depends on the model's inputs, and not on weights alone."""
    import tensorflow as tf

    if tf.executing_eagerly() or not hasattr(tensor, "op"):
        return False
    return next(_placeholders(tensor), None) is not None


def inputs_with_values_in(tensors: Sequence[Any]) -> set[str]:
    """The names of the placeholders on whose values, and not only shapes, ``tensors`` depend."""
    return {name for tensor in tensors for name in _placeholders(tensor, _SHAPES)}


def _placeholders(tensor: Any, ignored: Sequence[str] = ()) -> Iterator[str]:
    """The names of the placeholders of data behind ``tensor``, without ``ignored`` operations."""
    import tensorflow as tf

    waiting, visited = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in visited or operation.type in ignored:
            continue
        visited.add(operation.name)
        # Weights enter a function as placeholders too, of type resource.
        if operation.type == "Placeholder" and operation.outputs[0].dtype != tf.resource:
            yield str(operation.name)
        waiting.extend(source.op for source in operation.inputs)
