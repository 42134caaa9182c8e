"""Lists of loops as tensors, where tf2onnx would lose or reorder their elements.

tf2onnx joins what a loop writes to a list in the order of the iterations. That is right only if
iteration i writes element i, which ``tf.scan(reverse=True)`` and a list of the last element do not.
It has no operator for a list that a loop both reads and writes, as ``keras.ops.scan`` does.

A list that has an element before the loop, or elements of a known shape, becomes a tensor that the
loop updates. Of other lists, the positions of what is written are recorded, and the elements are
ordered after the loop. Lists that are passed on to other functions remain as they are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn_converters.graphs.list_growth import RESIZES
from edgeattn_converters.lowering.graph_scope import DT_INT32, DT_VARIANT, Scope, constant, scopes

_LOOPS = frozenset({"While", "StatelessWhile"})
_CONDITIONS = frozenset({"If", "StatelessIf"})
_BRANCHES = ("then_branch", "else_branch")
# The positions of the counter and of the limit of the iterations in the operands of a loop.
_COUNTER, _LIMIT = 0, 1
_READ, _WRITE, _STACK = "TensorListGetItem", "TensorListSetItem", "TensorListStack"


@dataclass(frozen=True)
class _Variable:
    """A list among the variables of a loop; ``scope`` is the graph of the loop.

    ``functions`` are the graphs that nodes call, by name.
    """

    scope: Scope
    loop: Any
    body: Scope
    condition: Scope
    position: int
    functions: Mapping[str, Scope]

    @property
    def initial(self) -> str:
        return str(self.loop.input[self.position])

    @property
    def argument(self) -> str:
        return self.body.argument(self.position)

    @property
    def result(self) -> str:
        return self.scope.output(self.loop, self.position)

    def uses(self) -> list[Any] | None:
        """The nodes of the body that read or write the list, None if it is used otherwise."""
        nodes: list[Any] = []
        names = [self.argument]
        for name in names:
            for node in self.body.consumers(name):
                if node.op not in (_READ, _WRITE, "Identity") or name in node.input[1:]:
                    return None
                nodes.append(node)
                if node.op != _READ:
                    names.append(self.body.output(node))
        returned = self.body.positions_returning(names)
        return nodes if returned == [self.position] else None

    def is_read_in_conditions(self) -> bool:
        """Whether a condition in the body reads an element."""
        return any(
            reader.op == _READ
            for node in self.body.consumers(self.argument)
            if node.op in _CONDITIONS
            for branch in (self.functions[node.attr[name].func.name] for name in _BRANCHES)
            for place, name in enumerate(node.input[1:])
            if name == self.argument
            for reader in branch.consumers(branch.argument(place))
        )

    def consumers(self) -> list[Any] | None:
        """The nodes that read the list after the loop, None if it is used otherwise."""
        nodes = self.scope.consumers(self.result)
        passed_on = bool(self.scope.positions_returning([self.result]))
        return None if passed_on or any(n.op not in (_READ, _STACK) for n in nodes) else nodes


def lists_as_tensors(definition: Any) -> None:
    """Replace the lists that tf2onnx would convert wrong in a ``GraphDef``, in place."""
    by_name = {scope.name: scope for scope in scopes(definition)}
    loops = [
        (scope, node) for scope in by_name.values() for node in scope.nodes if node.op in _LOOPS
    ]
    bodies = Counter(loop.attr["body"].func.name for _, loop in loops)
    for scope, loop in loops:
        body = by_name[loop.attr["body"].func.name]
        if bodies[body.name] == 1:  # another loop has other lists
            condition = by_name[loop.attr["cond"].func.name]
            for position in range(_LIMIT + 1, len(loop.input)):
                variable = _Variable(scope, loop, body, condition, position, by_name)
                if _is_list(variable):
                    _replace(variable)


def _is_list(variable: _Variable) -> bool:
    return bool(variable.loop.attr["T"].list.type[variable.position] == DT_VARIANT)


def _replace(variable: _Variable) -> None:
    if variable.is_read_in_conditions():
        raise ConversionError(
            "ONNX has no list that a condition inside a loop reads.",
            hint="Convert to TFLite only, or keep the elements in a tensor that the loop updates: "
            "tf.tensor_scatter_nd_update(states, [[t]], [state])",
        )
    uses, consumers = variable.uses(), variable.consumers()
    if uses is None or consumers is None or not any(node.op == _WRITE for node in uses):
        return
    if variable.condition.consumers(variable.condition.argument(variable.position)):
        return
    writes = [node for node in uses if node.op == _WRITE]
    written_once = len(writes) == 1 and not any(node.op == _READ for node in uses)
    reserve = variable.scope.node(variable.initial)
    is_empty = reserve is not None and reserve.op == "TensorListReserve"
    if any(node.attr[RESIZES].b for node in writes):
        if not (is_empty and written_once and _grows_in_order(variable, writes[0], reserve)):
            raise ConversionError(
                "ONNX has no lists that grow in a loop by positions that the loop computes.",
                hint="Give the TensorArray its size before the loop.",
            )
        return
    if is_empty and written_once:
        if not _in_order(variable, writes[0], reserve):
            _record_positions(variable, writes[0], reserve, consumers)
        return
    tensor = _as_tensor(variable.scope, variable.initial)
    if tensor is not None:
        _make_tensor(variable, tensor, uses, consumers)


def _in_order(variable: _Variable, write: Any, reserve: Any) -> bool:
    """Whether iteration i writes element i, and there are as many iterations as elements."""
    loop, scope = variable.loop, variable.scope
    position = _counter_position(variable, write)
    if position is None:
        return False
    limits = [loop.input[_LIMIT], *_limits(variable, position)]
    size = reserve.input[1]
    return any(
        limit == size or _equal(constant(scope.node(limit)), constant(scope.node(size)))
        for limit in limits
    )


def _grows_in_order(variable: _Variable, write: Any, reserve: Any) -> bool:
    """Whether iteration i writes element i of a list that is empty before the loop."""
    is_empty = _equal(constant(variable.scope.node(reserve.input[1])), 0)
    return is_empty and _counter_position(variable, write) is not None


def _counter_position(variable: _Variable, write: Any) -> int | None:
    """The position of the operand that counts iterations from 0, if it is the index of a write."""
    body, loop, scope = variable.body, variable.loop, variable.scope
    position = body.argument_position(write.input[1])
    if position is None:
        return None
    counter = body.node(body.returned(position))
    counts = (
        counter is not None
        and counter.op in ("Add", "AddV2")
        and sorted(
            "counter"
            if body.argument_position(name) == position
            else str(constant(body.node(name)))
            for name in counter.input
        )
        == ["1", "counter"]
    )
    first = constant(scope.node(loop.input[position]))
    return position if counts and first == 0 else None


def _limits(variable: _Variable, position: int) -> Iterator[str]:
    """The operands of the loop that the condition compares the counter with."""
    condition = variable.condition
    for node in condition.nodes:
        if node.op == "Less" and condition.argument_position(node.input[0]) == position:
            limit = condition.argument_position(node.input[1])
            if limit is not None:
                yield str(variable.loop.input[limit])


def _equal(first: Any, second: Any) -> bool:
    return first is not None and second is not None and bool(np.array_equal(first, second))


def _as_tensor(scope: Scope, name: str) -> str | None:
    """The list ``name`` as a tensor, None if the shape of its elements is unknown."""
    node = scope.node(name)
    if node is None:
        return None
    if node.op == "TensorListFromTensor":
        return str(node.input[0])
    if node.op == "TensorListReserve":
        shape = constant(scope.node(node.input[0]))
        if shape is None or np.ndim(shape) != 1 or np.any(np.asarray(shape) < 0):
            return None
        return _zeros(scope, node, scope.constant(shape))
    if node.op != _WRITE:
        return None
    before, index, item = node.input
    reserve = scope.node(before)
    if reserve is not None and reserve.op == "TensorListReserve":
        if _equal(constant(scope.node(reserve.input[1])), 1):
            return scope.expand(item, node.attr["element_dtype"].type)
        dtype = node.attr["element_dtype"].type
        tensor: str | None = _zeros(scope, reserve, scope.shape_of(item, dtype))
    else:
        tensor = _as_tensor(scope, before)
    return tensor and scope.updated(tensor, index, item, node.attr["element_dtype"].type)


def _zeros(scope: Scope, reserve: Any, shape: str) -> str:
    """The elements of an empty list, which TensorFlow takes as zeros."""
    dtype = reserve.attr["element_dtype"].type
    whole = scope.concatenated([scope.reshaped(reserve.input[1], [1], DT_INT32), shape], DT_INT32)
    return scope.filled(whole, dtype)


def _make_tensor(
    variable: _Variable, tensor: str, uses: Sequence[Any], consumers: Sequence[Any]
) -> None:
    """Let the loop update ``tensor`` instead of the list."""
    (dtype,) = {node.attr["element_dtype"].type for node in uses if node.op != "Identity"}
    for scope, nodes in ((variable.body, uses), (variable.scope, consumers)):
        for node in nodes:
            if node.op == "Identity":
                node.attr["T"].type = dtype
            elif node.op == _READ:
                scope.replace(node, scope.element(node.input[0], node.input[1], dtype))
            elif node.op == _STACK:
                scope.replace(node, node.input[0])
            else:
                list_, index, item = node.input
                scope.replace(node, scope.updated(list_, index, item, dtype))
    position = variable.position
    loop = variable.loop
    loop.input[position] = tensor
    loop.attr["T"].list.type[position] = dtype
    if loop.attr["output_shapes"].list.shape:
        loop.attr["output_shapes"].list.shape[position].unknown_rank = True
    variable.body.set_type(position, dtype, returned=True)
    variable.condition.set_type(position, dtype)


def _record_positions(
    variable: _Variable, write: Any, reserve: Any, consumers: Sequence[Any]
) -> None:
    """Order the elements after the loop, by a vector of the iterations that wrote them.

    tf2onnx makes the list a tensor with one row for each iteration. The vector counts iterations
    from 1, the row of an element is that of the last one that writes it, or zeros if none does.
    """
    scope, body = variable.scope, variable.body
    dtype = write.attr["element_dtype"].type
    none = scope.filled(scope.reshaped(reserve.input[1], [1], DT_INT32), DT_INT32)
    written = body.add_argument("iterations", DT_INT32)
    iteration = body.add("AddV2", [body.largest(written), body.constant(1)], T=DT_INT32)
    body.add_result(
        "iterations", body.updated(written, write.input[1], iteration, DT_INT32), DT_INT32
    )
    variable.condition.add_argument("iterations", DT_INT32)
    last = scope.add_variable(variable.loop, none, DT_INT32)
    rows = scope.add(
        _STACK, [variable.result, reserve.input[0]], element_dtype=dtype, num_elements=-1
    )
    first = scope.element(rows, scope.constant([0]), dtype)
    nothing = scope.add("ZerosLike", [first], T=dtype)
    tensor = scope.element(scope.concatenated([nothing, rows], dtype), last, dtype)
    for node in consumers:
        is_read = node.op == _READ
        scope.replace(node, scope.element(tensor, node.input[1], dtype) if is_read else tensor)
