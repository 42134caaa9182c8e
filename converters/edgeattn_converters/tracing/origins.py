"""What tensors of a traced graph are computed from."""

from collections.abc import Sequence
from typing import Any

from edgeattn_converters.graphs.data_sources import is_data, operations_behind, placeholders
from edgeattn_converters.tracing.axes import REDUCTIONS, static_value
from edgeattn_converters.tracing.softmax_forms import normalizations_of
from edgeattn_converters.tracing.step_stacks import has_steps, steps_of
from edgeattn_converters.tracing.weight_functions import POSITIVE

# Their results depend on the shape of a tensor, and not on its values.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
_MOVES = (
    *("Identity", "ExpandDims", "Squeeze", "Reshape", "Transpose", "Cast", "StridedSlice"),
    *("Tile", "BroadcastTo"),
)
# Operations whose result is weights if their first operand is, and those of which all must be.
_KEEP_WEIGHTS = (
    *(*_MOVES, *REDUCTIONS, "StopGradient"),
    *("RealDiv", "DivNoNan", "Pow", "Square", "Sqrt", "Relu"),
)
_NEED_WEIGHTS = ("Add", "AddV2", "Sub", "AddN", "Maximum", "Minimum")
_MATRICES = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_GATES = ("Sigmoid", "Softmax")
_MAX_STEPS = 12


def inputs_with_values_in(tensors: Sequence[Any]) -> set[str]:
    """The names of the placeholders on whose values, and not only shapes, ``tensors`` depend."""
    return {name for tensor in tensors for name in placeholders(tensor, _SHAPES)}


def depends_on(tensor: Any, source: Any) -> bool:
    """Whether the values of ``tensor`` are computed from those of ``source``."""
    return any(operation is source.op for operation in operations_behind(tensor, _SHAPES))


def needed_for(tensors: Sequence[Any]) -> set[str]:
    """The names of the operations on whose values, and not only shapes, ``tensors`` depend."""
    return {
        operation.name for tensor in tensors for operation in operations_behind(tensor, _SHAPES)
    }


def is_mask(tensor: Any, *, of_integers: bool = False) -> bool:
    """Whether a tensor is computed from booleans, or from integers if ``of_integers``."""

    def has_type(tensor: Any) -> bool:
        return bool(tensor.dtype.is_bool or (of_integers and tensor.dtype.is_integer))

    operation = tensor.op
    while operation.type in _MOVES:
        if operation.type == "Cast" and has_type(operation.inputs[0]):
            return True
        operation = operation.inputs[0].op
    return has_type(tensor)


def is_non_negative(tensor: Any) -> bool:
    """Whether the operation that computes a tensor has no negative results."""
    return _is_of(tensor, (*POSITIVE, "Softmax"))


def _is_of(tensor: Any, kinds: Sequence[str]) -> bool:
    """Whether a tensor is moved from the result of an operation of these kinds, or ``1 -`` a
    sigmoid."""
    operation = tensor.op
    while operation.type in _MOVES:
        operation = operation.inputs[0].op
    if operation.type == "Sub":
        return not is_data(operation.inputs[0]) and operation.inputs[1].op.type == "Sigmoid"
    return operation.type in kinds


def is_weights(tensor: Any, steps: int = _MAX_STEPS) -> bool:
    """Whether a tensor is a softmax, or computed from softmaxes by what changes weights."""
    operation = tensor.op
    if normalizations_of(operation):
        return True
    if not steps:
        return False
    operands = list(operation.inputs)
    if operation.type in _KEEP_WEIGHTS:
        return is_weights(operands[0], steps - 1)
    if operation.type == "Mul":
        return any(
            is_weights(weights, steps - 1) and _leaves_weights(weights, factor, tensor, steps - 1)
            for weights, factor in (operands, operands[::-1])
        )
    data = [item for item in operands if is_data(item)]
    if operation.type in _MATRICES and len(data) < 2:
        return False  # features, for example
    if operation.type not in (*_NEED_WEIGHTS, *_MATRICES):
        return False
    return bool(data) and all(is_weights(item, steps - 1) for item in data)


def _leaves_weights(weights: Any, factor: Any, product: Any, steps: int) -> bool:
    """Whether the product of weights and a factor is weights, and not weighted data."""
    if not is_data(factor) or is_mask(factor) or _is_of(factor, _GATES):
        return True
    if weights.shape.rank is None or factor.shape.rank is None or product.shape.rank is None:
        return False
    same = weights.shape.as_list()[1:] == product.shape.as_list()[1:]
    # Or the factor is one for all keys.
    return same and (factor.shape[-1] == 1 or is_weights(factor, steps))


def is_stacked(tensor: Any, axis: int) -> bool:
    """Whether ``axis`` of a tensor has several results stacked, not the steps of a sequence.

    Joining features, as ``Bidirectional`` does, leaves the other axes what they are. The results
    of an unrolled recurrence are steps, those of a layer at every position what these were.
    """
    position: int | None = axis
    is_of_layer = False
    while True:
        operation = tensor.op
        kind = operation.type
        if kind in ("Pack", "ConcatV2"):
            joined = _joined_axis(operation)
            if None in (position, joined):
                return True
            if position == joined:
                steps = steps_of(operation)
                if steps is None or steps.is_recurrence:
                    return steps is None
                tensor, position, is_of_layer = steps.sequence, steps.axis, True
                continue
            if kind == "Pack":
                position -= position > joined  # type: ignore[operator]
        elif is_of_layer and kind not in ("Transpose", "ExpandDims", "Identity", "Cast"):
            return position is None or not has_steps(tensor, position)
        elif kind == "Reshape":
            position = None  # which axis it was is unknown
        elif kind == "Transpose" and position is not None:
            order = static_value(operation.inputs[1])
            position = None if order is None else int(order[position]) % len(order)
        elif kind == "ExpandDims" and position is not None:
            inserted = static_value(operation.inputs[1])
            inserted = None if inserted is None else int(inserted) % tensor.shape.rank
            if inserted == position:
                return False
            position = None if inserted is None else position - (position > inserted)
        elif kind not in ("Identity", "Cast"):
            return False
        tensor = operation.inputs[0]


def _joined_axis(operation: Any) -> int | None:
    """The axis of its result along which an operation joins tensors, None if it is unknown."""
    rank = operation.outputs[0].shape.rank
    if operation.type == "Pack":
        axis = operation.get_attr("axis")
    else:
        axis = static_value(operation.inputs[-1])
    return None if axis is None or rank is None else int(axis) % rank
