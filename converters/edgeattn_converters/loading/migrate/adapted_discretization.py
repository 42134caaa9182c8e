"""``Discretization`` of Keras 2 whose boundaries come from ``adapt``, not from its arguments.

Keras 2 stores a summary of the data as its weight and computes the boundaries when it loads the
model. Keras 3 has them in the config, and no weight.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.layers.preprocessing.discretization import get_bin_boundaries
from keras.src.utils import numerical_utils

Array = np.ndarray[Any, Any]


@keras.saving.register_keras_serializable(package="edgeattn")
class AdaptedDiscretization(keras.layers.Discretization):
    """Buckets between boundaries, which are a weight (buckets - 1)."""

    # That of Discretization loads no weights.
    load_own_variables = keras.layers.Layer.load_own_variables

    def build(self, input_shape: Any) -> None:
        """Create the weight with the name of that of Keras 2."""
        # Attributes of this name are arrays in Keras 3, which no method here uses.
        self.summary = self.add_weight(
            shape=(self._buckets - 1,), name="summary", initializer="zeros", trainable=False
        )
        self.summary.from_stored = self._boundaries
        super().build(input_shape)

    @property
    def _buckets(self) -> int:
        """``num_bins``, or one more if rounding adds one to the steps of 1 / num_bins up to 1."""
        return len(np.arange(0.0, 1.0, 1.0 / self.num_bins))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the outputs."""
        shape = super().compute_output_shape(input_shape)
        return shape if self.output_mode == "int" else (*shape[:-1], self._buckets)

    def _boundaries(self, summary: Array) -> Array:
        """Return the boundaries for a summary (2, values): values and how many each stands for."""
        if summary.ndim != 2:  # another error names its shape
            return summary
        boundaries = get_bin_boundaries(summary, self.num_bins)
        missing = self._buckets - 1 - len(boundaries)
        if missing <= 0 or self.output_mode != "int":
            return boundaries
        # After ``adapt`` with few values, there are fewer; the last buckets are empty.
        return np.pad(boundaries, (0, missing), constant_values=np.inf)

    def call(self, inputs: Any) -> Any:
        """Return the buckets; the one above all boundaries for NaN, as ``Bucketize``."""
        # tf.raw_ops.Bucketize counts the boundaries that are not above a value.
        below = ops.cast(ops.expand_dims(inputs, -1) < self.summary, "int32")
        return numerical_utils.encode_categorical_inputs(
            self._buckets - 1 - ops.sum(below, axis=-1),
            output_mode=self.output_mode,
            depth=self._buckets,
            dtype=self.output_dtype,
            sparse=self.sparse,
            backend_module=self.backend,
        )
