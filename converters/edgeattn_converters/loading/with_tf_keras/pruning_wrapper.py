"""The pruning wrapper of tensorflow-model-optimization for tf_keras, as it is at inference.

It has the variables of ``PruneLowMagnitude``, in its order, so that tf_keras loads the files of
wrapped models: tensorflow_model_optimization/python/core/sparsity/keras/pruning_wrapper.py.
"""

import inspect
from typing import Any

from edgeattn_converters.loading.weights.pruned_weights import pruned_weights

# Arguments with an effect in training only.
_OF_TRAINING = ("pruning_schedule", "block_size", "block_pooling_type", "sparsity_m_by_n")


def wrapper_class() -> Any:
    """Return the class of the wrapper, a layer of tf_keras."""
    import tf_keras

    class PruneLowMagnitude(tf_keras.layers.Wrapper):
        def __init__(self, layer: Any, **kwargs: Any) -> None:
            super().__init__(layer, **kwargs)
            if not hasattr(self, "_batch_input_shape") and hasattr(layer, "_batch_input_shape"):
                self._batch_input_shape = layer._batch_input_shape

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.prunable_weights = pruned_weights(self.layer) or []
            self.pruning_vars = []
            for weight in self.prunable_weights:
                mask = self.add_weight("mask", weight.shape, initializer="ones", trainable=False)
                threshold = self.add_weight("threshold", [], initializer="zeros", trainable=False)
                self.pruning_vars.append((weight, mask, threshold))
            self.pruning_step = self.add_weight("pruning_step", [], "int64", trainable=False)

        def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
            for weight, mask, _ in self.pruning_vars:
                weight.assign(weight * mask)
            if "training" in inspect.signature(self.layer.call).parameters:
                kwargs["training"] = training or False
            return self.layer.call(inputs, **kwargs)

        @classmethod
        def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
            config = {key: value for key, value in config.items() if key not in _OF_TRAINING}
            layer = tf_keras.layers.deserialize(config.pop("layer"), custom_objects=custom_objects)
            return cls(layer, **config)

        @property
        def trainable_weights(self) -> Any:
            return self.layer.trainable_weights

        @property
        def non_trainable_weights(self) -> Any:
            return self.layer.non_trainable_weights + self._non_trainable_weights

    return PruneLowMagnitude
