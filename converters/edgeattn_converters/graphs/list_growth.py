"""Lists that grow in a loop, of which the length after the loop is known before it.

``tf.TensorArray(size=0, dynamic_size=True)`` is as long as the largest position that is written.
Neither converter has lists that grow. If a loop counts its steps up to a limit and writes at a
position that it counts, too, the list has its last length from the beginning.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgeattn_converters.graphs.constant_results import constant_value
from edgeattn_converters.graphs.function_graphs import graph_of_function

READ, WRITE = "TensorListGetItem", "TensorListSetItem"
# The attribute of a write that may make the list longer.
RESIZES = "resize_if_index_out_of_bounds"
_SUFFIX = "_of_known_length"


class _Sum(NamedTuple):
    """The operand of a loop at a position, None for zero, plus a constant."""

    position: int | None
    constant: int


class Loop:
    """A loop that is created in ``graph``, by its operands and the names of its functions."""

    def __init__(self, graph: Any, operands: Sequence[Any], body: str, condition: str) -> None:
        self._graph, self._operands, self._names = graph, operands, (body, condition)

    @property
    def body_name(self) -> str:
        return self._names[0]

    @functools.cached_property
    def body(self) -> Any:
        return graph_of_function(self._graph, self._names[0])

    @functools.cached_property
    def condition(self) -> Any:
        return graph_of_function(self._graph, self._names[1])

    def has_growing_lists(self) -> bool:
        definition = self._graph._get_function(self.body_name).cached_definition
        return any(node.op == WRITE and node.attr[RESIZES].b for node in definition.node_def)

    def without_growth(self) -> str:
        """The name of a new body whose writes change no length."""
        from tensorflow.core.framework.attr_value_pb2 import AttrValue
        from tensorflow.python.eager.polymorphic_function import atomic_function

        for operation in filter(grows, self.body.get_operations()):
            operation._set_attr(RESIZES, AttrValue(b=False))
        name = self.body_name + _SUFFIX
        self._graph._add_function_recursive(atomic_function.from_func_graph(name, self.body, {}))
        return name

    def iterations(self) -> int | None:
        """The number of iterations; None if more than a counter decides."""
        counts = [self._iterations_until(*pair) for pair in self._comparisons()]
        known = [count for count in counts if count is not None]
        return min(known) if known and len(known) == len(counts) else None

    def _comparisons(self) -> Iterator[tuple[Any, Any]]:
        """The values that are less than others while the loop continues."""
        waiting = list(self.condition.outputs)
        while waiting:
            operation = waiting.pop().op
            if operation.type in ("Identity", "LogicalAnd"):
                waiting.extend(operation.inputs)
            elif operation.type == "Less":
                yield tuple(operation.inputs)
            else:
                yield None, None

    def _iterations_until(self, counter: Any, limit: Any) -> int | None:
        if counter is None:
            return None
        first, last = self._sum(self.condition, counter), self._sum(self.condition, limit)
        start, step = self.values(first)
        stop, change = self.values(last)
        if start is None or stop is None or step is None or step <= 0 or change != 0:
            return None
        return max(0, -((start - stop) // step))

    def values(self, value: _Sum | None) -> tuple[int | None, int | None]:
        """The first value of a sum and what each iteration adds to it, None if they vary."""
        if value is None or value.position is None:
            return (None, None) if value is None else (value.constant, 0)
        start = constant_value(self._operands[value.position])
        after = self._sum(self.body, self.body.outputs[value.position])
        if start is None or start.ndim or after is None or after.position != value.position:
            return None, None
        return int(start) + value.constant, after.constant

    def index(self, tensor: Any) -> _Sum | None:
        return self._sum(self.body, tensor)

    def _sum(self, graph: Any, tensor: Any) -> _Sum | None:
        """A scalar integer of a function as the sum of one of its arguments and a constant."""
        import tensorflow as tf

        if not tensor.dtype.is_integer:
            return None
        value = tf.get_static_value(tensor)
        if value is not None:
            return None if value.ndim else _Sum(None, int(value))
        position = next((k for k, item in enumerate(graph.inputs) if item is tensor), None)
        if position is not None:
            known = self._constant_operand(position)
            return _Sum(position, 0) if known is None else _Sum(None, known)
        kind, inputs = tensor.op.type, tensor.op.inputs
        if kind == "Identity":
            return self._sum(graph, inputs[0])
        if kind not in ("Add", "AddV2", "Sub"):
            return None
        first, second = (self._sum(graph, item) for item in inputs)
        if first is None or second is None:
            return None
        if kind == "Sub":
            second = _Sum(second.position, -second.constant)
            if second.position is not None:
                return None
        if first.position is not None and second.position is not None:
            return None
        position = second.position if first.position is None else first.position
        return _Sum(position, first.constant + second.constant)

    def _constant_operand(self, position: int) -> int | None:
        """The value of a scalar operand that is constant and that the loop does not change."""
        value = constant_value(self._operands[position])
        same = _source(self.body.outputs[position]) is self.body.inputs[position]
        return int(value) if same and value is not None and not value.ndim else None

    def writes(self, position: int) -> list[Any] | None:
        """The writes to a list in the order of the body; None if it is used otherwise, too."""
        found: list[Any] = []
        names = [self.body.inputs[position]]
        for value in names:
            for operation in value.consumers():
                if operation.type == WRITE:
                    found.append(operation)
                elif operation.type not in (READ, "Identity"):
                    return None
                if operation.type != READ:
                    names.append(operation.outputs[0])
        returned = [k for k, item in enumerate(self.body.outputs) if any(item is v for v in names)]
        return found if returned == [position] else None


def lengths_after(loop: Loop, before: Mapping[int, int | None]) -> tuple[dict[int, int], str]:
    """The lengths after a loop of lists that grow in it, by the positions of their operands, and
    the name of a body that expects these lengths from the beginning.

    ``before`` are the lengths before the loop. If a length is unknown, there are none, and the body
    is that of the loop.
    """
    nothing: tuple[dict[int, int], str] = ({}, loop.body_name)
    if not loop.has_growing_lists():
        return nothing
    count = loop.iterations()
    growing = set(filter(grows, loop.body.get_operations()))
    lengths = {}
    for position, length in before.items():
        writes = loop.writes(position)
        if count is None or length is None or writes is None or growing.isdisjoint(writes):
            continue
        for write in filter(grows, writes):
            start, step = loop.values(loop.index(write.inputs[1]))
            if start is None or step is None or start < 0 or step < 0:
                return nothing
            if count:
                length = max(length, start + step * (count - 1) + 1)
        growing -= set(writes)
        lengths[position] = length
    return nothing if growing else (lengths, loop.without_growth())


def grows(operation: Any) -> bool:
    """Whether an operation writes to a list and may make it longer."""
    return operation.type == WRITE and bool(operation.node_def.attr[RESIZES].b)


def _source(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor
