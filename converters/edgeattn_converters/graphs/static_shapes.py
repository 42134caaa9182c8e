"""Graphs of SavedModels with the shapes of the converted model.

The loops of an exported graph were traced for any batch size, and often for any sequence length, so
the lists of tensors in them have elements of unknown shapes, which neither converter accepts. The
operations are added once more to the graph that is traced now, whose inputs have fixed shapes:
TensorFlow then infers the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgeattn.tensors import Array
from edgeattn_converters.graphs.constant_results import constant_results
from edgeattn_converters.graphs.function_graphs import LOOPS, function_graph, graph_of_function
from edgeattn_converters.graphs.known_lists import known_lists
from edgeattn_converters.graphs.known_sizes import (
    folded_sizes,
    selected_sizes,
    shape_after_reshape,
    static_sizes,
)
from edgeattn_converters.graphs.list_growth import grows
from edgeattn_converters.graphs.scopes import in_scope, inner_scope, map_name, model_scope
from edgeattn_converters.graphs.signatures import CALLS, CASE, IF, arguments_in_order, frozen

# The position of the shape of the elements in the operands.
ELEMENT_SHAPE = {
    "TensorListFromTensor": 1,
    "TensorListGetItem": 2,
    "TensorListStack": 1,
    "TensorListReserve": 0,
}


def replay(function: Any, inputs: dict[str, Any], graph: "Replay | None" = None) -> dict[str, Any]:
    """The outputs by name of a signature, a concrete function, added to the current graph.

    ``graph`` adds the operations.
    """
    constant = frozen(function)
    arguments = arguments_in_order(function, constant.inputs, inputs)
    graph = graph or Replay()
    graph.model_scope = model_scope(constant.graph)
    with constant_results(), known_lists():
        results = graph.outputs(constant.graph, constant.inputs, arguments, constant.outputs)
    return dict(zip(sorted(function.structured_outputs), results, strict=True))


@dataclass(frozen=True)
class _Unshaped:
    """A list of tensors that is not made yet, because the shape of its elements is unknown."""

    operation: Any
    inputs: tuple[Any, ...]


@dataclass(frozen=True)
class _List:
    """What is known about a list of tensors: its length, and the shape of its elements."""

    length: int | None = None
    shape: tuple[int | None, ...] | None = None


class Replay:
    """Adds operations to the current graph; remembers what is known about lists.

    ``model_scope`` is the outermost scope in the original graph, if there is only one.
    """

    def __init__(self) -> None:
        self.model_scope = ""
        self._scope = ""  # that of the loop, condition or call whose function is added
        # By a reference to the list.
        self._lists: dict[Any, _List] = {}

    def outputs(
        self, graph: Any, placeholders: Sequence[Any], arguments: Sequence[Any], results: Any
    ) -> list[Any]:
        """The values of ``results`` if ``placeholders`` of ``graph`` have the values
        ``arguments``."""
        values = {tensor.name: value for tensor, value in zip(placeholders, arguments, strict=True)}
        for operation in graph.get_operations():
            if operation.outputs and operation.outputs[0].name in values:
                continue
            inputs = [values[tensor.name] for tensor in operation.inputs]
            results_of = self._add_in_scope(operation, inputs)
            for tensor, value in zip(operation.outputs, results_of, strict=True):
                values[tensor.name] = value
        return [self._made(values[tensor.name]) for tensor in results]

    def _add_in_scope(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        outer = self._scope
        self._scope = inner_scope(operation.name, outer)
        try:
            name = map_name(self._scope, self.model_scope)
            return in_scope(name, lambda: self.add(operation, inputs))
        finally:
            self._scope = outer

    def add(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        """The results of an operation with other operands."""
        kind = operation.type
        if kind == "TensorListReserve" and None in (static_sizes(inputs[0]) or (None,)):
            return [_Unshaped(operation, tuple(inputs))]
        if kind in LOOPS:
            return self._loop(operation, inputs)
        if kind == "TensorListSetItem" and inputs[2].shape.rank is not None:
            # The others of a list whose elements are known may have other shapes.
            known = isinstance(inputs[0], _Unshaped) and _is_constant(
                inputs[0].inputs[1], inputs[1]
            )
            shape = None if known else tuple(inputs[2].shape.as_list())
            inputs[0] = self._made(inputs[0], shape)
        inputs = [self._made(value) for value in inputs]
        if kind in IF:
            return self._condition(operation, inputs)
        if kind in CASE:
            return self._switch(operation, inputs)
        if kind in CALLS:
            return self._call(operation, inputs)
        if kind in ("Identity", "StopGradient") and inputs[0].dtype.name == "variant":
            return inputs
        folded = folded_sizes(operation, inputs)
        folded = selected_sizes(operation, inputs) if folded is None else folded
        return self._copy(operation, inputs) if folded is None else [folded]

    def _copy(self, operation: Any, inputs: list[Any]) -> list[Any]:
        """Add an operation; those on lists get what is known about the list."""
        import tensorflow as tf
        from tensorflow.core.framework.attr_value_pb2 import AttrValue

        attributes = {
            name: value
            for name, value in operation.node_def.attr.items()
            if not name.startswith("_")
        }
        known = self._list_of(operation, inputs)
        position = ELEMENT_SHAPE.get(operation.type)
        if position is not None and known.shape is not None:
            sizes = [-1 if size is None else size for size in known.shape]
            inputs[position] = tf.constant(sizes, tf.int32)
        if operation.type == "TensorListStack" and known.length is not None:
            attributes["num_elements"] = AttrValue(i=known.length)
        added = tf.compat.v1.get_default_graph()._create_op_internal(
            operation.type,
            inputs,
            dtypes=[tensor.dtype for tensor in operation.outputs],
            attrs=attributes,
            name=operation.name.split("/")[-1].lstrip("_") or operation.type,
        )
        if operation.type == "Reshape" and (shape := shape_after_reshape(*inputs)) is not None:
            added.outputs[0].set_shape(shape)
        if added.outputs and added.outputs[0].dtype.name == "variant":
            self._lists[added.outputs[0].ref()] = known
        return list(added.outputs)

    def _list_of(self, operation: Any, inputs: Sequence[Any]) -> _List:
        """What is known about the list that an operation makes or reads."""
        kind = operation.type
        if kind == "TensorListFromTensor" and inputs[0].shape.rank:
            length, *shape = inputs[0].shape.as_list()
            return _List(length, tuple(shape))
        if kind == "TensorListReserve":
            length = static_sizes(inputs[1])
            shape = static_sizes(inputs[0]) if inputs[0].shape.rank else None
            return _List(None if length is None else length[0], shape)
        if not kind.startswith("TensorList"):
            return _List()
        known = self._lists.get(inputs[0].ref(), _List())
        if kind == "TensorListScatterIntoExistingList" and inputs[1].shape.rank:
            return _List(None, tuple(inputs[1].shape.as_list()[1:]))
        if kind in ("TensorListResize", "TensorListPushBack"):
            return _List(None, known.shape)
        if kind == "TensorListSetItem" and inputs[2].shape.rank is not None:
            length = None if grows(operation) else known.length
            return _List(length, tuple(inputs[2].shape.as_list()))
        return known

    def _made(self, value: Any, shape: tuple[int | None, ...] | None = None) -> Any:
        """``value``, or the list that it stands for, with elements of ``shape``."""
        import tensorflow as tf

        if not isinstance(value, _Unshaped):
            return value
        inputs = list(value.inputs)
        if shape is not None:
            inputs[0] = tf.constant([-1 if size is None else size for size in shape], tf.int32)
        return self._copy(value.operation, inputs)[0]

    def _loop(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        import tensorflow as tf

        condition, body = (function_graph(operation, name) for name in ("cond", "body"))
        shapes = self._written_shapes(body, inputs)
        made = [self._made(value, shapes.get(k)) for k, value in enumerate(inputs)]
        if any(map(grows, body.get_operations())):
            for value in made:
                if value.ref() in self._lists:
                    self._lists[value.ref()] = replace(self._lists[value.ref()], length=None)
        constants = _unchanged_constants(body, made)
        results = tf.while_loop(
            lambda *arguments: self._repeat(condition, made, arguments, constants)[0],
            lambda *arguments: self._repeat(body, made, arguments, constants),
            made,
        )
        results = _in_list(results)
        self._know_lists(made, results)
        return results

    def _repeat(
        self,
        graph: Any,
        made: Sequence[Any],
        arguments: Sequence[Any],
        constants: Mapping[int, Array],
    ) -> list[Any]:
        """Add the graph of a loop; ``constants`` are values of operands that never change."""
        import tensorflow as tf

        self._know_lists(made, arguments)
        known = [
            tf.constant(constants[k]) if k in constants else argument
            for k, argument in enumerate(arguments)
        ]
        return self.outputs(graph, graph.inputs, known, graph.outputs)

    def _know_lists(self, known: Sequence[Any], same: Sequence[Any]) -> None:
        """Remember about the lists ``same`` what is known about others."""
        for old, new in zip(known, same, strict=True):
            if not isinstance(old, _Unshaped) and old.ref() in self._lists:
                self._lists[new.ref()] = self._lists[old.ref()]

    def _written_shapes(
        self, body: Any, inputs: Sequence[Any]
    ) -> dict[int, tuple[int | None, ...]]:
        """The shapes of the elements that a loop writes, by the position of the list."""
        import tensorflow as tf
        from tensorflow.python.framework.func_graph import FuncGraph

        unshaped = [k for k, value in enumerate(inputs) if isinstance(value, _Unshaped)]
        if not unshaped:
            return {}
        with FuncGraph("trial").as_default():
            arguments = [
                tf.compat.v1.placeholder(tensor.dtype, None if k in unshaped else inputs[k].shape)
                for k, tensor in enumerate(body.inputs)
            ]
            results = self._repeat(body, inputs, arguments, _unchanged_constants(body, inputs))
            found = {k: self._lists.get(results[k].ref(), _List()).shape for k in unshaped}
        return {k: shape for k, shape in found.items() if shape is not None}

    def _condition(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        import tensorflow as tf

        names = [operation.get_attr(name).name for name in ("then_branch", "else_branch")]
        return _in_list(tf.cond(inputs[0], *self._branches(operation, names, inputs[1:])))

    def _switch(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        import tensorflow as tf

        names = [function.name for function in operation.get_attr("branches")]
        return _in_list(tf.switch_case(inputs[0], self._branches(operation, names, inputs[1:])))

    def _call(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        """A function that TensorFlow has not inlined, because XLA compiles it for example.

        TensorFlow computes a grouped convolution on a CPU only so.
        """
        import tensorflow as tf

        graph = function_graph(operation, "f")

        def call(*arguments: Any) -> list[Any]:
            return self.outputs(graph, graph.inputs, arguments, graph.outputs)

        if operation.node_def.attr["_XlaMustCompile"].b:
            call = tf.function(call, jit_compile=True, autograph=False)
        return _in_list(call(*inputs))

    def _branches(
        self, operation: Any, names: Sequence[str], arguments: Sequence[Any]
    ) -> list[Callable[[], list[Any]]]:
        """Functions that add the functions ``names`` of a condition, called with ``arguments``."""
        graphs = [graph_of_function(operation.graph, name) for name in names]
        return [
            partial(self.outputs, graph, graph.inputs, arguments, graph.outputs) for graph in graphs
        ]


def _is_constant(*tensors: Any) -> bool:
    import tensorflow as tf

    return all(tf.get_static_value(tensor) is not None for tensor in tensors)


def _in_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, list | tuple) else [results]


def _unchanged_constants(body: Any, operands: Sequence[Any]) -> dict[int, Array]:
    """Operands of a loop that are constant sizes or strides, by position.

    In the graph of a loop they are placeholders, from whose values TensorFlow infers no shapes.
    """
    import tensorflow as tf

    constants = {}
    for k, (operand, result) in enumerate(zip(operands, body.outputs, strict=True)):
        while result.op.type == "Identity":
            result = result.op.inputs[0]
        if result is not body.inputs[k] or isinstance(operand, _Unshaped):
            continue
        if operand.dtype.is_integer and (value := tf.get_static_value(operand)) is not None:
            constants[k] = value
    return constants
