"""Models whose time axis is free."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.tracing.keras_call import layer_name
from edgeattn_converters.tracing.trace import Interface


@dataclass(frozen=True)
class FreeModel:
    """A model whose time axis is free, and its interface, in which the axis is ``None``.

    ``axes`` are the axes of the inputs and outputs of a file that have any length, by name.
    """

    model: Any
    interface: Interface
    axes: tuple[tuple[str, tuple[int, ...]], ...] = ()


def free_model(model: Any, interface: Interface) -> FreeModel | None:
    """``model`` as a :class:`FreeModel`; None if no axis is free or it differs in its inputs.

    ``interface`` is that of the model with a fixed time axis.
    """
    names = [layer_name(tensor) for tensor in model.inputs]
    if names != [spec.name for spec in interface.inputs]:
        return None
    inputs = tuple(
        replace(spec, shape=(None, *tensor.shape[1:]))
        for spec, tensor in zip(interface.inputs, model.inputs, strict=True)
    )
    if all(None not in spec.shape[1:] for spec in inputs):
        return None
    for layer in all_layers(model):
        if (call := _every_step(layer)) is not None:
            # Without Keras' own __setattr__, which tracks attributes as state.
            object.__setattr__(layer, "call", call)
    return FreeModel(model, replace(interface, inputs=inputs))


def _every_step(layer: Any) -> Callable[..., Any] | None:
    """The replacement of ``layer.call`` for TimeDistributed, otherwise None.

    With a free number of steps, Keras 3.15 computes as many steps as there are samples. Here the
    steps of all samples are the samples of one call of the inner layer.
    """
    import tensorflow as tf

    if not is_keras_class(layer, "TimeDistributed"):
        return None
    original, inner = layer.call, layer.layer

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if inputs.shape[1] is not None or None in inputs.shape[2:]:
            return original(inputs, training=training, mask=mask)
        arguments = {}
        if inner._call_has_mask_arg and mask is not None:
            arguments["mask"] = tf.reshape(mask, (-1, *mask.shape[2:]))
        if inner._call_has_training_arg:
            arguments["training"] = training
        result = inner.call(tf.reshape(inputs, (-1, *inputs.shape[2:])), **arguments)
        batch, steps = tf.unstack(tf.shape(inputs)[:2])
        return tf.reshape(result, (batch, steps, *result.shape[1:]))

    return call
