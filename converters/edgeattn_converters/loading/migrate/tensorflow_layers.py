"""TensorFlow calls that a functional Keras 2 model stores as layers: ``TFOpLambda`` and others.

They contain the name of a TensorFlow function or a node of a TensorFlow graph. Known ones become an
expression, like Lambda layers; nothing is looked up in TensorFlow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.lambdas import expressions, graph_nodes
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError
from edgeattn_converters.loading.migrate import functional_nodes
from edgeattn_converters.loading.migrate.context import safe_name
from edgeattn_converters.loading.migrate.lambda_layers import expression_layer

_CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "div": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "neg": "negative", "abs": "abs", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal", "and": "logical_and",
    "or": "logical_or", "invert": "logical_not",
}  # fmt: skip
_REFLECTED = frozenset({"radd", "rsub", "rmul", "rtruediv", "rdiv", "rfloordiv", "rmod", "rpow"})
_Call = Mapping[str, Any]


def is_tensorflow_layer(class_name: str) -> bool:
    """Return whether the layer is a call of TensorFlow."""
    return class_name in _CLASSES


def migrate(item: Config, calls: Sequence[_Call]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a layer that computes the expression, and its calls with tensors only.

    Raises :class:`UnsupportedModelError` if the function is unknown.
    """
    config = item.get("config") or {}
    name = str(item.get("name") or config.get("name"))
    path = str(config.get("function", "graph operation"))
    try:
        if item.get("class_name") == "TensorFlowOpLayer":
            expression, inputs = graph_nodes.expression(config), [_first(call) for call in calls]
        else:
            expression, inputs = _function_calls(path, calls)
    except NotRecognizedError as error:
        raise UnsupportedModelError(
            f"Layer {name!r} calls the TensorFlow function {path!r} in an unknown way ({error}).",
            hint="Rebuild the model with a Keras layer in its place.",
        ) from error
    migrated_calls = [{"args": [tensors], "kwargs": {}} for tensors in inputs]
    return expression_layer(safe_name(name), expression, {}), migrated_calls


def _first(call: _Call) -> list[Any]:
    """Return the tensors of a graph node, in the order of the node's inputs."""
    first = call["args"][0]
    return first if isinstance(first, list) else [first]


def _function_calls(path: str, calls: Sequence[_Call]) -> tuple[Expression, list[list[Any]]]:
    """Return the expression that all calls compute, and the tensors of each call."""
    distinct: list[Expression] = []
    inputs = []
    for call in calls:
        tensors: list[Any] = []
        arguments = [_value(value, tensors) for value in call["args"]]
        named = {key: _value(value, tensors) for key, value in call["kwargs"].items()}
        expression = _expression(path, arguments, named)
        if expression not in distinct:
            distinct.append(expression)
        inputs.append(tensors)
    if len(distinct) != 1:
        raise NotRecognizedError("its calls differ")
    return distinct[0], inputs


def _value(value: Any, tensors: list[Any]) -> Expression:
    """Return an argument as an expression; tensors are collected and referenced by index."""
    if functional_nodes.is_tensor(value):
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
        raise NotRecognizedError(f"unknown argument {value!r:.60}")
    if isinstance(value, list):
        return {"tuple": [_value(part, tensors) for part in value]}
    return expressions.constant(value)


def _expression(
    path: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    module, _, name = path.rpartition(".")
    if module != "__operators__":
        return expressions.function(f"tf.{path.removeprefix('compat.v1.')}", arguments, named)
    if name == "getitem":
        if "slice_spec" not in named:
            raise NotRecognizedError("a slice without bounds")
        return expressions.item(arguments[0], named["slice_spec"])
    operation = _OPERATORS.get(name.removeprefix("r") if name in _REFLECTED else name)
    if operation is None:
        raise NotRecognizedError(f"unknown operator {name!r}")
    values = [*arguments, *(value for key, value in named.items() if key != "name")]
    return {"op": operation, "args": values[::-1] if name in _REFLECTED else values}
