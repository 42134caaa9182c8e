"""Pooling over three axes as two poolings of images: TFLite has no other.

The largest of the largest is the largest, and so it is with averages: also at the edges, where the
steps that count are those of one axis times those of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeattn_converters.lowering.rnn.cells import is_keras_class


def lower_pooling(layer: Any) -> Callable[..., Any] | None:
    """What takes the place of ``layer.call`` for MaxPooling3D and AveragePooling3D."""
    if not is_keras_class(layer, "MaxPooling3D", "AveragePooling3D"):
        return None
    if layer.data_format != "channels_last":
        return None
    kind = "MAX" if type(layer).__name__ == "MaxPooling3D" else "AVG"

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        def pooled(images: Any, axes: slice) -> Any:
            return tf.nn.pool(
                images,
                layer.pool_size[axes],
                kind,
                strides=layer.strides[axes],
                padding=layer.padding.upper(),
            )

        _, time, height, width, channels = inputs.shape
        x = pooled(tf.reshape(inputs, (-1, height, width, channels)), slice(1, 3))
        _, height, width, _ = x.shape
        if layer.pool_size[0] == layer.strides[0] == 1:
            return tf.reshape(x, (-1, time, height, width, channels))
        # The other two axes side by side: each is a column that is pooled over time.
        x = tf.reshape(x, (-1, time, height * width, channels))
        x = tf.nn.pool(
            x,
            (layer.pool_size[0], 1),
            kind,
            strides=(layer.strides[0], 1),
            padding=layer.padding.upper(),
        )
        return tf.reshape(x, (-1, x.shape[1], height, width, channels))

    return call
