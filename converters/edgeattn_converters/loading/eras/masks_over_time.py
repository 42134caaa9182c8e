"""The mask of TimeDistributed, as in Keras 2: that of the layer inside, for every step.

So an Embedding of the words of sentences masks their padding, and what has no mask of its own, such
as the last state for each sentence, is masked where the mask has no value at all. Keras 3 passes on
the mask of its input, which tokens do not have.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from edgeattn_converters.loading.config_inspection import Config, is_functional, layer_name
from edgeattn_converters.loading.keras_tensors import keras_tensors
from edgeattn_converters.loading.migrate.context import registered_layer
from edgeattn_converters.loading.migrate.functional_nodes import tensor
from edgeattn_converters.loading.migrate.state_masks import STEP_MASK
from edgeattn_converters.loading.own_code.masks_of_classes import MASK_SCOPE

# Layers, and whether their input has no mask, for which the result has none.
_Without = set[tuple[int, bool]]


class MaskOverTime(keras.Operation):
    """The mask of what a TimeDistributed computes.

    One operation, because Keras refuses operations with the names of the user's layers. ``without``
    remembers which layers have no mask: a model inside would be called once more for it, and its
    attention would be found twice.
    """

    def __init__(self, wrapper: Any, without: _Without) -> None:
        super().__init__()
        self.wrapper = wrapper
        self.without = without

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask, or None, of inputs of shape (samples, steps, ...) and their mask."""
        return _mask_over_time(self.wrapper.layer, inputs, mask, self.without)

    def get_config(self) -> dict[str, Any]:
        """Return what :func:`as_layers` needs; no operation can be created from it."""
        return {"name": self.name, "wrapper": self.wrapper.name}


def mask_as_in_keras_2(layer: Any) -> None:
    """Let a TimeDistributed compute its mask as in Keras 2, and those inside it."""
    if "compute_mask" in vars(layer):
        return
    without: _Without = set()

    def compute_mask(inputs: Any, mask: Any = None) -> Any:
        from keras.src.backend import compute_output_spec

        operation = MaskOverTime(layer, without)
        if not keras_tensors((inputs, mask)):
            return operation.call(inputs, mask)
        if compute_output_spec(operation.call, inputs, mask) is None:
            return None
        return operation(inputs, mask)

    # Without Keras' own __setattr__, which tracks attributes as state.
    object.__setattr__(layer, "compute_mask", compute_mask)


def as_layers(stored: Any) -> Any:
    """The config of a model with layers in the place of :class:`MaskOverTime`.

    They are :class:`.StepMask`, called with the results that have these masks. The operation
    remains where a program computes a mask that no result of the model has.
    """
    if isinstance(stored, list):
        return [as_layers(item) for item in stored]
    if not isinstance(stored, Mapping):
        return stored
    found = {key: as_layers(value) for key, value in stored.items()}
    if is_functional(found):
        layers = {layer_name(layer): layer for layer in found["config"]["layers"]}
        masks = [_step_mask(layer, layers) for layer in layers.values()]
        found["config"] = {**found["config"], "layers": masks}
    return found


def _step_mask(item: Config, layers: Mapping[str, Config]) -> Config:
    """The layer in the place of an operation; other items are returned as they are."""
    if item["class_name"] != MaskOverTime.__name__:
        return item
    name, wrapper = item["config"]["name"], item["config"]["wrapper"]
    [[inputs, mask]] = [node["args"] for node in item["inbound_nodes"]]
    calls = layers[wrapper]["inbound_nodes"] if wrapper in layers else []
    for index, call in enumerate(calls):
        # Keras adds the mask of the input to a call without a mask.
        if call["args"] == [inputs] and call["kwargs"].get("mask") == mask:
            node = {"args": [tensor(wrapper, index, 0)], "kwargs": {}}
            layer = registered_layer(STEP_MASK, {"name": name})
            return {**layer, "name": name, "inbound_nodes": [node]}
    return item


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
