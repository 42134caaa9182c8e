"""Graphs without the branches that never run, because a variable decides which one does.

Layers such as ``WeightNormalization`` initialize their weights in ``tf.cond(initialized, ...)``.
The graph of a trained model contains that branch, which assigns variables, although the value of
``initialized`` is that of the trained model.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.constant_results import computed
from edgeattn_converters.graphs.function_graphs import LOOPS
from edgeattn_converters.graphs.signatures import CALLS, CASE, IF, arguments_in_order

_BRANCHES = ("then_branch", "else_branch")
_LONGEST_NAME = 80
# By the name of a placeholder: handles of variables, and numbers.
Values = Mapping[str, Any]


def with_taken_branches(function: Any) -> Any:
    """A signature, a concrete function, in which conditions on its variables are one branch.

    The variables have their present values, so the result computes the same as ``function`` only
    until a variable changes, which its caller has to exclude. It is ``function`` if no condition
    depends only on variables and constants.
    """
    from tensorflow.python.eager import context

    graph = function.graph.as_graph_def()
    library = {item.signature.name: item for item in graph.library.function}
    outside = function.captured_inputs
    inside = function.inputs[len(function.inputs) - len(outside) :]
    handles = dict(zip((tensor.name for tensor in inside), outside, strict=True))
    known = {name: value for name, value in handles.items() if _is_decisive(value.dtype)}
    folding = _Folding(library)
    with function.graph.as_default():  # where functions are found
        changed = folding.fold(graph.node, graph.node, known)
    if not changed:
        return function
    functions = list(reached(graph.node, library | folding.added))
    del graph.library.function[:], graph.library.gradient[:]
    graph.library.function.extend(functions)
    for item in functions:
        if item.signature.name in folding.added:
            context.context().add_function_def(item)
    return _traced(function, graph, handles)


def _traced(function: Any, graph: Any, handles: Values) -> Any:
    """The signature ``function`` with the operations of ``graph``, and the same variables."""
    import tensorflow as tf

    outputs = sorted(function.structured_outputs)
    own = function.inputs[: len(function.inputs) - len(handles)]
    _, specs = function.structured_input_signature

    def compute(**inputs: Any) -> dict[str, Any]:
        current = tf.compat.v1.get_default_graph()
        values = arguments_in_order(function, own, inputs)
        given = {tensor.name: value for tensor, value in zip(own, values, strict=True)}
        captured = {name: current.capture(value) for name, value in handles.items()}
        for variable in function.graph.variables:
            current.watch_variable(variable)  # becomes one of the result
        results = tf.graph_util.import_graph_def(
            graph, given | captured, [tensor.name for tensor in function.outputs], name=""
        )
        for result, tensor in zip(results, function.outputs, strict=True):
            result.set_shape(tensor.shape)
        return dict(zip(outputs, results, strict=True))

    return tf.function(compute, autograph=False).get_concrete_function(**specs)


@dataclass
class _Folding:
    """Replaces conditions in the functions of a library, whose changed copies are ``added``."""

    library: Mapping[str, Any]
    added: dict[str, Any] = field(default_factory=dict)

    def fold(self, nodes: Sequence[Any], flat: Sequence[Any], known: Values) -> bool:
        """Replace conditions in ``nodes``, in place, by calls of the branch that runs.

        ``flat`` are the same nodes with the inputs of a GraphDef, and ``known`` the values of its
        placeholders. Returns whether a node changed.
        """
        by_name = {node.name: node for node in flat}
        changed = False
        for node in nodes:
            inputs = [name for name in by_name[node.name].input if not name.startswith("^")]
            if node.op in (*IF, *CASE):
                place, inputs = inputs[0], inputs[1:]
                value = _value(place, by_name, known)
                branch = None if value is None else _branch(node, value)
                if branch is not None:
                    _call(node, branch)
                    changed = True
            functions = [called for called in called_by(node) if called.name in self.library]
            values = self._of_arguments(node, inputs, by_name, known) if functions else []
            for called in functions:
                name = self._folded(called.name, values)
                changed |= name != called.name
                called.name = name
        return changed

    def _folded(self, name: str, values: Sequence[Any]) -> str:
        """The name of a function without the branches that never run for these arguments."""
        from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

        definition = copy.deepcopy(self.library[name])
        arguments = [f"{item.name}:0" for item in definition.signature.input_arg]
        known = {
            key: value for key, value in zip(arguments, values, strict=False) if value is not None
        }
        flat, _ = function_def_to_graph_def(definition)
        if not self.fold(definition.node_def, flat.node, known):
            return name
        # TensorFlow knows only one function of a name.
        content = definition.SerializeToString(deterministic=True)
        folded = f"{name[:_LONGEST_NAME]}_{hashlib.sha256(content).hexdigest()[:12]}"
        definition.signature.name = folded
        self.added[folded] = definition
        return folded

    def _of_arguments(
        self, node: Any, inputs: Sequence[str], nodes: Mapping[str, Any], known: Values
    ) -> list[Any]:
        """The values of the arguments of what a node calls; None for those that are not known."""
        if node.op not in (*CALLS, *IF, *CASE, *LOOPS):
            return []
        dtypes = node.attr["T" if node.op in LOOPS else "Tin"].list.type
        values = [
            _argument(tensor, nodes, known) if _is_decisive(dtype) else None
            for tensor, dtype in zip(inputs, dtypes, strict=True)
        ]
        if node.op not in LOOPS:
            return values
        body = self.library[node.attr["body"].func.name]
        return [value if _is_unchanged(body, place) else None for place, value in enumerate(values)]


def called_by(node: Any) -> Iterator[Any]:
    """The attributes of a node with the functions that it calls."""
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func
        yield from attribute.list.func


def reached(nodes: Sequence[Any], library: Mapping[str, Any]) -> Iterator[Any]:
    """The functions that nodes call, and those that these call."""
    names: set[str] = set()
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        for name in (node.op, *(called.name for called in called_by(node))):
            if name in library and name not in names:
                names.add(name)
                waiting.extend(library[name].node_def)
                yield library[name]


def _branch(node: Any, value: Array) -> str | None:
    """The function that a condition calls for a value; None if it is not a number."""
    if value.ndim or value.dtype.kind not in "biu":
        return None
    if node.op in IF:
        return str(node.attr[_BRANCHES[0 if value else 1]].func.name)
    branches = [item.name for item in node.attr["branches"].list.func]
    return branches[int(value) if 0 <= value < len(branches) else -1]


def _call(node: Any, branch: str) -> None:
    """Let a node that is a condition call one function instead, in place."""
    attributes = {name: copy.deepcopy(node.attr[name]) for name in ("Tin", "Tout")}
    del node.input[0]
    node.op = CALLS[0 if node.op.startswith("Stateless") else 1]
    node.attr.clear()
    for name, value in attributes.items():
        node.attr[name].CopyFrom(value)
    node.attr["f"].func.name = branch


def _is_unchanged(body: Any, place: int) -> bool:
    """Whether the body of a loop returns one of its arguments as it is."""
    nodes = {node.name: node for node in body.node_def}
    result = body.ret[body.signature.output_arg[place].name]
    while (node := nodes.get(result.split(":")[0])) is not None and node.op == "Identity":
        result = node.input[0]
    return bool(result == body.signature.input_arg[place].name)


def _is_decisive(dtype: Any) -> bool:
    """Whether conditions may depend on values of a dtype: numbers of branches, and variables."""
    import tensorflow as tf

    dtype = tf.as_dtype(dtype)
    return bool(dtype in (tf.bool, tf.resource) or dtype.is_integer)


def _argument(tensor: str, nodes: Mapping[str, Any], known: Values) -> Any:
    """The value of an argument if a condition may depend on it; None if it is not known."""
    given = _given(tensor, nodes, known)
    value = _value(tensor, nodes, known) if given is None else given
    return value if given is not None or (value is not None and not value.ndim) else None


def _given(tensor: str, nodes: Mapping[str, Any], known: Values) -> Any:
    """The value of a placeholder, also behind identities; None for other tensors."""
    while (node := nodes[_name(tensor)]).op == "Identity":
        tensor = node.input[0]
    return known.get(f"{node.name}:0") if node.op == "Placeholder" else None


def _value(tensor: str, nodes: Mapping[str, Any], known: Values) -> Array | None:
    """The value of a tensor that depends on variables and constants only; None for others."""
    import tensorflow as tf

    value = _given(tensor, nodes, known)
    if value is not None:
        return None if getattr(value, "dtype", None) == tf.resource else np.asarray(value)
    found: dict[str, Any] = {}
    given: dict[str, Any] = {}
    waiting = [_name(tensor)]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name in found:
            continue
        value = known.get(f"{node.name}:0") if node.op == "Placeholder" else None
        if value is None and not _is_pure(node):
            return None
        found[node.name] = node
        if value is not None:
            given[f"{node.name}:0"] = value
            continue
        waiting.extend(_name(item) for item in node.input if not item.startswith("^"))
    order = [_without_control(found[name]) for name in nodes if name in found]
    order = [node for node in order if f"{node.name}:0" not in given]
    try:
        [result] = computed(order, given, [_with_number(tensor)])
    except tf.errors.OpError:
        return None
    return result


def _is_pure(node: Any) -> bool:
    """Whether an operation only computes from its operands, or reads a variable."""
    from tensorflow.python.framework import op_def_registry

    if node.op == "ReadVariableOp":
        return True
    definition = op_def_registry.get(node.op)
    stateful = definition is None or definition.is_stateful
    return not stateful and node.op != "Placeholder" and not any(True for _ in called_by(node))


def _without_control(node: Any) -> Any:
    """A copy of a node without the order in which other ones run."""
    alone = copy.deepcopy(node)
    operands = [name for name in node.input if not name.startswith("^")]
    del alone.input[:]
    alone.input.extend(operands)
    return alone


def _name(tensor: str) -> str:
    return tensor.split(":")[0]


def _with_number(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
