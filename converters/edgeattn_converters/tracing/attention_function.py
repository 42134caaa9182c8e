"""A function that computes the attention maps of a Keras model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.tracing.graph_form import sorted_top_k
from edgeattn_converters.tracing.trace import Interface, trace

# Samples per call, as in ``model.predict``; intermediate values of all of them are in memory.
BATCH_SIZE = 32


def attention_function(
    model: Any, interface: Interface, names: Sequence[str]
) -> Callable[[Tensors], Tensors]:
    """A function of the inputs that returns the maps with these names, the sample axis first.

    Raises :class:`UsageError` if the model has no such map.
    """
    import tensorflow as tf

    exposed = replace(
        interface, attention=tuple(TensorSpec(name, (None,), "float32") for name in names)
    )
    with sorted_top_k():  # as in the files
        # Not frozen, because dropout layers keep the state of their random numbers in variables.
        traced = trace(model, exposed, batch=None, attention=True, freeze=False)
    missing = [name for name in names if name not in traced.attention]
    if missing:
        raise UsageError(
            f"The Keras model has no attention map {missing[0]!r}, which the bundle contains.",
            hint="Convert the model again.",
        )
    positions = {spec.name: index for index, spec in enumerate(traced.outputs)}

    def compute(inputs: Tensors) -> Tensors:
        count = len(next(iter(inputs.values())))
        parts: dict[str, list[Any]] = {name: [] for name in names}
        batch_size = interface.batch or BATCH_SIZE
        for first in range(0, count, batch_size):
            rows = slice(first, first + batch_size)
            results = traced.function(
                *[tf.constant(inputs[spec.name][rows]) for spec in interface.inputs]
            )
            for name, arrays in parts.items():
                arrays.append(results[positions[name]].numpy())
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    return compute
