"""Rounding of activations to int8 in training, with the gradients of values that are not rounded.

Files of ``int8`` have one range per tensor, measured on samples; those of ``dynamic_int8`` scale
the inputs of products at run time, by row.
"""

from collections.abc import Collection
from typing import Any

from edgeattn_converters.quantization.mask_fills import ENORMOUS, FILL

LEVELS = 255
# Results of these functions have the same scale in every file.
SIGMOID_RANGE = (0.0, 255 / 256)
TANH_RANGE = (-1.0, 127 / 128)
SOFTMAX_RANGE = SIGMOID_RANGE


class Activations:
    """Rounds values of a traced model. Each kind of value has a key of its own.

    While :attr:`observing`, nothing is rounded and ranges are extended instead. ``mask_values`` are
    those of padded steps, which files compare with before they round.
    """

    def __init__(self, *, static: bool, mask_values: Collection[float] = ()) -> None:
        self.static = static
        self._mask_values = tuple(mask_values)
        self.observing = False
        self._ranges: dict[str, Any] = {}

    def product_input(self, key: str, x: Any) -> Any:
        """The input of a product with int8 weights."""
        return self.value(key, x) if self.static else self._by_row(x)

    def value(self, key: str, x: Any) -> Any:
        """Any other value, which ``dynamic_int8`` does not round."""
        return self._rounded(key, x, ENORMOUS)

    def _rounded(self, key: str, x: Any, fill: float) -> Any:
        """``x`` rounded, with a range without the values from ``fill``."""
        import tensorflow as tf

        if not self.static or not x.dtype.is_floating:
            return x
        low, high = self._range(key)
        if self.observing:
            # Fill values of masks are left out, and every range includes zero.
            real = tf.where(tf.abs(x) < fill, x, tf.zeros_like(x))
            low.assign(tf.minimum(low, tf.reduce_min(real)))
            high.assign(tf.maximum(high, tf.reduce_max(real)))
            return x
        rounded = tf.quantization.fake_quant_with_min_max_vars(x, low, high)
        for mask_value in self._mask_values:
            rounded = tf.where(tf.equal(x, tf.cast(mask_value, x.dtype)), x, rounded)
        return rounded

    def scores(self, key: str, x: Any) -> Any:
        """The scores of a softmax, in which fill values of masks stay what they are."""
        import tensorflow as tf

        return tf.where(tf.abs(x) < FILL, self._rounded(key, x, FILL), x)

    def fixed(self, x: Any, limits: tuple[float, float]) -> Any:
        """The result of a function whose range does not depend on the samples."""
        import tensorflow as tf

        if not self.static or self.observing:
            return x
        return tf.quantization.fake_quant_with_min_max_args(x, *limits)

    def _range(self, key: str) -> Any:
        """The variables of a range, which are not part of the graph that is being traced."""
        import tensorflow as tf

        if key not in self._ranges:
            with tf.init_scope():
                self._ranges[key] = (tf.Variable(0.0), tf.Variable(0.0))
        return self._ranges[key]

    def reset(self) -> None:
        """Forget all ranges, to measure them again."""
        for low, high in self._ranges.values():
            low.assign(0.0)
            high.assign(0.0)

    def _by_row(self, x: Any) -> Any:
        import tensorflow as tf

        if self.observing:
            return x
        low = tf.minimum(tf.reduce_min(x, axis=-1, keepdims=True), 0.0)
        high = tf.maximum(tf.reduce_max(x, axis=-1, keepdims=True), 0.0)
        scale = tf.where(high > low, (high - low) / LEVELS, tf.ones_like(high))
        rounded = (tf.round(x / scale - low / scale) - tf.round(-low / scale)) * scale
        return x + tf.stop_gradient(rounded - x)
