"""Evaluation of expressions with ``keras.ops``."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from edgeattn_converters.loading.eras import batch_products
from edgeattn_converters.loading.keras_tensors import without_mask
from edgeattn_converters.loading.lambdas import (
    backend_functions,
    graph_operations,
    tensorflow_functions,
)
from edgeattn_converters.loading.lambdas.expressions import Expression

# Functions of TensorFlow that return a tensor of the right dtype itself, with its mask.
_MAY_RETURN_ARGUMENT = frozenset({"cast", "cast_to_floatx"})


def evaluate(expression: Expression, inputs: Any) -> Any:
    """The value of an expression for the tensor or list of tensors that the layer receives."""
    if "input" in expression:
        index = expression["input"]
        return inputs if index is None else inputs[index]
    if "const" in expression:
        return expression["const"]
    if "ellipsis" in expression:
        return Ellipsis
    if "output" in expression:
        whole, position = expression["output"]
        return evaluate(whole, inputs)[position]
    if "tuple" in expression:
        return tuple(evaluate(part, inputs) for part in expression["tuple"])
    if "slice" in expression:
        return slice(*(evaluate(part, inputs) for part in expression["slice"]))
    values = [evaluate(part, inputs) for part in expression["args"]]
    if "graph" in expression:
        return graph_operations.call(expression["graph"], values, expression["attributes"])
    if "tensorflow" in expression:
        named = {key: evaluate(part, inputs) for key, part in expression["named"].items()}
        return tensorflow_functions.call(expression["tensorflow"], values, named)
    if "backend" in expression:
        named = {key: evaluate(part, inputs) for key, part in expression["named"].items()}
        return backend_functions.call(expression["backend"], values, named)
    result = _OPERATIONS[expression["op"]](*values)
    # Where Keras returns the tensor itself, most functions of TensorFlow return another one.
    return result if expression["op"] in _MAY_RETURN_ARGUMENT else without_mask(result)


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list | tuple) else axis


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis, keepdims: function(x, axis=_axes(axis), keepdims=bool(keepdims))


def _is_integer(x: Any) -> bool:
    return hasattr(x, "dtype") and "int" in keras.backend.standardize_dtype(x.dtype)


def _of_its_type(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute in the type of the tensor, as TensorFlow; Keras computes small integers as larger."""

    def call(x: Any, **arguments: Any) -> Any:
        result = function(x, **arguments)
        return ops.cast(result, x.dtype) if _is_integer(x) else result

    return call


def _mean(x: Any, **arguments: Any) -> Any:
    """Compute ``tf.reduce_mean``, which drops the fraction of the mean of integers."""
    if not _is_integer(x):
        return ops.mean(x, **arguments)
    total = ops.sum(ops.cast(x, "int64"), **arguments)
    count = ops.sum(ops.ones_like(x, dtype="int64"), **arguments)
    quotient = ops.floor_divide(ops.absolute(total), count)
    return ops.cast(ops.where(total < 0, -quotient, quotient), x.dtype)


def _add(x: Any, y: Any) -> Any:
    """Add tensors as TensorFlow does.

    Keras takes a constant of which one axis is not 1 as a bias. That of shape (n, 1) it adds along
    the last axis of n, and that of shape (n,) along the second of n if the last one is 1.
    """
    import tensorflow as tf

    dtype = next((value.dtype for value in (x, y) if tf.is_tensor(value)), None)
    if dtype is not None:
        x, y = (_tensor(value, dtype) if isinstance(value, tuple) else value for value in (x, y))
    if tf.is_tensor(x) and tf.is_tensor(y) and x.dtype == y.dtype:
        return tf.add(x, y)
    return ops.add(x, y)


def _divide(x: Any, y: Any) -> Any:
    """Compute ``tf.compat.v1.div``, which rounds the quotient of integers down."""
    is_integer = _is_integer(x) or _is_integer(y)  # TensorFlow divides operands of one type
    return (ops.floor_divide if is_integer else ops.true_divide)(x, y)


def _constant_of_type(value: Any, x: Any) -> Any:
    """The constant, which the file contains without its type, as one of the type of ``x``."""
    return ops.convert_to_tensor(value, dtype=x.dtype) if hasattr(x, "dtype") else value


def _binary(on_tensors: Callable[..., Any], on_numbers: Callable[..., Any]) -> Callable[..., Any]:
    """Choose by the arguments: half the size of an axis must stay a number, not become a tensor."""

    def call(*values: Any) -> Any:
        numbers = all(isinstance(value, int | float) for value in values)
        return (on_numbers if numbers else on_tensors)(*values)

    return call


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    first = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(first, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _dot(x: Any, y: Any) -> Any:
    """Contract the last axis of x with the second to last of y, like the backend of Keras 2."""
    return ops.tensordot(x, y, axes=[[len(x.shape) - 1], [max(len(y.shape) - 2, 0)]])


def _batch_dot(x: Any, y: Any, axes: Any) -> Any:
    former = batch_products.former(x, y, axes)
    if former is not None:
        return former
    if axes is None:
        axes = (len(x.shape) - 1, max(len(y.shape) - 2, 1))
    return keras.layers.Dot(axes=axes if isinstance(axes, int) else tuple(axes))([x, y])


def _l2_normalize(x: Any, axis: Any) -> Any:
    total = ops.sum(ops.square(x), axis=_axes(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(total, 1e-12))


def _slice(x: Any, begin: Any, size: Any) -> Any:
    """Compute ``tf.slice``; a size of -1 extends to the end of the axis."""
    key = tuple(
        slice(start, None if length == -1 else start + length)
        for start, length in zip(begin, size, strict=True)
    )
    return x[key]


def _getitem(x: Any, key: Any) -> Any:
    """Compute ``x[key]``; a shape is a tuple, which takes no tuple as key."""
    one_key = isinstance(x, tuple | list) and isinstance(key, tuple) and len(key) == 1
    return x[key[0] if one_key else key]


def _squeeze(x: Any, axis: Any) -> Any:
    """Remove axes of 1: without ``axis`` all but the first, which is that of the samples.

    TensorFlow removes that one too if a batch has one sample, as in TFLite files.
    """
    axes = _axes(axis)
    if axes is None or axes == ():
        axes = tuple(index for index, size in enumerate(x.shape) if index and size == 1)
    return ops.squeeze(x, axis=axes) if axes != () else x


def _flip(x: Any, axis: Any) -> Any:
    for index in axis if isinstance(axis, list | tuple) else [axis]:
        x = ops.flip(x, axis=index)
    return x


def _split(x: Any, parts: Any, axis: int) -> Any:
    if isinstance(parts, list | tuple):
        boundaries = [sum(parts[: index + 1]) for index in range(len(parts) - 1)]
        return ops.split(x, boundaries, axis=axis)
    return ops.split(x, parts, axis=axis)


def _tensors(values: Any) -> Any:
    """Tensors and constants, which the file contains as nested tuples, of one type."""
    dtype = next((value.dtype for value in _leaves(values) if hasattr(value, "dtype")), None)
    if dtype is None or all(hasattr(value, "dtype") for value in values):
        return values
    return [_tensor(value, dtype) for value in values]


def _concat(values: Any, axis: Any) -> Any:
    """Compute ``tf.concat``, which returns a tensor that is not in a list, whatever the axis is."""
    return (
        ops.concatenate(_tensors(values), axis=axis)
        if isinstance(values, list | tuple)
        else (values)
    )


def _tensor(value: Any, dtype: Any) -> Any:
    if hasattr(value, "dtype"):
        return value
    if any(hasattr(part, "dtype") for part in _leaves(value)):
        return ops.stack([_tensor(part, dtype) for part in value])
    return ops.convert_to_tensor(value, dtype=dtype)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


# Operations with the name and the arguments of a function in keras.ops.
_SAME_AS_KERAS = """
sigmoid tanh exp log log1p sqrt rsqrt square sign round floor ceil sin cos elu selu softplus
softsign silu erf zeros_like ones_like relu relu6 hard_sigmoid maximum minimum equal not_equal
greater greater_equal less less_equal logical_and logical_or logical_not power stop_gradient shape
argmax argmin unstack reshape softmax log_softmax leaky_relu gelu clip cast
repeat tile where one_hot cumsum pad
"""
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(ops, name) for name in _SAME_AS_KERAS.split()},
    **{
        name: _reduction(getattr(ops, name))
        for name in ("max", "min", "std", "var", "any", "all", "logsumexp")
    },
    **{f"keras_{name}": _reduction(getattr(ops, name)) for name in ("mean", "sum", "prod")},
    "mean": _reduction(_mean),
    "sum": _reduction(_of_its_type(ops.sum)),
    "prod": _reduction(_of_its_type(ops.prod)),
    "constant_of_type": _constant_of_type,
    "add": _binary(_add, operator.add),
    "keras_add": _binary(ops.add, operator.add),
    "subtract": _binary(ops.subtract, operator.sub),
    "multiply": _binary(ops.multiply, operator.mul),
    "divide": _binary(ops.true_divide, operator.truediv),
    "divide_of_type": _binary(_divide, operator.truediv),
    "floor_divide": _binary(ops.floor_divide, operator.floordiv),
    "remainder": _binary(ops.mod, operator.mod),
    "negative": _binary(ops.negative, operator.neg),
    "squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
    "abs": ops.absolute,
    "swish": ops.silu,
    "identity": lambda x, *_: x,
    "cast_to_floatx": lambda x: ops.cast(x, "float32"),
    "getitem": _getitem,
    "expand_dims": lambda x, axis: ops.expand_dims(x, _axes(axis)),
    "squeeze": _squeeze,
    "transpose": lambda x, axes=None: ops.transpose(x, _axes(axes)),
    "hard_sigmoid_keras2": lambda x: ops.clip(x * 0.2 + 0.5, 0.0, 1.0),
    "l2_normalize": _l2_normalize,
    "dot": _dot,
    "matmul": _matmul,
    "batch_dot": _batch_dot,
    "flip": _flip,
    "repeat_elements": ops.repeat,
    "repeat_vector": lambda x, n: ops.repeat(ops.expand_dims(x, 1), n, axis=1),
    "take": lambda x, indices, *rest: ops.take(x, indices, axis=rest[-1] if rest else 0),
    # Without an axis, TensorFlow takes the first one and Keras flattens the tensor.
    "gather": lambda x, indices, _, axis: ops.take(x, indices, axis=axis or 0),
    "first_argmax": lambda x, axis: ops.argmax(x, axis=axis or 0),
    "first_argmin": lambda x, axis: ops.argmin(x, axis=axis or 0),
    "stack": lambda values, axis: ops.stack(_tensors(values), axis=axis),
    "concatenate": lambda values, axis: ops.concatenate(_tensors(values), axis=axis),
    "concat": _concat,
    "batch_flatten": lambda x: ops.reshape(x, (ops.shape(x)[0], -1)),
    "flatten": lambda x: ops.reshape(x, (-1,)),
    "split": _split,
    "slice": _slice,
}
