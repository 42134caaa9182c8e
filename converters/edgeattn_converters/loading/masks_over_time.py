"""The mask of TimeDistributed, as in Keras 2: that of the layer inside, for every step.

So an Embedding of the words of sentences masks their padding, and what has no mask of its own, such
as the last state for each sentence, is masked where the mask has no value at all. Keras 3 passes on
the mask of its input, which tokens do not have.
"""

from typing import Any

import keras
from keras import ops

from edgeattn_converters.loading.keras_tensors import keras_tensors
from edgeattn_converters.loading.masks_of_classes import MASK_SCOPE

# Layers, and whether their input has no mask, for which the result has none.
_Without = set[tuple[int, bool]]


class MaskOverTime(keras.Operation):
    """The mask of what a TimeDistributed computes.

    One operation, because Keras refuses operations with the names of the user's layers. ``without``
    remembers which layers have no mask: a model inside would be called once more for it, and its
    attention would be found twice.
    """

    def __init__(self, layer: Any, without: _Without) -> None:
        super().__init__()
        self.layer = layer
        self.without = without

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask, or None, of inputs of shape (samples, steps, ...) and their mask."""
        return _mask_over_time(self.layer, inputs, mask, self.without)


def mask_as_in_keras_2(layer: Any) -> None:
    """Let a TimeDistributed compute its mask as in Keras 2, and those inside it."""
    if "compute_mask" in vars(layer):
        return
    without: _Without = set()

    def compute_mask(inputs: Any, previous_mask: Any) -> Any:
        from keras.src.backend import compute_output_spec

        operation = MaskOverTime(layer.layer, without)
        if not keras_tensors((inputs, previous_mask)):
            return operation.call(inputs, previous_mask)
        if compute_output_spec(operation.call, inputs, previous_mask) is None:
            return None
        return operation(inputs, previous_mask)

    # Without Keras' own __setattr__, which tracks attributes as state.
    object.__setattr__(layer, "compute_mask", compute_mask)


def _mask_over_time(inner: Any, inputs: Any, mask: Any, without: _Without) -> Any:
    """The mask of what ``inner`` computes for each step of ``inputs``, which has ``mask``."""
    first, *others = keras.tree.flatten(inputs)
    if keras.tree.is_nested(mask):
        mask = None  # of several inputs, which have no mask in tf_keras
    if any(None in tensor.shape[2:] for tensor in (first, *others)):
        return mask
    inner_mask = None if mask is None else _merged(mask)
    merged = keras.tree.map_structure(_merged, inputs)
    result = _mask_of(inner, merged, inner_mask, without)
    if result is not None:
        steps = first.shape[1] or ops.shape(first)[1]
        return ops.reshape(result, (-1, steps, *result.shape[1:]))
    if mask is None:
        return None
    return ops.any(mask, axis=tuple(range(2, len(mask.shape)))) if len(mask.shape) > 2 else mask


def _mask_of(layer: Any, inputs: Any, mask: Any, without: _Without) -> Any:
    from keras.src.backend import get_keras_mask

    if isinstance(layer, keras.layers.TimeDistributed):
        return _mask_over_time(layer.layer, inputs, mask, without)
    if (id(layer), mask is None) in without:
        return None
    if isinstance(layer, keras.Model):
        with keras.name_scope(MASK_SCOPE):
            outputs = layer(inputs) if mask is None else layer(inputs, mask=mask)
        result = None if keras.tree.is_nested(outputs) else get_keras_mask(outputs)
    else:
        result = layer.compute_mask(inputs, mask) if layer.supports_masking else None
    if result is None or keras.tree.is_nested(result):
        without.add((id(layer), mask is None))
        return None
    return result


def _merged(values: Any) -> Any:
    return ops.reshape(values, (-1, *values.shape[2:]))
