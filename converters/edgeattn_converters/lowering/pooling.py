"""Pooling over three axes as two poolings over images, because TFLite has no other.

The maximum of maxima is the maximum, and the same holds for averages. It also holds at the edges,
where the number of pooled elements is the product of the numbers along the axes.
"""

from collections.abc import Callable
from typing import Any

from edgeattn_converters.lowering.rnn.cells import is_keras_class


def lower_pooling(layer: Any) -> Callable[..., Any] | None:
    """The replacement of ``layer.call`` for MaxPooling3D and AveragePooling3D, otherwise None."""
    if not is_keras_class(layer, "MaxPooling3D", "AveragePooling3D"):
        return None
    if layer.data_format != "channels_last":
        return None
    kind = "MAX" if type(layer).__name__ == "MaxPooling3D" else "AVG"

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        def pool(images: Any, sizes: tuple[int, int], strides: tuple[int, int]) -> Any:
            padding = layer.padding.upper()
            return tf.nn.pool(images, sizes, kind, strides=strides, padding=padding)

        _, time, height, width, channels = inputs.shape
        x = tf.reshape(inputs, (-1, height, width, channels))
        x = pool(x, layer.pool_size[1:], layer.strides[1:])
        _, height, width, _ = x.shape
        if layer.pool_size[0] == layer.strides[0] == 1:
            return tf.reshape(x, (-1, time, height, width, channels))
        # Height and width become one axis, of which each element is pooled over time.
        x = tf.reshape(x, (-1, time, height * width, channels))
        x = pool(x, (layer.pool_size[0], 1), (layer.strides[0], 1))
        return tf.reshape(x, (-1, x.shape[1], height, width, channels))

    return call
