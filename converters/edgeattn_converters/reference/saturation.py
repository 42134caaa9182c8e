"""Extremes on which a model divides by saturated activations.

Runtimes compute a sigmoid with an absolute error of about the rounding of 1, so that a saturated
one is 1e-8 in one and 0 in another. A model that divides by it, or takes its logarithm, has no
defined result there.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from edgeattn.tensors import Tensors
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure
from edgeattn_converters.tracing.trace import Interface, trace

_BOUNDED = ("Sigmoid", "Tanh", "Softmax")
_STEEP = frozenset({"Divide", "TrueDivide", "Reciprocal", "Power", "Log", "Rsqrt"})
ROUNDING = 2.0**-23


def shifted_function(model: Any, interface: Interface) -> Callable[[Tensors], KerasOutputs] | None:
    """What Keras computes if bounded activations are larger by the rounding of 1.

    None for models without an operation that is steep near zero.
    """
    import tensorflow as tf

    models = [item for item in model._flatten_layers() if hasattr(item, "operations")]
    kinds = {type(operation).__name__ for item in models for operation in item.operations}
    if not kinds & _STEEP:
        return None
    traced = trace(
        model, interface, batch=None, attention=False, freeze=False, lowering=_shifted_activations
    )

    def run(inputs: Tensors) -> KerasOutputs:
        results = traced.function(*[tf.constant(inputs[spec.name]) for spec in interface.inputs])
        names = [spec.name for spec in traced.outputs]
        values = {name: value.numpy() for name, value in zip(names, results, strict=True)}
        return KerasOutputs(values, {}, {})

    return by_row_on_failure(run)


@contextlib.contextmanager
def _shifted_activations() -> Iterator[None]:
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    original = FuncGraph._create_op_internal

    def create(graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        operation = original(graph, kind, *args, **kwargs)
        return tf.add(operation.outputs[0], ROUNDING).op if kind in _BOUNDED else operation

    FuncGraph._create_op_internal = create
    try:
        yield
    finally:
        FuncGraph._create_op_internal = original
