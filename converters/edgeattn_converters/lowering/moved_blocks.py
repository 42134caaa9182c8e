"""Integers and truth values that move between space and batch, and convolutions of integers.

The formats have them of floats. Each function returns None for these, and for unknown sizes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_Attributes = Mapping[str, Any]


def space_to_batch(x: Any, block: Any, paddings: Any) -> Any:
    """The places of each block in samples of their own."""
    import tensorflow as tf

    sizes, edges = tf.get_static_value(block), tf.get_static_value(paddings)
    if x.dtype.is_floating or sizes is None or edges is None or None in x.shape[1:]:
        return None
    count = len(sizes)
    rest = x.shape.rank - 1 - count
    x = tf.pad(x, [[0, 0], *edges.tolist(), *[[0, 0]] * rest])
    _, *space = x.shape[: 1 + count]
    inner = x.shape[1 + count :]
    parts = [n for axis, size in zip(space, sizes, strict=True) for n in (axis // size, size)]
    x = tf.reshape(x, [-1, *parts, *inner])
    places = [2 + 2 * k for k in range(count)]
    blocks = [1 + 2 * k for k in range(count)]
    x = tf.transpose(x, [*places, 0, *blocks, *range(1 + 2 * count, x.shape.rank)])
    return tf.reshape(x, [-1, *parts[::2], *inner])


def batch_to_space(x: Any, block: Any, crops: Any) -> Any:
    """The inverse of :func:`space_to_batch`, without the ``crops`` at the edges."""
    import tensorflow as tf

    sizes, edges = tf.get_static_value(block), tf.get_static_value(crops)
    if x.dtype.is_floating or sizes is None or edges is None or None in x.shape[1:]:
        return None
    count = len(sizes)
    _, *space = x.shape[: 1 + count]
    inner = x.shape[1 + count :]
    x = tf.reshape(x, [*sizes, -1, *space, *inner])
    pairs = [axis for k in range(count) for axis in (count + 1 + k, k)]
    x = tf.transpose(x, [count, *pairs, *range(1 + 2 * count, x.shape.rank)])
    lengths = [axis * int(size) for axis, size in zip(space, sizes, strict=True)]
    x = tf.reshape(x, [-1, *lengths, *inner])
    kept = [
        slice(before, length - after)
        for (before, after), length in zip(edges.tolist(), lengths, strict=True)
    ]
    return x[(slice(None), *kept)]


def convolution(x: Any, kernel: Any, *, attributes: _Attributes) -> Any:
    """A convolution over images of integers, as a product of matrices."""
    import tensorflow as tf

    padding, layout = attributes["padding"].s, attributes["data_format"].s
    if not x.dtype.is_integer or padding not in (b"SAME", b"VALID") or layout not in (b"", b"NHWC"):
        return None
    if None in x.shape[1:] or x.shape[-1] != kernel.shape[2]:
        return None
    _, *strides, _ = attributes["strides"].list.i
    _, *dilations, _ = list(attributes["dilations"].list.i) or [1] * 4
    edges, counts = [], []
    for length, size, step, dilation in zip(
        x.shape[1:3], kernel.shape[:2], strides, dilations, strict=True
    ):
        reach = (size - 1) * dilation + 1
        count = -(-length // step) if padding == b"SAME" else (length - reach) // step + 1
        missing = max(0, (count - 1) * step + reach - length) if padding == b"SAME" else 0
        edges.append([missing // 2, missing - missing // 2])
        counts.append(count)
    x = tf.pad(x, [[0, 0], *edges, [0, 0]])
    # What each element of the kernel is multiplied with.
    parts = []
    for position in np.ndindex(*kernel.shape[:2]):
        starts = [place * dilation for place, dilation in zip(position, dilations, strict=True)]
        rows, columns = (
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(starts, counts, strides, strict=True)
        )
        parts.append(x[:, rows, columns])
    patches = tf.reshape(tf.concat(parts, -1), [-1, np.prod(counts), np.prod(kernel.shape[:3])])
    result = tf.matmul(patches, tf.reshape(kernel, [1, -1, kernel.shape[-1]]))
    return tf.reshape(result, [-1, *counts, kernel.shape[-1]])
