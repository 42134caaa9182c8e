"""How far rounding in float32 moves the outputs and maps of Keras itself.

A file adds and multiplies in another order than Keras, so that the result of each operation differs
in its last digit. Usually that changes an output as little. It changes much more if large numbers
cancel each other, as in LayerNormalization of a single feature, or if scores are in the hundreds.
Stochastic arithmetic measures it: the model is run again, with the last digit of every result of an
operation changed at random.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from edgeattn.tensors import Array, Tensors
from edgeattn_converters.tracing.trace import Interface, trace

# Operations whose results are rounded.
_ROUNDED = frozenset(
    {"Add", "AddN", "AddV2", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "BiasAdd", "Conv2D"}
    | {"Conv3D", "Cos", "Cumprod", "Cumsum", "DepthwiseConv2dNative", "Div", "DivNoNan", "Einsum"}
    | {"Elu", "Erf", "Exp", "Expm1", "Log", "Log1p", "LogSoftmax", "MatMul", "Mean", "Mul", "Pow"}
    | {"Prod", "RealDiv", "Reciprocal", "Rsqrt", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus"}
    | {"Sqrt", "Square", "SquaredDifference", "Sub", "Sum", "Tanh"}
)
_PRECISION = 2.0**-23


def rounded_function(
    model: Any, interface: Interface, *, attention: bool
) -> Callable[[Tensors, int], dict[str, Array]]:
    """What Keras computes from inputs if the results of operations change in the last digit.

    The same number changes the same digits.
    """
    import tensorflow as tf

    seed = tf.Variable(0, dtype=tf.int32, trainable=False)
    traced = trace(
        model,
        interface,
        batch=None,
        attention=attention,
        freeze=False,
        lowering=lambda: _rounded_results(seed),
    )

    def run(inputs: Tensors, number: int) -> dict[str, Array]:
        seed.assign(number)
        results = traced.function(*[tf.constant(inputs[spec.name]) for spec in interface.inputs])
        names = [spec.name for spec in traced.outputs]
        return {name: value.numpy() for name, value in zip(names, results, strict=True)}

    return run


@contextlib.contextmanager
def _rounded_results(seed: Any) -> Iterator[None]:
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    original = FuncGraph._create_op_internal
    count = 0
    inside = False

    def changed(result: Any) -> Any:
        nonlocal count
        count += 1
        steps = tf.random.stateless_uniform(
            tf.shape(result), [seed.read_value(), count], -1, 2, dtype=tf.int32
        )
        other = result * (1 + _PRECISION * tf.cast(steps, tf.float32))
        # Counts, masks and other integers are exact.
        return tf.where(tf.equal(result, tf.round(result)), result, other)

    def create(graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        operation = original(graph, kind, *args, **kwargs)
        if inside or kind not in _ROUNDED or operation.outputs[0].dtype != tf.float32:
            return operation
        inside = True
        try:
            return changed(operation.outputs[0]).op
        finally:
            inside = False

    FuncGraph._create_op_internal = create
    try:
        yield
    finally:
        FuncGraph._create_op_internal = original
