"""``TimeDistributed`` of Keras 2 around a layer or model with several inputs.

That of Keras 3 has one input. In tf_keras, such a layer cannot be called with tensors that have a
mask, so that no mask reaches the layer inside.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated


@keras.saving.register_keras_serializable(package="edgeattn")
class TimeDistributed(keras.layers.TimeDistributed):
    """Calls a layer with the same step of each of its inputs, which are a list or a dict.

    Its name is that of Keras, which is part of the paths in a ``.weights.h5`` file.
    """

    # build() is that of Keras: a layer that becomes one of this class has bound it already.
    def _get_child_input_shape(self, input_shape: Any) -> Any:
        return _mapped(_without_steps, input_shape)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Return a tensor of shape (samples, steps, ...); ``mask`` is that of no original model."""
        tensors = keras.tree.flatten(inputs)
        known = {tensor.shape[1] for tensor in tensors} - {None}
        if len(known) > 1:
            counts = enumerated([str(count) for count in sorted(known)])
            raise UnsupportedModelError(
                f"Layer {self.name!r} is a TimeDistributed whose inputs have {counts} steps; each "
                "step needs one of every input.",
                hint="Give all inputs the same number of steps.",
            )
        if known:
            results = [
                self.layer(_mapped(lambda tensor, k=step: tensor[:, k], inputs), training=training)
                for step in range(known.pop())
            ]
            return ops.stack(results, axis=1)
        # The steps of all samples are the samples of one call.
        merged = _mapped(lambda tensor: ops.reshape(tensor, (-1, *tensor.shape[2:])), inputs)
        result = self.layer(merged, training=training)
        return ops.reshape(result, (-1, ops.shape(tensors[0])[1], *result.shape[1:]))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Trace the call."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)


def compute_every_step(model: Any) -> None:
    """Let the TimeDistributed layers of a model compute all steps if their number is not known.

    Keras 3.15 computes as many steps as there are samples then, while it traces a function. Here
    the steps of all samples are the samples of one call of the inner layer.
    """
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.TimeDistributed:
            # Without Keras' own __setattr__, which tracks attributes as state.
            object.__setattr__(layer, "call", _every_step(layer))


def _every_step(layer: Any) -> Callable[..., Any]:
    original, inner = layer.call, layer.layer

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if inputs.shape[1] is not None:
            return original(inputs, training=training, mask=mask)
        arguments = {}
        if inner._call_has_mask_arg and mask is not None:
            arguments["mask"] = _without_step_axis(mask)
        if inner._call_has_training_arg:
            arguments["training"] = training
        result = inner.call(_without_step_axis(inputs), **arguments)
        sizes = ops.shape(result)
        return ops.reshape(result, (*ops.shape(inputs)[:2], *sizes[1:]))

    return call


def _without_step_axis(tensor: Any) -> Any:
    sizes = ops.shape(tensor)
    return ops.reshape(tensor, (-1, *sizes[2:]))


def accept_several_inputs(layer: Any, inputs: Any) -> None:
    """Let a TimeDistributed, and those inside it, take several inputs if it is called with them."""
    if type(layer) is keras.layers.TimeDistributed and keras.tree.is_nested(inputs):
        layer.__class__ = TimeDistributed
        accept_several_inputs(layer.layer, inputs)


def _mapped(function: Any, structure: Any) -> Any:
    """``structure`` with the result for each tensor, or for each shape, which is a tuple."""
    if isinstance(structure, Mapping):
        return {key: _mapped(function, item) for key, item in structure.items()}
    several = isinstance(structure, list) or (
        isinstance(structure, tuple) and not isinstance(structure[0], int | None)
    )
    return [_mapped(function, item) for item in structure] if several else function(structure)


def _without_steps(shape: Any) -> Any:
    return (shape[0], *shape[2:])
