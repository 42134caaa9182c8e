"""``MelSpectrogram`` whose result for a sample does not depend on the other samples of a batch."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="edgeattn")
class MelSpectrogram(keras.layers.MelSpectrogram):
    """Limits the decibels below the maximum of each sample; Keras' layer takes that of the batch.

    For a sample alone both compute the same: ``d = 10 log10(max(x, min_power) / max(|ref_power|,
    min_power))`` and ``max(d, max(d) - top_db)`` of the mel spectrogram ``x``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "power_to_db": False})

    def call(self, inputs: Any) -> Any:
        """Return decibels of the shape ``(batch, mel bins, time steps)``."""
        reference = max(abs(self.ref_power), self.min_power)
        power = ops.maximum(super().call(inputs), self.min_power)
        decibels = 10.0 * (ops.log10(power) - ops.log10(reference))
        axes = tuple(range(1, len(decibels.shape)))
        highest = ops.max(decibels, axis=axes, keepdims=True)
        return ops.maximum(decibels, highest - self.top_db)

    def get_config(self) -> dict[str, Any]:
        """Return the config of Keras' layer."""
        return {**super().get_config(), "power_to_db": True}
