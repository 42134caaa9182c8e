"""Raw TensorFlow calls in a functional model of Keras 2: ``TFOpLambda`` and its relatives.

They name a function of TensorFlow. Known ones become an expression, by the same registry as
Lambdas; nothing is looked up in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.lambdas import expressions
from edgeattn_converters.loading.lambdas import recognition as lambdas
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognisedError
from edgeattn_converters.loading.migrate import functional_nodes as nodes
from edgeattn_converters.loading.migrate import graph_operations as graph_ops
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name

_CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "div": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "neg": "negative", "abs": "abs", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal", "and": "logical_and",
    "or": "logical_or", "invert": "logical_not",
}  # fmt: skip


def is_operation_layer(class_name: str) -> bool:
    """Whether the layer is a call of a TensorFlow function."""
    return class_name in _CLASSES


def layer(
    item: Config, calls: Sequence[Mapping[str, Any]], ctx: Context
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Our layer for the expression, called with the tensors alone.

    Raises:
        UnsupportedModelError: a function that is not in the registry.
    """
    config = item.get("config") or {}
    name = str(item.get("name") or config.get("name"))
    if item.get("class_name") == "TensorFlowOpLayer":
        return _graph_layer(name, config, calls)
    path = str(config.get("function"))
    found: list[Expression] = []
    new_calls = []
    for call in calls:
        tensors: list[Any] = []
        try:
            arguments = [_value(value, tensors) for value in call["args"]]
            named = {key: _value(value, tensors) for key, value in call["kwargs"].items()}
            expression = _expression(path, arguments, named)
        except NotRecognisedError as error:
            raise _unsupported(name, path, error) from error
        if expression not in found:
            found.append(expression)
        new_calls.append({"args": [tensors], "kwargs": {}})
    if len(found) != 1:
        raise _unsupported(name, path, "it is called in several ways")
    safe = safe_name(name)
    return lambdas.expression_layer(safe, found[0], {}), new_calls


def _graph_layer(
    name: str, config: Config, calls: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A layer that is one node of a graph; its tensors come in the order of the node's inputs."""
    try:
        found = graph_ops.expression(config)
    except NotRecognisedError as error:
        raise _unsupported(name, "graph operation", error) from error
    new_calls = []
    for call in calls:
        first = call["args"][0]
        tensors = first if isinstance(first, list) else [first]
        new_calls.append({"args": [tensors], "kwargs": {}})
    return lambdas.expression_layer(safe_name(name), found, {}), new_calls


def _unsupported(name: str, path: str, reason: object) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"layer {name!r} calls TensorFlow's {path!r} in a way not known here ({reason})",
        hint="Rebuild the model with a Keras layer in its place.",
    )


def _value(value: Any, tensors: list[Any]) -> Expression:
    """An argument: tensors by their number, slices, numbers."""
    if nodes.is_tensor(value):
        if value not in tensors:
            tensors.append(value)
        return {"input": tensors.index(value)}
    if isinstance(value, Mapping) and set(value) == {"start", "stop", "step"}:
        return {"slice": [_value(value[key], tensors) for key in ("start", "stop", "step")]}
    if isinstance(value, Mapping):
        inner = value.get("config") or value.get("items") or value.get("value")
        if value.get("class_name") == "__tuple__" and isinstance(inner, list):
            return _value(inner, tensors)
        if value.get("class_name") == "__ellipsis__" or value.get("type") == "Ellipsis":
            return {"ellipsis": True}
        raise NotRecognisedError(f"an argument {value!r:.60}")
    if isinstance(value, list):
        return {"tuple": [_value(part, tensors) for part in value]}
    return expressions.constant(value)


def _expression(
    path: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    head, _, last = path.rpartition(".")
    if head == "__operators__" and last == "getitem":
        if "slice_spec" not in named:
            raise NotRecognisedError("a slice without bounds")
        return expressions.item(arguments[0], named["slice_spec"])
    if head == "__operators__":
        operation = _OPERATORS.get(last.removeprefix("r") if last in _REVERSED else last)
        others = [value for key, value in named.items() if key != "name"]
        if operation is None:
            raise NotRecognisedError("an operator")
        values = [*arguments, *others]
        return {"op": operation, "args": values[::-1] if last in _REVERSED else values}
    return expressions.function(f"tf.{path.removeprefix('compat.v1.')}", arguments, named)


_REVERSED = frozenset({"radd", "rsub", "rmul", "rtruediv", "rdiv", "rfloordiv", "rmod", "rpow"})
