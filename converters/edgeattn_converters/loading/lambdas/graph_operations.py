"""Nodes of a TensorFlow graph, created again for other inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

# Models of half precision are computed in float32.
_HALF = ("float16", "bfloat16")


def call(name: str, arguments: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """The output of an operation, or the list of its outputs if it may have several.

    ``arguments`` are its inputs in order, ``attributes`` the JSON form of those that a graph
    stores, by name.
    """
    import tensorflow as tf

    def create(*tensors: Any) -> Any:
        return _create(name, tensors, attributes)

    if not tf.executing_eagerly():
        return create(*arguments)
    return tf.function(create, autograph=False)(*map(_as_array, arguments))


def _create(name: str, arguments: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework import op_def_library, op_def_registry

    definition = op_def_registry.get(name)
    # Attributes that later versions of TensorFlow added have defaults.
    stored = {
        item.name: _value(item.default_value)
        for item in definition.attr
        if item.HasField("default_value")
    }
    stored |= {key: _attribute(value) for key, value in attributes.items()}
    inputs: dict[str, Any] = {}
    position = 0
    for argument in definition.input_arg:
        count = 1
        if argument.number_attr:
            count = int(stored[argument.number_attr])
        elif argument.type_list_attr:
            count = len(stored[argument.type_list_attr])
        values = arguments[position : position + count]
        position += count
        dtype = _dtype(argument, values, stored)
        tensors = [value if tf.is_tensor(value) else tf.constant(value, dtype) for value in values]
        is_list = argument.number_attr or argument.type_list_attr
        inputs[argument.name] = tensors if is_list else tensors[0]
    inferred = {
        attribute
        for argument in definition.input_arg
        for attribute in (argument.type_attr, argument.number_attr, argument.type_list_attr)
    }
    given = {item.name for item in definition.attr} - inferred
    named = {key: value for key, value in stored.items() if key in given}
    outputs = tf.nest.flatten(op_def_library.apply_op(name, **inputs, **named))
    [first, *others] = definition.output_arg
    return outputs if others or first.number_attr or first.type_list_attr else outputs[0]


def _as_array(value: Any) -> Any:
    """A list as an array, which a traced function takes as one argument."""
    import tensorflow as tf

    return tf.constant(value) if isinstance(value, list | tuple) else value


def _dtype(argument: Any, values: Sequence[Any], stored: Mapping[str, Any]) -> Any:
    """The dtype of constants: that of tensors beside them, or that of the stored node."""
    import tensorflow as tf

    tensors = [value.dtype for value in values if tf.is_tensor(value)]
    if tensors:
        return tensors[0]
    return stored[argument.type_attr] if argument.type_attr else argument.type or None


def _attribute(value: Any) -> Any:
    """An attribute from its JSON form: ``{"i": "2"}`` -> 2, ``{"type": "DT_INT32"}`` -> int32."""
    from google.protobuf import json_format
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    return _value(json_format.ParseDict(value, AttrValue()))


def _value(message: Any) -> Any:
    """The value of an attribute's message."""
    import tensorflow as tf

    kind = message.WhichOneof("value")
    if kind == "list":
        lists = {field.name: list(items) for field, items in message.list.ListFields()}
        name, items = next(iter(lists.items()), ("i", []))
        return [_plain(name, item) for item in items]
    if kind == "shape":
        return tf.TensorShape(message.shape)
    return _plain(str(kind), getattr(message, str(kind)))


def _plain(kind: str, value: Any) -> Any:
    import tensorflow as tf

    if kind == "type":
        dtype = tf.as_dtype(value)
        return tf.float32 if dtype.name in _HALF else dtype
    return value.decode("latin-1") if kind == "s" else value
