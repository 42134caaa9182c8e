"""The layers around calls with Keras tensors.

They are those that a file with such a layer of Keras 2 gets, which can be stored, or a layer that
calls the function if a file could not contain its arguments.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn_converters.loading.keras_tensors import is_keras_tensor, keras_tensors
from edgeattn_converters.loading.lambdas import expressions, tensorflow_functions
from edgeattn_converters.loading.lambdas.calls_by_name import call_of
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError
from edgeattn_converters.loading.legacy.legacy_program import generated_name
from edgeattn_converters.loading.migrate.context import safe_name

# The prefix of functions of the backend of Keras 2, which those of TensorFlow do not have.
BACKEND = "K."
_SHAPES = ("shape", "compat.v1.shape")
_RANKS = ("rank", "compat.v1.rank")
# The attribute of Keras tensors of sizes. Their values are unknown while a model is built, so they
# become part of the expressions that use them. It is a function that returns the expression.
_SIZE = "_edgeattn_size"


class Sizes(list[Any]):
    """The shape of a Keras tensor: numbers, and Keras tensors for sizes that are not known.

    A Keras tensor of all sizes would hide the known ones from the layers that follow. Arithmetic,
    with which a list does something else than a tensor, is an error.
    """

    def __getitem__(self, key: Any) -> Any:
        """Return a size, or the sizes of a slice."""
        value = super().__getitem__(key)
        return Sizes(value) if isinstance(key, slice) else value

    def _refuse(self, *_: object) -> Any:
        raise TypeError("Compute with the sizes of a shape, tf.shape(x)[0], not with all of them.")

    __add__ = __radd__ = __iadd__ = __mul__ = __rmul__ = __imul__ = _refuse
    __sub__ = __rsub__ = __truediv__ = __floordiv__ = __mod__ = _refuse


def has_tensors(args: Any, kwargs: Any) -> bool:
    """Return whether the arguments of a call contain Keras tensors."""
    return bool(keras_tensors(_with_lists((args, kwargs))))


def result_of(
    function: Callable[..., Any], path: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Return the result of a function with this name for arguments with Keras tensors."""

    args, kwargs = _with_lists((args, {key: kwargs[key] for key in kwargs if key != "name"}))
    if path in _SHAPES:
        return _sizes(*args, **kwargs)
    if path in _RANKS:
        return _rank(*args, **kwargs)
    make = functools.partial(_call, path, args, kwargs)
    tensors: list[Any] = []
    try:
        expression = make(tensors)
    except NotRecognizedError:
        return _function_layer(path, function, args, kwargs)
    if "tuple" in expression:  # tf.convert_to_tensor of a list, which is a shape elsewhere
        expression = expressions.operation("stack", expression, expressions.constant(0))
    result = _layer(path, expression)(tensors)
    given = keras_tensors((args, kwargs))
    if is_keras_tensor(result) and "int" in result.dtype and all(hasattr(x, _SIZE) for x in given):
        setattr(result, _SIZE, make)
    return result


def _with_lists(arguments: Any) -> Any:
    """Arguments with lists instead of shapes, into which Keras does not look."""
    import keras

    return keras.tree.map_structure(
        lambda leaf: list(leaf) if isinstance(leaf, Sizes) else leaf, arguments
    )


def _sizes(x: Any, *_: Any, **__: Any) -> Sizes:
    def expression(axis: int, tensors: list[Any]) -> Expression:
        shape = {"op": "shape", "args": [_expression(x, tensors)]}
        return expressions.item(shape, {"const": axis})

    def size(axis: int) -> Any:
        # A tensor also if the size is known then: layers take tensors only.
        whole = expressions.tensorflow_call("shape", [{"input": 0}], {})
        result = _layer("shape", expressions.item(whole, {"const": axis}))([x])
        setattr(result, _SIZE, functools.partial(expression, axis))
        return result

    return Sizes(size(axis) if known is None else known for axis, known in enumerate(x.shape))


def _rank(x: Any = None, *, input: Any = None, **_: Any) -> int:
    """The number of axes of a Keras tensor, which is always known."""
    return len((x if input is None else input).shape)


def _call(
    path: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: list[Any]
) -> Expression:
    """A call as an expression of ``tensors``, to which those that it needs are added."""
    arguments = [_expression(value, tensors) for value in args]
    named = {key: _expression(value, tensors) for key, value in kwargs.items()}
    if path.startswith(BACKEND):
        return expressions.function(path, arguments, named)
    # Functions of keras.ops take sizes that are numbers, those of TensorFlow tensors too.
    if any(map(_has_sizes, (*args, *kwargs.values()))) and tensorflow_functions.is_known(path):
        return expressions.tensorflow_call(path, arguments, named)
    return call_of(path, arguments, named)


def _has_sizes(argument: Any) -> bool:
    if isinstance(argument, tuple | list):
        return any(map(_has_sizes, argument))
    return is_keras_tensor(argument) and (hasattr(argument, _SIZE) or argument.shape == ())


def _expression(value: Any, tensors: list[Any]) -> Expression:
    """An argument as an expression; Keras tensors are collected and referenced by index."""
    import tensorflow as tf

    if hasattr(value, _SIZE):
        size: Expression = getattr(value, _SIZE)(tensors)
        return size
    if is_keras_tensor(value):
        known = [id(tensor) for tensor in tensors]
        if id(value) not in known:
            tensors.append(value)
        return {"input": known.index(id(value)) if id(value) in known else len(known)}
    if isinstance(value, tuple | list):
        return {"tuple": [_expression(item, tensors) for item in value]}
    if isinstance(value, tf.DType):
        return {"const": value.name}
    if isinstance(value, tf.TensorShape):
        return expressions.constant(value.as_list())
    if tf.is_tensor(value) or isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        # Axes and sizes; other arrays have a type that numbers do not keep.
        if array.dtype.kind == "i" and array.ndim <= 1:
            return expressions.tensor_of(expressions.constant(array.tolist()))
    return expressions.constant(value)


def _layer(path: str, expression: Expression) -> Any:
    from edgeattn_converters.loading.migrate import registered_objects

    return registered_objects.Expression(expression, name=_name(path))


def _name(path: str) -> str:
    """The name that Keras 2 gave to the layer of a call."""
    return safe_name(generated_name(path if path.startswith(BACKEND) else f"tf.{path}"))


def _function_layer(
    path: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The result of a layer that calls a function, of which it stores nothing."""
    import keras

    leaves = keras.tree.flatten((args, kwargs))
    tensors = keras_tensors(leaves)

    class TensorFlowFunction(keras.layers.Layer):
        """Calls the function with its tensors in the place of those of Keras."""

        def call(self, inputs: Any) -> Any:
            """Return the result of the function."""
            remaining = iter(inputs)
            values = [next(remaining) if is_keras_tensor(leaf) else leaf for leaf in leaves]
            args_now, kwargs_now = keras.tree.pack_sequence_as((args, kwargs), values)
            return function(*args_now, **kwargs_now)

        def compute_mask(self, _inputs: Any, _previous: Any = None) -> None:
            """Return no mask, as the layer of Keras 2."""

    layer = TensorFlowFunction(name=_name(path))
    layer.supports_masking = True  # accepts a mask and passes none on
    return layer(tensors)
