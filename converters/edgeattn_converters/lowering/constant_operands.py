"""Constants that the TFLite converter would move to the other side of their operator.

The converter moves transposes behind elementwise operators, and loses the order of the operands if
one of them is constant: ``c - transpose(x)`` becomes ``transpose(x - c)``, and a division likewise.
It does so if the constant is a scalar or has as many axes as the tensor. The constants are given
another number of axes here, which changes no result and adds no operator.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from edgeattn_converters.graphs.operation_creation import Creation, created_by

_NOT_COMMUTATIVE = frozenset(
    {"Sub", "RealDiv", "Div", "DivNoNan", "FloorDiv", "TruncateDiv", "FloorMod", "Mod"}
    | {"TruncateMod", "Pow", "Xdivy", "Xlogy", "Xlog1py", "LeftShift", "RightShift"}
    | {"Less", "LessEqual", "Greater", "GreaterEqual"}
)
# The converter turns these into 1 / x and, for a negated summand, into c - x.
_RECIPROCALS, _SUMS = ("Reciprocal", "Inv"), ("Add", "AddV2")
_UNCHANGED = ("Identity", "StopGradient", "PreventGradient", "EnsureShape")
# Their results depend on the shape of the data alone, so the converter computes them.
_OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})


@contextlib.contextmanager
def ordered_constants() -> Iterator[None]:
    """Within the context, constants keep their side of the operators that are traced."""
    import tensorflow as tf

    of_data: set[Any] = set()  # operations that are known to depend on the model's inputs

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if kind in _RECIPROCALS and inputs[0].shape.rank:
            return tf.math.divide(tf.ones([1], inputs[0].dtype), inputs[0]).op
        # TFLite's own operator fails if a denominator is zero. Constant denominators keep it,
        # because the converter would multiply by their rounded inverse.
        is_real = kind == "FloorDiv" and inputs[0].dtype.is_floating
        if is_real and not is_constant(inputs[1], of_data):
            return tf.floor(tf.math.divide(*inputs)).op
        side = _constant_side(kind, inputs, of_data)
        if side is None:
            return create(graph, kind, inputs, *args, **kwargs)
        inputs = list(inputs)
        inputs[side], extended = _with_other_rank(inputs[side])
        operation = create(graph, kind, inputs, *args, **kwargs)
        if not extended:
            return operation
        return tf.reshape(operation.outputs[0], operation.outputs[0].shape[1:]).op

    with created_by(creation):
        yield


def _constant_side(kind: str, inputs: Any, of_data: set[Any]) -> int | None:
    """The position of a constant whose side matters, ``None`` if there is none."""
    side = 0 if kind in _NOT_COMMUTATIVE else None
    if kind in _SUMS:
        side = next((k for k in (0, 1) if _is_negated(inputs[1 - k])), None)
    if side is None:
        return None
    constant, other = inputs[side], inputs[1 - side]
    if not (constant.shape.is_fully_defined() and other.shape.rank):
        return None
    if constant.shape.rank not in (0, other.shape.rank):
        return None
    if not is_constant(constant, of_data):
        return None
    # The converter computes what depends on no data before it moves anything.
    return None if is_constant(other, of_data) else side


def _with_other_rank(constant: Any) -> tuple[Any, bool]:
    """The constant with another number of axes, and whether the result has an additional one."""
    import tensorflow as tf

    sizes = constant.shape.as_list()
    if not sizes:
        return tf.reshape(constant, [1]), False
    if sizes[0] == 1 and len(sizes) > 1:
        return tf.reshape(constant, sizes[1:]), False
    return tf.reshape(constant, [1, *sizes]), True


def _is_negated(tensor: Any) -> bool:
    while hasattr(tensor, "op") and tensor.op.type in _UNCHANGED:
        tensor = tensor.op.inputs[0]
    return hasattr(tensor, "op") and bool(tensor.op.type == "Neg")


def is_constant(tensor: Any, of_data: set[Any]) -> bool:
    """Whether the converter can compute a tensor, because it depends on no input's values."""
    import tensorflow as tf

    if not hasattr(tensor, "op"):
        return True
    waiting, visited = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        # Weights enter a function as placeholders too, of type resource.
        placeholder = operation.type == "Placeholder" and operation.outputs[0].dtype != tf.resource
        if placeholder or operation in of_data:
            of_data.add(tensor.op)
            return False
        if operation not in visited and operation.type not in _OF_SHAPES:
            visited.add(operation)
            waiting.extend(source.op for source in operation.inputs)
    return True
