"""Which axes two operands of a product share, and which remain in the result."""

from typing import Any

from edgeattn_converters.lowering.composed_operations import with_named_axes
from edgeattn_converters.tracing.axes import Axes, aligned_axis

PRODUCTS = ("Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")


def partner_axes(operation: Any, position: int, axes: Axes) -> Axes | None:
    """The axes of the other operand that ``axes`` of the operand at ``position`` meet, if all do.

    Axes meet if a product of matrices sums along them, or if elements along both are multiplied.
    """
    met = [_partner_axis(operation, position, axis) for axis in axes]
    known = [axis for axis in met if axis is not None]
    return tuple(known) if len(known) == len(axes) else None


def kept_axes(operation: Any, position: int, tracked: Any) -> list[Axes | None]:
    """For all axes of tracked weights, where they are in the result of a product of matrices."""
    return [
        _all(tuple(_kept_axis(operation, position, axis) for axis in own))
        for own, _ in tracked.axes
    ]


def _all(axes: tuple[int | None, ...]) -> Axes | None:
    known = tuple(axis for axis in axes if axis is not None)
    return known if len(known) == len(axes) else None


def _partner_axis(operation: Any, position: int, axis: int) -> int | None:
    tensor, other = operation.inputs[position], operation.inputs[1 - position]
    if operation.type == "Mul":
        return aligned_axis(tensor, axis, other) if tensor.shape[axis] != 1 else None
    if operation.type == "Einsum":
        own, partner, _ = _einsum_terms(operation, position)
        return partner.find(own[axis]) if axis < len(own) and own[axis] in partner else None
    if axis != _contracted(operation, position):
        return None
    return _contracted(operation, 1 - position)


def _kept_axis(operation: Any, position: int, axis: int) -> int | None:
    rank, result = operation.inputs[position].shape.rank, operation.outputs[0].shape.rank
    if operation.type == "Einsum":
        own, _, target = _einsum_terms(operation, position)
        return target.find(own[axis]) if axis < len(own) and own[axis] in target else None
    if result is None or axis == _contracted(operation, position):
        return None
    if axis < rank - 2:
        return int(result - (rank - axis))
    return int(result) - (2 if position == 0 else 1)


def _contracted(operation: Any, position: int) -> int:
    """The axis of an operand along which a product of matrices sums."""
    flags = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    transposed = operation.get_attr(flags[position])
    first = position == 0
    return int(operation.inputs[position].shape.rank) - (1 if first != transposed else 2)


def _einsum_terms(operation: Any, position: int) -> tuple[str, str, str]:
    """The letters of the axes of an operand, of the other one and of the result.

    Empty if the axes that the equation leaves out are unknown.
    """
    equation = operation.get_attr("equation")
    equation = equation.decode() if isinstance(equation, bytes) else equation
    equation = equation.replace(" ", "")
    shapes = [tuple(item.shape) for item in operation.inputs]
    equation = with_named_axes(equation, shapes) or equation
    terms, _, target = equation.partition("->")
    if "." in equation:
        return "", "", ""
    operands = terms.split(",")
    return operands[position], operands[1 - position], target
