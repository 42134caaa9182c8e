"""Sums, means, products and extremes of segments of rows, if the segment of each row is known.

Segments of the same number of rows are gathered and reduced at once. A product with a matrix of
zeros and ones would be NaN for an infinite row of another segment.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.constant_results import constant_value

# The values of segments without rows, of ``tf.math.segment_sum`` and of its siblings.
_OF_EMPTY = {"Sum": 0, "Mean": 0, "Prod": 1, "Max": 0, "Min": 0}


def of_sorted(x: Any, segments: Any, *, kind: str) -> Any:
    """The result of ``tf.math.segment_sum`` or a sibling; None if the segments are not constant.

    Args:
        x: rows, of shape (rows, ...).
        segments: the number of the segment of each row, in ascending order.
        kind: ``"Sum"``, ``"Mean"``, ``"Prod"``, ``"Max"`` or ``"Min"``.
    """
    numbers = constant_value(segments)
    if numbers is None or not numbers.size or numbers[0] < 0 or np.any(np.diff(numbers) < 0):
        return None
    if kind == "Mean" and x.dtype.is_integer:
        return _integer_means(x, numbers)
    return _reduced(x, numbers, int(numbers[-1]) + 1, kind, _OF_EMPTY[kind])


def _integer_means(x: Any, numbers: Array) -> Any:
    """The quotients of sums and numbers of rows, rounded towards zero as by TensorFlow."""
    import tensorflow as tf

    sizes = np.maximum(np.bincount(numbers.astype(np.int64)), 1)
    sums = _reduced(x, numbers, len(sizes), "Sum", _OF_EMPTY["Sum"])
    if sums is None:
        return None
    sizes = sizes.reshape(-1, *[1] * (x.shape.rank - 1))
    return tf.raw_ops.Div(x=sums, y=tf.constant(sizes, x.dtype))


def of_unsorted(x: Any, segments: Any, count: Any, *, kind: str) -> Any:
    """The result of ``tf.math.unsorted_segment_sum`` or a sibling; None if an operand but ``x`` is
    not constant.

    Rows of negative segments are dropped. A segment without rows has the smallest or largest number
    of its type if ``kind`` is ``"Max"`` or ``"Min"``.
    """
    import tensorflow as tf

    numbers, number = constant_value(segments), constant_value(count)
    if numbers is None or number is None or not numbers.ndim or np.any(numbers >= number):
        return None
    if x.shape.rank is None or x.shape[: numbers.ndim] != numbers.shape or not number:
        return None
    if numbers.ndim > 1:
        others = x.shape[numbers.ndim :].as_list()
        if others.count(None) > 1:
            return None
        sizes = [-1 if size is None else size for size in others]
        x = tf.reshape(x, [numbers.size, *sizes])
    limits = {"Max": x.dtype.min, "Min": x.dtype.max}
    empty = limits.get(kind, _OF_EMPTY[kind])
    return _reduced(x, numbers.reshape(-1), int(number), kind, empty)


def _reduced(x: Any, numbers: Array, count: int, kind: str, empty: Any) -> Any:
    import tensorflow as tf

    if x.shape.rank is None or x.shape[0] != len(numbers):
        return None
    places, results = [], []
    for segments, rows in _by_size(numbers, count):
        places.append(segments)
        results.append(_of_rows(x, rows, kind) if rows.size else _filled(x, len(segments), empty))
    result = results[0] if len(results) == 1 else tf.concat(results, 0)
    order = np.argsort(np.concatenate(places))
    if np.any(np.diff(order) < 0):
        result = tf.gather(result, tf.constant(order, tf.int32))
    result.set_shape([count, *x.shape[1:]])
    return result


def _by_size(numbers: Array, count: int) -> Iterator[tuple[Array, Array]]:
    """The segments of each number of rows, and their rows: of shape (segments, rows)."""
    kept = np.flatnonzero(numbers >= 0)
    rows = kept[np.argsort(numbers[kept], kind="stable")]
    sizes = np.bincount(numbers[kept].astype(np.int64), minlength=count)
    first = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        segments = np.flatnonzero(sizes == size)
        yield segments, rows[first[segments][:, None] + np.arange(size)]


def _of_rows(x: Any, rows: Array, kind: str) -> Any:
    import tensorflow as tf

    count, size = rows.shape
    if size == 1:
        return tf.gather(x, tf.constant(rows[:, 0], tf.int32))
    in_order = np.array_equal(rows.reshape(-1), np.arange(x.shape[0]))
    if in_order and x.shape.is_fully_defined():
        selected = tf.reshape(x, [count, size, *x.shape[1:]])
    else:
        selected = tf.gather(x, tf.constant(rows, tf.int32))
    reduce: dict[str, Callable[..., Any]] = {
        "Sum": tf.reduce_sum, "Mean": tf.reduce_mean, "Prod": tf.reduce_prod,
        "Max": tf.reduce_max, "Min": tf.reduce_min,
    }  # fmt: skip
    return reduce[kind](selected, 1)


def _filled(x: Any, count: int, value: Any) -> Any:
    import tensorflow as tf

    value = tf.constant(value, x.dtype)
    if x.shape[1:].is_fully_defined():
        return tf.fill([count, *x.shape[1:]], value)
    return tf.fill(tf.concat([[count], tf.shape(x)[1:]], 0), value)


REPLACEMENTS = {
    **{f"Segment{kind}": partial(of_sorted, kind=kind) for kind in _OF_EMPTY},
    **{f"UnsortedSegment{kind}": partial(of_unsorted, kind=kind) for kind in _OF_EMPTY},
}
