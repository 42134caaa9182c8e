"""Operations of TensorFlow on the colors of images, which are on the last axis.

tf2onnx has its own AdjustSaturation, which exchanges colors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def rgb_to_hsv(images: Any) -> Any:
    """Value: the largest color; saturation: its share above the smallest; hue: see :func:`_hue`."""
    import tensorflow as tf

    value = tf.reduce_max(images, -1)
    extent = value - tf.reduce_min(images, -1)
    saturation = tf.where(value > 0, extent / tf.where(value > 0, value, 1), tf.zeros_like(value))
    return tf.stack([_hue(images, value, extent), saturation, value], -1)


def hsv_to_rgb(images: Any) -> Any:
    """``((1 - s) + s c) v`` for the colors ``c`` of the hue."""
    hue, saturation, value = (images[..., k : k + 1] for k in range(3))
    return ((1 - saturation) + saturation * _pure_colors(hue)) * value


def adjust_saturation(images: Any, factor: Any) -> Any:
    """The saturation times the factor, at most 1.

    The full circle, to which a hue just below is rounded, has no color in TensorFlow: such reds,
    those behind a saturated sigmoid for example, become gray.
    """
    import tensorflow as tf

    codes = rgb_to_hsv(images)
    hue, saturation, value = (codes[..., k : k + 1] for k in range(3))
    saturation = tf.minimum(tf.maximum(saturation * factor, 0.0), 1.0)
    pure = tf.where(hue < 1, _pure_colors(hue), 0.0)
    return ((1 - saturation) + saturation * pure) * value


def adjust_hue(images: Any, turn: Any) -> Any:
    """The smallest and the largest color stay; ``turn`` is a part of the circle of hues."""
    import tensorflow as tf

    value = tf.reduce_max(images, -1)
    extent = value - tf.reduce_min(images, -1)
    hue = _hue(images, value, extent) + turn
    hue = (hue - tf.floor(hue))[..., None]
    return (value - extent)[..., None] + extent[..., None] * _pure_colors(hue)


def adjust_contrast(images: Any, factor: Any) -> Any:
    """Differences from the average over height and width, times the factor."""
    import tensorflow as tf

    average = tf.reduce_mean(images, [-3, -2], keepdims=True)
    return (images - average) * factor + average


def of_exact_sigmoids(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of images, of which those that are sigmoids keep their differences near 0.

    onnxruntime's sigmoid is the same for all numbers below -18, but the hue, for example that of
    (1, 1e-20, 1e-10), depends on which color is smaller.
    """

    def exact(images: Any, *arguments: Any) -> Any:
        import tensorflow as tf

        operation = getattr(images, "op", None)
        while operation is not None and operation.type == "Identity":
            operation = operation.inputs[0].op
        if operation is not None and operation.type == "Sigmoid":
            images = 1 / (1 + tf.exp(-operation.inputs[0]))
        return function(images, *arguments)

    return exact


def _hue(images: Any, value: Any, extent: Any) -> Any:
    """From the color that is largest, and the difference of the others in units of a sixth of the
    circle; 0 for grays."""
    import tensorflow as tf

    red, green, blue = (images[..., k] for k in range(3))
    sixth = 1 / (6 * tf.where(extent > 0, extent, tf.ones_like(extent)))
    hue = tf.where(
        tf.equal(red, value),
        sixth * (green - blue),
        tf.where(
            tf.equal(green, value), sixth * (blue - red) + 2 / 6, sixth * (red - green) + 4 / 6
        ),
    )
    hue = tf.where(hue < 0, hue + 1, hue)
    return tf.where(extent > 0, hue, tf.zeros_like(hue))


def _pure_colors(hue: Any) -> Any:
    """Trapezia over the circle of hues, which is on an axis of size 1."""
    import tensorflow as tf

    distance = tf.abs(hue * 6 - np.array([3, 2, 4], np.float32))
    signs = np.array([1, -1, -1], np.float32)
    return tf.clip_by_value(distance * signs + np.array([-1, 2, 2], np.float32), 0.0, 1.0)
