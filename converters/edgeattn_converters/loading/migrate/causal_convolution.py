"""``SeparableConv1D`` with causal padding, which Keras 2 has and Keras 3 has not."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="edgeattn")
class CausalSeparableConv1D(keras.layers.SeparableConv1D):
    """A separable convolution with channels last that sees no later values of the sequence.

    ``padding`` is accepted because Keras 2 stores it, and is always ``"causal"``.
    """

    def __init__(self, *args: Any, padding: str = "causal", **kwargs: Any) -> None:
        super().__init__(*args, padding="valid", **kwargs)

    def call(self, inputs: Any) -> Any:
        """Convolve the inputs after as many zeros as the kernel has earlier values."""
        before = (self.kernel_size[0] - 1) * self.dilation_rate[0]
        return super().call(ops.pad(inputs, [(0, 0), (before, 0), (0, 0)]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape ``(batch, steps, filters)``."""
        steps, stride = input_shape[1], self.strides[0]
        return (input_shape[0], None if steps is None else -(-steps // stride), self.filters)
