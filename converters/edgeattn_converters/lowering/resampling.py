"""Interpolations of images that a format lacks, or computes differently, as products of matrices.

Every interpolation is linear along each axis. TensorFlow itself computes the matrices, from images
with a single pixel.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeattn.tensors import Array

_OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    "align_corners": lambda value: value.b,
    "half_pixel_centers": lambda value: value.b,
    "antialias": lambda value: value.b,
    "kernel_type": lambda value: value.s.decode(),
}
# How the scale of an interpolation is computed from sizes.
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "AddV2": np.add,
    "Cast": np.float32,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Reshape": np.reshape,
    "Sub": np.subtract,
}


def resampled(
    images: Any, size: Any, *placement: Any, kind: str, attributes: Mapping[str, Any]
) -> Any:
    """The result of an operation ``kind``, such as ResizeBicubic; None if sizes are unknown.

    ``placement`` is the scale and the translation of ScaleAndTranslate.
    """
    import tensorflow as tf

    values = [constant_value(tensor) for tensor in (size, *placement)]
    if None in images.shape[1:].as_list() or any(value is None for value in values):
        return None
    vertical, horizontal = (
        _matrix(kind, attributes, images.shape[1 + axis], [value[axis] for value in values])
        for axis in (0, 1)
    )
    x = tf.transpose(tf.cast(images, tf.float32), (0, 3, 2, 1))
    x = tf.transpose(tf.matmul(x, vertical.T), (0, 1, 3, 2))
    return tf.transpose(tf.matmul(x, horizontal.T), (0, 2, 3, 1))


def _matrix(kind: str, attributes: Mapping[str, Any], length: int, placement: list[Any]) -> Array:
    """``(result, length)``: the shares of ``length`` pixels of an axis in those of the result."""
    import tensorflow as tf

    keywords = {
        name: read(attributes[name]) for name, read in _OPTIONS.items() if name in attributes
    }
    # The other axis has a single pixel, which stays.
    values = dict(zip(("size", "scale", "translation"), placement, strict=False))
    unchanged = {"size": 1, "scale": 1.0, "translation": 0.0}
    keywords |= {name: [value, unchanged[name]] for name, value in values.items()}
    pixels = np.eye(length, dtype=np.float32).reshape(1, length, 1, length)
    with tf.init_scope():
        result = getattr(tf.raw_ops, kind)(images=pixels, **keywords)
    return np.asarray(result)[0, :, 0]


def constant_value(tensor: Any) -> Any:
    """The value of a tensor that is computed from constants and sizes; None for others."""
    import tensorflow as tf
    from tensorflow.python.framework.tensor_util import constant_value_as_shape

    value = tf.get_static_value(tensor)
    if value is not None or not hasattr(tensor, "op"):
        return value
    operation = tensor.op
    if operation.type == "StridedSlice" and tensor.shape.rank == 1:
        shape = constant_value_as_shape(tensor)
        return np.array(shape.as_list()) if shape.is_fully_defined() else None
    if operation.type not in _ARITHMETIC:
        return None
    operands = [constant_value(item) for item in operation.inputs]
    if any(item is None for item in operands):
        return None
    return _ARITHMETIC[operation.type](*operands)
