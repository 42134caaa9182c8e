"""Projective transforms of images, ``ImageProjectiveTransformV3``, by gathering pixels.

Positions of pixels in the image are those of TensorFlow's kernel
(``tensorflow/core/kernels/image/image_ops.h``), for each of its fill modes. They are constants of
the file unless the transforms depend on the data.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn_converters.lowering.resampling import constant_value


def projected(
    images: Any, transforms: Any, size: Any, fill_value: Any, *, attributes: Mapping[str, Any]
) -> Any:
    """The transformed images, float32; None if sizes are unknown."""
    import tensorflow as tf

    sizes = constant_value(size)
    _, height, width, channels = images.shape
    if images.dtype != tf.float32 or sizes is None or None in (height, width, channels):
        return None
    constant = tf.get_static_value(transforms)
    positions = _positions if constant is None else _constant_positions
    mode = attributes["fill_mode"].s.decode().upper()
    x, y, is_defined = positions(
        transforms if constant is None else constant, [int(s) for s in sizes], (height, width), mode
    )
    pixels = tf.reshape(images, (-1, height * width, channels))

    def read(row: Any, column: Any) -> Any:
        """The pixels at these positions, ``(batch, positions, channels)``."""
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        # Limited as floats: the TFLite converter has no Relu6 of integers, and no cast is defined
        # for what is far outside.
        position = tf.where(inside, row * width + column, 0.0)
        index = tf.cast(position, tf.int32)
        if index.shape[0] == 1:
            values = tf.gather(pixels, index[0], axis=1)
        else:
            values = tf.gather(pixels, index, axis=1, batch_dims=1)
        return tf.where(inside[..., None], values, fill_value)

    nearest = attributes["interpolation"].s.decode().upper() == "NEAREST"
    result = _nearest(x, y, read) if nearest else _bilinear(x, y, read)
    result = tf.where(is_defined[..., None], result, fill_value)
    return tf.reshape(result, (-1, *sizes, channels))


def _nearest(x: Any, y: Any, read: Callable[[Any, Any], Any]) -> Any:
    """The pixel that is closest; halves are rounded away from zero."""
    import tensorflow as tf

    def rounded(position: Any) -> Any:
        return tf.where(position < 0, tf.math.ceil(position - 0.5), tf.floor(position + 0.5))

    return read(rounded(y), rounded(x))


def _bilinear(x: Any, y: Any, read: Callable[[Any, Any], Any]) -> Any:
    import tensorflow as tf

    column, row = tf.floor(x), tf.floor(y)
    right, lower = (x - column)[..., None], (y - row)[..., None]
    above = (1 - right) * read(row, column) + right * read(row, column + 1)
    below = (1 - right) * read(row + 1, column) + right * read(row + 1, column + 1)
    return (1 - lower) * above + lower * below


def _constant_positions(transforms: Any, *arguments: Any) -> list[Any]:
    import tensorflow as tf

    with tf.init_scope():
        values = [np.asarray(value) for value in _positions(tf.constant(transforms), *arguments)]
    return [tf.constant(value) for value in values]


def _positions(
    transforms: Any, sizes: list[int], image: tuple[int, int], mode: str
) -> tuple[Any, Any, Any]:
    """The column and the row in the image of each pixel of the result, and whether there is one.

    Their shape is ``(transforms, pixels)``.
    """
    import tensorflow as tf

    rows, columns = np.meshgrid(*(np.arange(s, dtype=np.float32) for s in sizes), indexing="ij")
    x, y = columns.reshape(1, -1), rows.reshape(1, -1)
    a = [transforms[:, k : k + 1] for k in range(8)]
    scale = a[6] * x + a[7] * y + 1
    is_defined = tf.not_equal(scale, 0)
    scale = tf.where(is_defined, scale, tf.ones_like(scale))
    column = (a[0] * x + a[1] * y + a[2]) / scale
    row = (a[3] * x + a[4] * y + a[5]) / scale
    height, width = image
    return _FILL_MODES[mode](column, width), _FILL_MODES[mode](row, height), is_defined


def _reflected(position: Any, length: int) -> Any:
    """``dcba|abcd|dcba``"""
    import tensorflow as tf

    if length == 1:
        return tf.zeros_like(position)
    period = 2.0 * length
    negative = position + period * tf.floor(tf.maximum(-position, 0.0) / period)
    negative = tf.where(negative < -length, negative + period, -negative - 1)
    positive = position - period * tf.floor(tf.maximum(position, 0.0) / period)
    positive = tf.where(positive >= length, period - positive - 1, positive)
    inside = tf.where(position > length - 1, positive, position)
    return _clamped(tf.where(position < 0, negative, inside), length)


def _wrapped(position: Any, length: int) -> Any:
    """``abcd|abcd|abcd``; TensorFlow counts the turns in units of the length less one."""
    import tensorflow as tf

    if length == 1:
        return tf.zeros_like(position)
    turns = tf.floor(tf.abs(position) / (length - 1))
    inside = tf.where(position > length - 1, position - length * turns, position)
    return _clamped(tf.where(position < 0, position + length * (turns + 1), inside), length)


def _clamped(position: Any, length: int) -> Any:
    import tensorflow as tf

    return tf.clip_by_value(position, 0.0, length - 1.0)


_FILL_MODES: Mapping[str, Callable[[Any, int], Any]] = {
    "CONSTANT": lambda position, _: position,
    "NEAREST": _clamped,
    "REFLECT": _reflected,
    "WRAP": _wrapped,
}
