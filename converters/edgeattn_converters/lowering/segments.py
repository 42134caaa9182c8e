"""Sums and extremes of segments of integers, and other changes of single elements, which a format
lacks or computes in float32.

Each function returns None for what the formats have, and for shapes that are not known.
"""

from typing import Any

import numpy as np

# Of all elements of all segments.
_MAX_ELEMENTS = 2**22


def segment_sum(x: Any, segments: Any, count: Any) -> Any:
    """The sum of the rows of each segment; rows of negative segments are dropped."""
    import tensorflow as tf

    rows, positions, number = _rows(x, segments, count)
    if rows is None:
        return None
    # Those are added to an additional row, which is removed.
    place = tf.where(positions < 0, tf.constant(number, positions.dtype), positions)
    zeros = tf.zeros([number + 1, *rows.shape[1:]], x.dtype)
    sums = tf.tensor_scatter_nd_add(zeros, place[:, None], rows)[:number]
    return tf.reshape(sums, [number, *x.shape[segments.shape.rank :]])


def segment_extreme(x: Any, segments: Any, count: Any, *, largest: bool) -> Any:
    """The largest or smallest row of each segment, that of an empty one as in TensorFlow."""
    import tensorflow as tf

    rows, positions, number = _rows(x, segments, count)
    if rows is None or number * rows.shape.num_elements() > _MAX_ELEMENTS:
        return None
    wide = tf.int64 if x.dtype.size >= 4 and x.dtype != tf.int32 else tf.int32
    unused = tf.constant(x.dtype.min if largest else x.dtype.max, wide)
    is_of = tf.equal(positions[:, None], tf.range(number, dtype=positions.dtype))
    values = tf.where(is_of[..., None], tf.cast(rows, wide)[:, None], unused)
    extremes = (tf.reduce_max if largest else tf.reduce_min)(values, 0)
    return tf.reshape(tf.cast(extremes, x.dtype), [number, *x.shape[segments.shape.rank :]])


def _rows(x: Any, segments: Any, count: Any) -> tuple[Any, Any, int]:
    """The rows of integers as a matrix, their segments as a vector, and the number of segments."""
    import tensorflow as tf

    number = tf.get_static_value(count)
    known = number is not None and x.shape.is_fully_defined() and x.dtype.is_integer
    if not known or not segments.shape.rank or not segments.shape.is_fully_defined():
        return None, None, 0
    rows = segments.shape.num_elements()
    size = x.shape.num_elements() // rows if rows else 0
    if not size:
        return None, None, 0
    return tf.reshape(x, [rows, size]), tf.reshape(segments, [rows]), int(number)


def scattered_difference(x: Any, indices: Any, updates: Any) -> Any:
    """``x`` less the updates."""
    import tensorflow as tf

    return tf.tensor_scatter_nd_add(x, indices, tf.zeros_like(updates) - updates)


def scattered_extreme(x: Any, indices: Any, updates: Any, *, largest: bool) -> Any:
    """``x`` with the larger or smaller numbers of it and of the updates, each for another place."""
    import tensorflow as tf

    places = tf.get_static_value(indices)
    if places is None:
        return None
    places = places.reshape(-1, places.shape[-1])
    if len(np.unique(places, axis=0)) < len(places):
        return None
    extreme = tf.maximum if largest else tf.minimum
    return tf.tensor_scatter_nd_update(x, indices, extreme(tf.gather_nd(x, indices), updates))
