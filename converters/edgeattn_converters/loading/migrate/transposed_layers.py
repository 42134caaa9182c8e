"""The layer that computes a channels-first layer with the channels last."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="edgeattn")
class ChannelsFirst(keras.layers.Layer):
    """Moves the channels last, calls ``channels_last``, applies the activation after moving back.

    ConvLSTM layers have a time axis before the channels, in their states and last output not.
    """

    def __init__(self, layer: Any, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels_last = layer
        self.activation = keras.activations.get(activation)

    # Bidirectional reads these attributes of a layer.
    return_sequences = property(lambda self: self.channels_last.return_sequences)
    return_state = property(lambda self: self.channels_last.return_state)
    go_backwards = property(lambda self: self.channels_last.go_backwards)
    stateful = property(lambda self: self.channels_last.stateful)

    @property
    def zero_output_for_mask(self) -> bool | None:
        """What a ConvLSTM layer returns for masked steps, None for other layers."""
        return getattr(self.channels_last, "zero_output_for_mask", None)

    @zero_output_for_mask.setter
    def zero_output_for_mask(self, value: bool) -> None:
        self.channels_last.zero_output_for_mask = value

    @property
    def _rank(self) -> int:
        """The number of axes with a position, by which the channel axis is found."""
        return int(type(self.channels_last).__name__.split("D")[-2][-1])

    def build(self, input_shape: Any) -> None:
        """Build the layer for the shape with the channels last."""
        self.channels_last.build(self._last_shape(input_shape))

    def _last_shape(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        axis = self._axis(len(shape))
        return (*shape[:axis], *shape[axis + 1 :], shape[axis])

    def _first_shape(self, shape: Any) -> Any:
        if not all(size is None or isinstance(size, int) for size in shape):
            return [self._first_shape(item) for item in shape]
        axis = self._axis(len(shape))
        return (*shape[:axis], shape[-1], *shape[axis:-1])

    def compute_output_shape(self, input_shape: Any, *_args: Any) -> Any:
        """Return the shape or shapes of the layer, with the channels first."""
        shape = self.channels_last.compute_output_shape(self._last_shape(input_shape))
        return self._first_shape(shape)

    def _axis(self, axes: int) -> int:
        return axes - self._rank - 1

    def _last(self, tensor: Any) -> Any:
        return ops.moveaxis(tensor, self._axis(len(tensor.shape)), -1)

    def _first(self, tensor: Any) -> Any:
        return ops.moveaxis(tensor, -1, self._axis(len(tensor.shape)))

    def call(
        self,
        inputs: Any,
        initial_state: Sequence[Any] | None = None,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Call the layer; ``initial_state`` and ``mask`` are arguments of ConvLSTM layers."""
        arguments: dict[str, Any] = {}
        if initial_state is not None:
            arguments["initial_state"] = [self._last(state) for state in initial_state]
        if "ConvLSTM" in type(self.channels_last).__name__:
            arguments |= {"mask": mask, "training": training}
        outputs = self.channels_last(self._last(inputs), **arguments)
        return keras.tree.map_structure(
            lambda tensor: self.activation(self._first(tensor)), outputs
        )

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``layer`` and ``activation``."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.channels_last),
            "activation": keras.activations.serialize(self.activation),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ChannelsFirst":
        """Return the layer with its inner layer; Bidirectional adds ``go_backwards``."""
        config = dict(config)
        inner = dict(config.pop("layer"))
        if "go_backwards" in config:
            backwards = config.pop("go_backwards")
            inner["config"] = {**inner["config"], "go_backwards": backwards}
        return cls(layer=keras.saving.deserialize_keras_object(inner), **config)
