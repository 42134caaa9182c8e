"""How far rounding in float32 moves the outputs and maps of Keras itself.

A file adds and multiplies in another order than Keras, so that the result of each operation differs
in its last digit. Usually that changes an output as little. It changes much more if large numbers
cancel each other, as in LayerNormalization of a single feature, or if scores are in the hundreds.
Stochastic arithmetic measures it: the model is run again, with the last digit of every result of an
operation changed at random. A sum or a product of matrices consists of many additions, each of
which rounds: over thousands of values, as in the average of a large image, that is a hundred times
more than the last digit of the result.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import (
    Creation,
    LaterChanges,
    created_by,
    is_copy,
)
from edgeattn_converters.reference.traced_values import changed_function
from edgeattn_converters.tracing.trace import Interface

# Operations whose results are rounded.
_ROUNDED = frozenset(
    {"Add", "AddN", "AddV2", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "BiasAdd", "Conv2D"}
    | {"Conv3D", "Cos", "Cumprod", "Cumsum", "DepthwiseConv2dNative", "Div", "DivNoNan", "Einsum"}
    | {"Elu", "Erf", "Exp", "Expm1", "Log", "Log1p", "LogSoftmax", "MatMul", "Mean", "Mul", "Pow"}
    | {"Prod", "RealDiv", "Reciprocal", "Rsqrt", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus"}
    | {"Sqrt", "Square", "SquaredDifference", "Sub", "Sum", "Tanh"}
)
_PRECISION = 2.0**-23
# The error of a sigmoid is relative to 1, also where the result is 0: the reset gate of a GRU in
# onnxruntime is 2.4e-7 for -20 and less. A gate of a large state multiplies it by the state.
_SIGMOID = "Sigmoid"
_ERROR_OF_SIGMOID = 2 * _PRECISION
_MATRICES = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "MatMul")
_CONVOLUTIONS = ("Conv2D", "Conv3D")


def rounded_function(
    model: Any, interface: Interface, *, attention: bool, alone: bool = False
) -> Callable[[Tensors, int], Tensors]:
    """What Keras computes from inputs if the results of operations change in the last digit.

    The same number changes the same digits. If ``alone``, no sample is in a batch with others.
    """
    import tensorflow as tf

    seed = tf.Variable(0, dtype=tf.int32, trainable=False)
    return changed_function(
        model,
        interface,
        seed,
        partial(_rounded_results, interface.half),
        attention=attention,
        alone=alone,
    )


@contextlib.contextmanager
def _rounded_results(half: Sequence[str], seed: Any, later: LaterChanges) -> Iterator[None]:
    """``half`` are dtypes that are traced as they are, and computed in float32."""
    import tensorflow as tf

    dtypes = ("float32", *half)
    count = 0
    inside = False

    def changed(operation: Any, again: Callable[[list[Any]], Any]) -> Any:
        nonlocal inside
        inside = True
        try:
            return rounded(operation, again)
        finally:
            inside = False

    def rounded(operation: Any, again: Callable[[list[Any]], Any]) -> Any:
        nonlocal count
        count += 1
        result = _single(operation.outputs[0])
        numbers = [seed.read_value(), count]
        steps = tf.random.stateless_uniform(tf.shape(result), numbers, -1, 2, dtype=tf.int32)
        steps = tf.cast(steps, tf.float32)
        if operation.type == _SIGMOID:
            return result + tf.where(steps < 0, -_ERROR_OF_SIGMOID, _ERROR_OF_SIGMOID)
        other = result * (1 + _PRECISION * steps)
        sums = _error_of_additions(operation, again)
        if sums is not None:
            other += sums * tf.random.stateless_normal(tf.shape(result), numbers)
        # Counts, masks and other integers are exact.
        return tf.where(tf.equal(result, tf.round(result)), result, other)

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        operation = create(graph, kind, inputs, *args, **kwargs)
        if inside or is_copy(kwargs) or kind not in _ROUNDED:
            return operation
        dtype = operation.outputs[0].dtype
        if dtype.name not in dtypes:
            return operation

        def again(others: list[Any]) -> Any:
            same = [
                tf.cast(other, before.dtype)
                for other, before in zip(others, operation.inputs, strict=True)
            ]
            result = create(graph, kind, same, *args, **{**kwargs, "name": None}).outputs[0]
            return _single(result)

        return later.add(operation, lambda: tf.cast(changed(operation, again), dtype))

    with created_by(creation):
        yield


def _single(tensor: Any) -> Any:
    """A float tensor in float32; others unchanged."""
    import tensorflow as tf

    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor


def _error_of_additions(operation: Any, again: Callable[[list[Any]], Any]) -> Any:
    """The standard deviation of the results of a sum whose additions round at random.

    None for operations that do not sum. ``again`` computes the operation for other inputs.

    If every partial sum ``s`` changes by -1, 0 or 1 times the precision, the variance of the error
    is two thirds of the squared precision times the sum of all ``s**2``. For ``n`` terms in random
    order, with the sum ``t`` and the sum of squares ``q``, that sum is about
    ``n * (t**2 / 3 + q / 6)``. A probabilistic analysis of rounding errors: Higham and Mary, "A new
    approach to probabilistic rounding error analysis", 2019.
    """
    import tensorflow as tf

    kind, result = operation.type, _single(operation.outputs[0])
    inputs = [_single(item) for item in operation.inputs]
    if kind in ("Mean", "Sum"):
        terms = tf.size(inputs[0]) / tf.maximum(tf.size(result), 1)
        squares = again([tf.square(inputs[0]), inputs[1]])
    elif kind in _MATRICES:
        flag = "transpose_a" if kind == "MatMul" else "adj_x"
        terms = tf.shape(inputs[0])[-2 if operation.get_attr(flag) else -1]
        squares = again([tf.square(item) for item in inputs])
    elif kind in _CONVOLUTIONS:
        terms = tf.reduce_prod(tf.shape(inputs[1])[:-1])
        squares = again([tf.square(item) for item in inputs])
    else:
        return None
    terms = tf.cast(terms, tf.float32)
    if kind == "Mean":
        # The sum of squares is n times their mean, and the error of the sum is divided by n.
        variance = terms * tf.square(result) / 3 + squares / 6
    else:
        variance = terms * (tf.square(result) / 3 + squares / 6)
    return _PRECISION * math.sqrt(2 / 3) * tf.sqrt(variance)
