"""Patches of images, cut out by their positions.

``keras.ops.image.extract_patches`` convolves images with a constant of ones and zeros, whose size
is the square of the size of a patch: 2.4 MB for 16 x 16 pixels of 3 colors. Patches that do not
overlap need no arithmetic. For ``tf.image.extract_patches``, the formats have no operator.
"""

import contextlib
from collections.abc import Iterator, Mapping
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
    return _adjacent(images, height, width)


def _adjacent(images: Any, height: int, width: int) -> Any:
    """The patches beside each other; a rest at the end of rows and columns is left out."""
    import tensorflow as tf

    _, rows, columns, channels = images.shape
    rows, columns = rows // height, columns // width
    x = images[:, : rows * height, : columns * width]
    x = tf.reshape(x, (-1, rows, height, columns, width * channels))
    x = tf.transpose(x, (0, 1, 3, 2, 4))
    return tf.reshape(x, (-1, rows, columns, height * width * channels))


def extract_image_patches(images: Any, *, attributes: Mapping[str, Any]) -> Any:
    """The operation of ``tf.image.extract_patches``; None for images of unknown size."""
    import tensorflow as tf

    sizes, steps, rates = (
        list(attributes[name].list.i)[1:3] for name in ("ksizes", "strides", "rates")
    )
    if images.shape.rank != 4 or None in images.shape[1:].as_list():
        return None
    extents = [(size - 1) * rate + 1 for size, rate in zip(sizes, rates, strict=True)]
    if attributes["padding"].s == b"SAME":
        padding = [
            max((-(-length // step) - 1) * step + extent - length, 0)
            for length, step, extent in zip(images.shape[1:3], steps, extents, strict=True)
        ]
        inner = [[total // 2, total - total // 2] for total in padding]
        images = tf.pad(images, [[0, 0], *inner, [0, 0]])
    counts = [
        (length - extent) // step + 1
        for length, step, extent in zip(images.shape[1:3], steps, extents, strict=True)
    ]
    if min(counts) < 1:
        return None
    if steps == sizes and rates == [1, 1]:
        return _adjacent(images, *sizes)
    channels = images.shape[3]
    # The rows of the patches, and then their columns, each on an axis of its own.
    for axis, (size, step, rate, count) in enumerate(
        zip(sizes, steps, rates, counts, strict=True), start=1
    ):
        before = [slice(None)] * axis
        ends = [start * rate + (count - 1) * step + 1 for start in range(size)]
        parts = [
            images[(*before, slice(start * rate, end, step))] for start, end in enumerate(ends)
        ]
        images = tf.stack(parts, axis=axis + 2)
    return tf.reshape(images, (-1, *counts, sizes[0] * sizes[1] * channels))


def _pair(size: Any) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)
