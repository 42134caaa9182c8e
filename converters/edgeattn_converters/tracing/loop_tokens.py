"""Lookups inside loops: which tensors outside of them hold the indices.

A loop's body is a graph of its own, whose placeholders are the operands of the loop. An element of
a list of tensors is a step of the tensor that the list was made from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.graphs.function_graphs import LOOPS, function_graph

# Operations whose result has values of their first operand, moved or converted.
_MOVES_FIRST = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "EnsureShape", "Cast", "Reshape"}
    | {"ExpandDims", "Squeeze", "Transpose", "StridedSlice", "Slice", "Split", "Unpack"}
    | {"ReverseV2", "Tile", "BroadcastTo", "GatherV2", "TensorListGetItem", "TensorListFromTensor"}
    | {"TensorListStack"}
)
_SHIFTS = frozenset({"Add", "AddV2", "Sub"})


@dataclass(frozen=True)
class Lookup:
    """Indices of rows of a table of ``size`` rows, after ``shift`` is added to them.

    If ``wraps``, negative ones are counted from the end.
    """

    indices: Any
    size: int
    wraps: bool
    shift: int = 0


def lookups_in_loops(
    graph: Any,
    lookup: Callable[[Any, Any], Lookup | None],
    outside: Callable[[Any], Any] = lambda tensor: tensor,
) -> Iterator[Lookup]:
    """Yield the lookups in loops, with tensors of ``graph`` as indices.

    ``lookup`` returns that of an operation, given the table as it is outside of all loops.
    ``outside`` is what a tensor of ``graph`` is outside of the loops around it.
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

        inner = list(lookups_in_loops(body, lookup, outside_of_body))
        for operation in body.get_operations():
            if operation.type in ("GatherV2", "ResourceGather"):
                found = lookup(operation, outside_of_body(operation.inputs[0]))
                if found is not None:
                    inner.append(found)
        for item in inner:
            source, shift = _origin(item.indices)
            position = positions.get(source.name)
            if position is not None:
                indices = _moved_from(loop.inputs[position])
                yield replace(item, indices=indices, shift=item.shift + shift)


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
