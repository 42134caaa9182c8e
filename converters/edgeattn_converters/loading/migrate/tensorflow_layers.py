"""TensorFlow calls that a functional Keras 2 model stores as layers: ``TFOpLambda`` and others.

They contain the name of a TensorFlow function or a node of a TensorFlow graph. Known ones become an
expression, like Lambda layers.

Calls that compute with shapes, such as ``tf.shape(x)[1] // 2``, become part of the expressions that
use them: Keras 3 would pass them on as tensors, whose values are unknown while a model is built.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.error_text import beginning
from edgeattn_converters.loading.lambdas import (
    expressions,
    graph_nodes,
    signatures,
    tensorflow_functions,
)
from edgeattn_converters.loading.lambdas.calls_by_name import call_of
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError
from edgeattn_converters.loading.migrate import functional_nodes
from edgeattn_converters.loading.migrate.context import safe_name
from edgeattn_converters.loading.migrate.lambda_layers import expression_layer

_CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
# Keras 2 stored only the first argument of functions such as ``tf.einsum``, the equation.
_WITHOUT_TENSORS = (
    "Keras 2 and tf_keras cannot restore them either. Build the model again in the program that "
    "saved it, load the weights, and save a folder: model.load_weights(FILE); model.save('model'). "
    "Then convert the folder, which contains the graph."
)
_Call = Mapping[str, Any]


class _MissingTensorsError(NotRecognizedError):
    """A stored call has no tensors."""


def is_tensorflow_layer(class_name: str) -> bool:
    """Return whether the layer is a call of TensorFlow."""
    return class_name in _CLASSES


def only_computes(item: Config) -> bool:
    """Return whether the layer calls a function that is known to only compute on tensors."""
    config = item.get("config") or {}
    if item.get("class_name") == "TensorFlowOpLayer":
        # Text is JSON here and a serialized message in tf_keras.
        return isinstance(config.get("node_def"), Mapping) and graph_nodes.is_known(config)
    path = str(config.get("function"))
    name = f"tf.{path.removeprefix('compat.v1.')}"
    return (
        path.startswith("__operators__.")
        or tensorflow_functions.is_known(path)
        or signatures.find(name) is not None
    )


# Layers of a training model whose results are losses and metrics, not outputs.
_LOSSES = frozenset({"AddLoss", "AddMetric"})


def without_losses(
    layers: Sequence[tuple[Config, list[Any]]], names: Sequence[str], outputs: Any
) -> list[tuple[Config, list[Any]]]:
    """Layers with their calls, without losses, metrics and TensorFlow calls for them only.

    ``names`` are those of ``layers`` in the calls and in ``outputs``.
    """
    if not any(item.get("class_name") in _LOSSES for item, _ in layers):
        return list(layers)
    calls = {name: calls for name, (_, calls) in zip(names, layers, strict=True)}
    needed: set[str] = set()
    waiting = used_layers([], outputs)
    while waiting:
        needed |= waiting
        waiting = used_layers([call for name in waiting for call in calls.get(name, ())], [])
        waiting -= needed
    return [
        (item, stored)
        for name, (item, stored) in zip(names, layers, strict=True)
        if name in needed or item.get("class_name") not in _LOSSES | _CLASSES
    ]


_SHAPES = frozenset(
    {"shape", "compat.v1.shape", "shape_v2", "compat.v1.size", "size", "compat.v1.rank", "rank"}
)
_LISTS = frozenset({"unstack", "split"})
# Operations of which no shape is known without the axis.
_WITH_CONSTANT_AXES = frozenset(
    {"mean", "sum", "max", "min", "prod", "std", "var", "any", "all", "logsumexp", "first_argmax",
     "first_argmin", "expand_dims", "flip", "gather"}
)  # fmt: skip
# The calls that compute with shapes, by the name of their layer, each with its config.
ShapeCalls = Mapping[str, _Call]


def shape_calls(layers: Sequence[tuple[Config, Sequence[_Call]]]) -> dict[str, dict[str, Any]]:
    """The calls that compute with the shapes of tensors only, by the names of their layers.

    ``layers`` are those of a functional model with their calls.
    """
    shapes: dict[str, dict[str, Any]] = {}
    for item, calls in layers:
        config = item.get("config") or {}
        if item.get("class_name") not in _CLASSES or len(calls) != 1:
            continue
        is_shape = _path(config) in _SHAPES or graph_nodes.is_shape(config)
        if is_shape or _uses_only(calls[0], shapes):
            name = safe_name(str(item.get("name") or config.get("name")))
            shapes[name] = {"config": config, **calls[0]}
    return shapes


def _path(config: Config) -> str:
    """The name of a function of TensorFlow; empty for a node of its graph."""
    return "" if "node_def" in config else str(config.get("function"))


def _uses_only(value: Any, names: Mapping[str, Any]) -> bool:
    """Whether a call has tensors, and all of them are results of the layers ``names``."""
    used = list(_layers_of(value))
    return bool(used) and all(name in names for name in used)


def _layers_of(value: Any) -> Iterator[str]:
    """The names of the layers whose results a call, or a part of it, contains."""
    if functional_nodes.is_tensor(value):
        yield value["config"]["keras_history"][0]
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _layers_of(part)


def used_layers(calls: Sequence[_Call], endpoints: Any) -> set[str]:
    """The names of the layers whose results calls use, or that are outputs of the model."""
    names = {name for call in calls for name in _layers_of(dict(call))}
    waiting = [endpoints]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            names.add(value)
        elif isinstance(value, Mapping | list):
            waiting.extend(value.values() if isinstance(value, Mapping) else value)
    return names


def migrate(
    item: Config, calls: Sequence[_Call], shapes: ShapeCalls
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a layer that computes the expression, and its calls with tensors only.

    ``shapes`` are the calls that become part of the expression. Raises
    :class:`UnsupportedModelError` if the function is unknown.
    """
    config = item.get("config") or {}
    name = str(item.get("name") or config.get("name"))
    try:
        expression, inputs = _all_calls(config, calls, shapes)
    except NotRecognizedError as error:
        path = _path(config) or graph_nodes.operation_name(config)
        kind = "function" if "function" in config else "operation"
        hint = "Rebuild the model with a Keras layer in its place."
        raise UnsupportedModelError(
            f"Layer {name!r} calls the TensorFlow {kind} {path!r}: {error}.",
            hint=_WITHOUT_TENSORS if isinstance(error, _MissingTensorsError) else hint,
        ) from error
    migrated_calls = [{"args": [tensors], "kwargs": {}} for tensors in inputs]
    return expression_layer(safe_name(name), expression, {}), migrated_calls


def _all_calls(
    config: Config, calls: Sequence[_Call], shapes: ShapeCalls
) -> tuple[Expression, list[list[Any]]]:
    """Return the expression that all calls compute, and the tensors of each call."""
    distinct: list[Expression] = []
    inputs = []
    for call in calls:
        tensors: list[Any] = []
        if not any(_layers_of(dict(call))):
            raise _MissingTensorsError("the file does not contain its tensors")
        expression = _call_expression(config, call, tensors, shapes)
        if "tuple" in expression:  # tf.convert_to_tensor of a list, which is a shape elsewhere
            expression = expressions.operation("stack", expression, expressions.constant(0))
        if expression not in distinct:
            distinct.append(expression)
        inputs.append(tensors)
    if len(distinct) != 1:
        raise NotRecognizedError("its calls differ")
    return distinct[0], inputs


def _call_expression(
    config: Config,
    call: _Call,
    tensors: list[Any],
    shapes: ShapeCalls,
    *,
    of_shapes: bool = False,
) -> Expression:
    """Return one call as an expression; tensors are collected and referenced by index.

    A call that computes with shapes calls TensorFlow itself, which accepts tuples as tensors.
    """
    path = _path(config)
    if path.endswith("meshgrid"):
        # Keras 2 stores no further ones, and loads a call of one tensor with another result.
        raise _MissingTensorsError("the file contains only the first of its tensors")
    if not path:
        first = call["args"][0]
        values = first if isinstance(first, list) else [first]
        return graph_nodes.expression(config, [_value(v, tensors, shapes) for v in values])
    arguments = [_value(value, tensors, shapes) for value in call["args"]]
    named = {key: _value(value, tensors, shapes) for key, value in call["kwargs"].items()}
    # Functions of keras.ops take shapes that are numbers, those of TensorFlow tensors too.
    with_tensors = of_shapes or any(map(_calls_tensorflow, (*arguments, *named.values())))
    if with_tensors and path not in _SHAPES and tensorflow_functions.is_known(path):
        return expressions.tensorflow_call(path, arguments, named)
    result = call_of(path, arguments, named)
    if result.get("op") in _WITH_CONSTANT_AXES and any(
        name not in shapes for name in _layers_of(call["kwargs"].get("axis"))
    ):
        raise NotRecognizedError("its axis is computed from the data, and it must be a constant")
    return result


def _calls_tensorflow(expression: Any) -> bool:
    """Whether a shape is computed by a function of TensorFlow, whose result is a tensor."""
    if isinstance(expression, Mapping):
        return "tensorflow" in expression or any(map(_calls_tensorflow, expression.values()))
    return isinstance(expression, list) and any(map(_calls_tensorflow, expression))


def _value(value: Any, tensors: list[Any], shapes: ShapeCalls) -> Expression:
    """Return an argument as an expression."""
    if functional_nodes.is_tensor(value):
        name, _, position = value["config"]["keras_history"]
        if name in shapes:
            call = shapes[name]
            config = call["config"]
            result = _call_expression(config, call, tensors, shapes, of_shapes=True)
            path = _path(config)
            is_list = path.rsplit(".", 1)[-1] in _LISTS or graph_nodes.has_outputs(config)
            return {"output": [result, position]} if is_list else result
        if value not in tensors:
            tensors.append(value)
        return {"input": tensors.index(value)}
    if isinstance(value, Mapping) and set(value) == {"start", "stop", "step"}:
        parts = ("start", "stop", "step")
        return {"slice": [_value(value[key], tensors, shapes) for key in parts]}
    if isinstance(value, Mapping) and value.get("class_name") == "__tensor__":
        return expressions.tensor_of(_value(value["config"]["value"], tensors, shapes))
    if isinstance(value, Mapping):
        inner = value.get("config") or value.get("items") or value.get("value")
        if value.get("class_name") == "__tuple__" and isinstance(inner, list):
            return _value(inner, tensors, shapes)
        if value.get("class_name") == "__ellipsis__" or value.get("type") == "Ellipsis":
            return {"ellipsis": True}
        raise NotRecognizedError(f"unknown argument {beginning(repr(value), 60)}")
    if isinstance(value, list):
        return {"tuple": [_value(part, tensors, shapes) for part in value]}
    return expressions.constant(value)
