"""Lookups inside loops: which tensors outside of them hold the indices.

A loop's body is a graph of its own, whose placeholders are the operands of the loop. An element of
a list of tensors is a step of the tensor that the list was made from.
"""

from collections.abc import Callable, Iterator
from typing import Any

from edgeattn_converters.graphs.static_shapes import LOOPS, function_graph

# Operations whose result has values of their first operand, moved or converted.
_MOVES_FIRST = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "EnsureShape", "Cast", "Reshape"}
    | {"ExpandDims", "Squeeze", "Transpose", "StridedSlice", "Slice", "Split", "Unpack"}
    | {"ReverseV2", "Tile", "BroadcastTo", "GatherV2", "TensorListGetItem", "TensorListFromTensor"}
    | {"TensorListStack"}
)
_SHIFTS = frozenset({"Add", "AddV2", "Sub"})


def lookups_in_loops(
    graph: Any,
    table_size: Callable[[Any, Any], int | None],
    unwrapped: Callable[[Any], Any],
    outside: Callable[[Any], Any] = lambda tensor: tensor,
) -> Iterator[tuple[Any, int]]:
    """Yield tensors of ``graph`` whose values are indices in a loop, and the smallest size of the
    table that is allowed for them.

    ``table_size`` is the number of rows of the table that an operation looks up, given the table as
    it is outside of all loops. ``unwrapped`` are indices before negative ones are counted from the
    end. ``outside`` is what a tensor of ``graph`` is outside of the loops around it.
    """
    for loop in graph.get_operations():
        if loop.type not in LOOPS:
            continue
        body = function_graph(loop, "body")
        positions = {tensor.name: k for k, tensor in enumerate(body.inputs)}

        def outside_of_body(
            tensor: Any, loop: Any = loop, positions: dict[str, int] = positions
        ) -> Any:
            position = positions.get(_moved_from(tensor).name)
            return tensor if position is None else outside(loop.inputs[position])

        inner = list(lookups_in_loops(body, table_size, unwrapped, outside_of_body))
        for operation in body.get_operations():
            if operation.type in ("GatherV2", "ResourceGather"):
                size = table_size(operation, outside_of_body(operation.inputs[0]))
                if size:
                    inner.append((unwrapped(operation.inputs[1]), size))
        for tensor, size in inner:
            source, shift = _origin(tensor)
            position = positions.get(source.name)
            if position is not None:
                yield _moved_from(loop.inputs[position]), size - shift


def _moved_from(tensor: Any) -> Any:
    """The tensor that an operand's values come from, or the variable."""
    while tensor.op.type in ("Identity", "ReadVariableOp", "TensorListFromTensor"):
        tensor = tensor.op.inputs[0]
    return tensor


def _origin(tensor: Any) -> tuple[Any, int]:
    """The tensor from which values are moved, and the number that is added to them."""
    import tensorflow as tf

    shift = 0
    while True:
        operation = tensor.op
        if operation.type in _MOVES_FIRST:
            tensor = operation.inputs[0]
            continue
        constants = [tf.get_static_value(item) for item in operation.inputs]
        known = [k for k, value in enumerate(constants) if value is not None and value.size == 1]
        subtracts = operation.type == "Sub"
        if operation.type not in _SHIFTS or len(known) != 1 or (subtracts and known != [1]):
            return tensor, shift
        amount = int(constants[known[0]].reshape(-1)[0])
        shift += -amount if subtracts else amount
        tensor = operation.inputs[1 - known[0]]
