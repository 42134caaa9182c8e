"""``keras.ops.image.extract_patches`` as a transpose.

Keras convolves images with a constant of ones and zeros, whose size is the square of the size of a
patch: 2.4 MB for 16 x 16 pixels of 3 colors. Patches that do not overlap need no arithmetic.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def patches_by_position() -> Iterator[None]:
    """Within the context, patches that do not overlap are cut out of images by their positions."""
    from keras.src.ops import image

    original = image._extract_patches_2d

    def extract(images: Any, size: Any, *args: Any, **kwargs: Any) -> Any:
        patches = _patches(images, size, *args, **kwargs)
        return original(images, size, *args, **kwargs) if patches is None else patches

    image._extract_patches_2d = extract
    try:
        yield
    finally:
        image._extract_patches_2d = original


def _patches(
    images: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """(batch, rows, columns, height * width * channels), or None if they overlap or have gaps."""
    import keras
    import tensorflow as tf

    height, width = size = _pair(size)
    axes = tuple(images.shape)
    layout = data_format or keras.config.image_data_format()
    steps = _pair(strides) if strides else size
    if steps != size or _pair(dilation_rate) != (1, 1) or layout != "channels_last":
        return None
    if len(axes) != 4 or None in axes[1:] or min(axes[1] // height, axes[2] // width) < 1:
        return None
    if padding != "valid" and (axes[1] % height or axes[2] % width):
        return None
    rows, columns, channels = axes[1] // height, axes[2] // width, axes[3]
    x = images[:, : rows * height, : columns * width]
    x = tf.reshape(x, (-1, rows, height, columns, width * channels))
    x = tf.transpose(x, (0, 1, 3, 2, 4))
    return tf.reshape(x, (-1, rows, columns, height * width * channels))


def _pair(size: Any) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)
