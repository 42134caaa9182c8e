"""Dilated convolutions over three axes as one operation, which TensorFlow has on other devices.

On a CPU, TensorFlow computes them on blocks of the volume, which it moves to the batch axis with
SpaceToBatchND and back with BatchToSpaceND. TFLite has these for images and sequences only, and a
convolution over three axes with dilation.
"""

import math
from typing import Any


def dilated(x: Any, block: Any, crops: Any) -> Any:
    """The dilated convolution of which ``x`` is computed on blocks; None for other operands.

    The blocks are those of ``tf.nn.convolution``: each contains every n-th element along an axis
    of the padded volume, so that the kernel has n - 1 elements between two of its own.
    """
    import tensorflow as tf

    if x.op.type != "Conv3D" or x.op.inputs[0].op.type != "SpaceToBatchND":
        return None
    volume, *positions = x.op.inputs[0].op.inputs
    sizes, padding, crop, other = map(
        tf.get_static_value, (block, positions[1], crops, positions[0])
    )
    known = all(value is not None for value in (sizes, padding, crop, other))
    if not known or not (sizes == other).all() or len(sizes) != 3:
        return None
    convolution = {name: x.op.get_attr(name) for name in ("strides", "padding", "data_format")}
    if convolution != {"strides": [1] * 5, "padding": b"VALID", "data_format": b"NDHWC"}:
        return None
    kernel, dilations = x.op.inputs[1], sizes.tolist()
    # TensorFlow infers a wrong shape of the result if the last two differ: it interchanges them.
    if dilations[1] != dilations[2]:
        kernel, dilations = _with_zeros(kernel, dilations), [1, 1, 1]
    result = tf.raw_ops.Conv3D(
        input=tf.pad(volume, [[0, 0], *padding.tolist(), [0, 0]]),
        filter=kernel,
        strides=[1] * 5,
        padding="VALID",
        dilations=[1, *dilations, 1],
    )
    ends = [None if not end else -int(end) for _, end in crop]
    starts = [int(start) for start, _ in crop]
    inner = tuple(slice(*ends_of_axis) for ends_of_axis in zip(starts, ends, strict=True))
    return result[(slice(None), *inner)]


def _with_zeros(kernel: Any, dilations: list[int]) -> Any:
    """A kernel (depth, height, width, channel, filter) with zeros between its elements."""
    import tensorflow as tf

    for axis, dilation in enumerate(dilations):
        shape = kernel.shape.as_list()
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        parts = tf.reshape(kernel, [math.prod(before), size, 1, math.prod(after)])
        parts = tf.pad(parts, [[0, 0], [0, 0], [0, dilation - 1], [0, 0]])
        kernel = tf.reshape(parts, [*before, size * dilation, *after])
        last = (size - 1) * dilation + 1
        kernel = kernel[(slice(None),) * axis + (slice(last),)]
    return kernel
