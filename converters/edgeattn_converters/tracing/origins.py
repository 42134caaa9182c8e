"""What tensors of a traced graph are computed from."""

from collections.abc import Iterator, Sequence
from typing import Any

from edgeattn_converters.tracing.axes import REDUCTIONS
from edgeattn_converters.tracing.softmax_forms import softmax_of

# Their results depend on the shape of a tensor, and not on its values.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
_NON_NEGATIVE = ("Sigmoid", "Softmax", "Softplus", "Exp", "Relu", "Relu6", "Abs", "Square")
_MOVES = ("Identity", "ExpandDims", "Squeeze", "Reshape", "Transpose", "Cast")
# Operations whose result is weights if an operand is, and those of which all operands must be.
_KEEP_WEIGHTS = (
    *(*_MOVES, *REDUCTIONS, "StopGradient", "StridedSlice", "Tile", "BroadcastTo", "Split"),
    *("Mul", "RealDiv", "DivNoNan", "Pow", "Square", "Sqrt", "Maximum", "Minimum", "Relu"),
)
_NEED_WEIGHTS = (
    "Add",
    "AddV2",
    "Sub",
    "AddN",
    "MatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Einsum",
)
_MAX_STEPS = 12


def is_data(tensor: Any) -> bool:
    """Whether a tensor depends on the model's inputs, and not on weights alone."""
    import tensorflow as tf

    if tf.executing_eagerly() or not hasattr(tensor, "op"):
        return False
    return next(_placeholders(tensor), None) is not None


def inputs_with_values_in(tensors: Sequence[Any]) -> set[str]:
    """The names of the placeholders on whose values, and not only shapes, ``tensors`` depend."""
    return {name for tensor in tensors for name in _placeholders(tensor, _SHAPES)}


def depends_on(tensor: Any, source: Any) -> bool:
    """Whether the values of ``tensor`` are computed from those of ``source``."""
    return any(operation is source.op for operation in _operations_behind(tensor, _SHAPES))


def is_mask(tensor: Any) -> bool:
    """Whether a tensor is computed from booleans."""
    operation = tensor.op
    while operation.type in _MOVES:
        if operation.type == "Cast" and operation.inputs[0].dtype.name == "bool":
            return True
        operation = operation.inputs[0].op
    return bool(tensor.dtype.name == "bool")


def is_non_negative(tensor: Any) -> bool:
    """Whether the operation that computes a tensor has no negative results."""
    operation = tensor.op
    while operation.type in _MOVES:
        operation = operation.inputs[0].op
    if operation.type == "Sub":
        # 1 - sigmoid(x)
        return not is_data(operation.inputs[0]) and operation.inputs[1].op.type == "Sigmoid"
    return operation.type in _NON_NEGATIVE


def is_weights(tensor: Any, steps: int = _MAX_STEPS) -> bool:
    """Whether a tensor is a softmax, or computed from softmaxes by what changes weights."""
    operation = tensor.op
    if softmax_of(operation) is not None:
        return True
    if not steps or operation.type not in (*_KEEP_WEIGHTS, *_NEED_WEIGHTS):
        return False
    found = [is_weights(item, steps - 1) for item in operation.inputs if is_data(item)]
    return bool(found) and (any(found) if operation.type in _KEEP_WEIGHTS else all(found))


def is_stacked(tensor: Any) -> bool:
    """Whether a tensor is several results stacked, and not a sequence to begin with."""
    operation = tensor.op
    while operation.type in ("Identity", "ExpandDims", "Reshape", "Transpose", "Cast"):
        operation = operation.inputs[0].op
    return operation.type in ("Pack", "ConcatV2")


def _placeholders(tensor: Any, ignored: Sequence[str] = ()) -> Iterator[str]:
    """The names of the placeholders of data behind ``tensor``, without ``ignored`` operations."""
    import tensorflow as tf

    for operation in _operations_behind(tensor, ignored):
        # Weights enter a function as placeholders too, of type resource.
        if operation.type == "Placeholder" and operation.outputs[0].dtype != tf.resource:
            yield str(operation.name)


def _operations_behind(tensor: Any, ignored: Sequence[str] = ()) -> Iterator[Any]:
    waiting, visited = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in visited or operation.type in ignored:
            continue
        visited.add(operation.name)
        yield operation
        waiting.extend(source.op for source in operation.inputs)
