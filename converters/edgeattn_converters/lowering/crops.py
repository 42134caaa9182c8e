"""Parts of images that are resized, as products with matrices of the weights of each pixel.

TFLite has no operator for them, and that of tf2onnx ignores the nearest neighbor.
"""

from collections.abc import Mapping
from typing import Any

_Attributes = Mapping[str, Any]


def crop_and_resize(
    images: Any, boxes: Any, indices: Any, size: Any, *, attributes: _Attributes
) -> Any:
    """``images`` (image, height, width, channel) within ``boxes`` (box, 4), as TensorFlow's kernel
    computes them. None if sizes are unknown."""
    import tensorflow as tf

    counts = tf.get_static_value(size)
    _, height, width, channels = images.shape
    if counts is None or None in (height, width, channels):
        return None
    images = tf.gather(tf.cast(images, tf.float32), indices)
    top, left, bottom, right = tf.split(boxes, 4, axis=1)  # each (box, 1)
    rows = _positions(top, bottom, height, int(counts[0]))  # (box, row)
    columns = _positions(left, right, width, int(counts[1]))
    nearest = attributes["method"].s == b"nearest"
    lines = tf.reshape(images, [-1, height, width * channels])
    lines = tf.matmul(_weights(rows, height, nearest=nearest), lines)
    lines = tf.reshape(lines, [-1, int(counts[0]), width, channels])
    parts = tf.matmul(_weights(columns, width, nearest=nearest)[:, None], lines)
    inside = tf.logical_and(
        _is_inside(rows, height)[:, :, None, None], _is_inside(columns, width)[:, None, :, None]
    )
    return tf.where(inside, parts, attributes["extrapolation_value"].f)


def crop_to_nearest(*operands: Any, attributes: _Attributes) -> Any:
    """None for bilinear interpolation."""
    nearest = attributes["method"].s == b"nearest"
    return crop_and_resize(*operands, attributes=attributes) if nearest else None


def _positions(start: Any, end: Any, length: int, count: int) -> Any:
    """Positions of the pixels of a part, (box, pixel), in pixels of the image."""
    import tensorflow as tf

    if count == 1:
        return 0.5 * (start + end) * (length - 1)
    step = (end - start) * (length - 1) / (count - 1)
    return start * (length - 1) + tf.range(count, dtype=tf.float32) * step


def _weights(positions: Any, length: int, *, nearest: bool) -> Any:
    """(box, pixel of the part, pixel of the image)"""
    import tensorflow as tf

    pixels = tf.range(length, dtype=tf.float32)
    if nearest:
        # Halves are rounded up.
        return tf.cast(tf.equal(tf.floor(positions + 0.5)[..., None], pixels), tf.float32)
    return tf.maximum(1 - tf.abs(positions[..., None] - pixels), 0.0)


def _is_inside(positions: Any, length: int) -> Any:
    import tensorflow as tf

    return tf.logical_and(positions >= 0, positions <= length - 1)
