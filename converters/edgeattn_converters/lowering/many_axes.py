"""Operations on tensors with more axes than the runtimes of TFLite compute with.

XNNPACK, which computes float operators by default, accepts six axes, and fails to load a file in
which reductions, softmaxes and concatenations have more. The converter refuses slices of more.
Neighbouring axes that an operation treats alike are one axis of its operands here.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from edgeattn_converters.graphs.operation_creation import replaced_by

MOST_AXES = 6


def _has_many_axes(tensor: Any) -> bool:
    shape = tensor.shape
    return bool(shape.is_fully_defined() and shape.rank > MOST_AXES and shape.num_elements())


def _around(sizes: Sequence[int], start: int, end: int) -> list[int]:
    """The numbers of elements of the axes before ``start``, from there to ``end``, and behind."""
    return [math.prod(part) for part in (sizes[:start], sizes[start:end], sizes[end:])]


def _reduced(
    value: Any, axes: Any, *, attributes: Mapping[str, Any], reduce: Callable[..., Any]
) -> Any:
    """One reduction for each run of neighbouring axes."""
    import tensorflow as tf

    positions = tf.get_static_value(axes)
    if not _has_many_axes(value) or positions is None or not positions.size:
        return None
    sizes = value.shape.as_list()
    removed = sorted({int(axis) % len(sizes) for axis in positions.reshape(-1)})
    for end in [k + 1 for k in removed if k + 1 not in removed]:
        start = end - 1
        while start - 1 in removed:
            start -= 1
        value = reduce(tf.reshape(value, _around(sizes, start, end)), 1)
        sizes[start:end] = [1] * (end - start)
    kept = attributes["keep_dims"].b
    return tf.reshape(value, [n for k, n in enumerate(sizes) if kept or k not in removed])


def _softmax(scores: Any) -> Any:
    import tensorflow as tf

    if not _has_many_axes(scores):
        return None
    rows = tf.reshape(scores, [-1, scores.shape[-1]])
    return tf.reshape(tf.nn.softmax(rows), scores.shape)


def _joined(*operands: Any) -> Any:
    import tensorflow as tf

    *values, position = operands
    axis = tf.get_static_value(position)
    if axis is None or not all(map(_has_many_axes, values)):
        return None
    sizes = values[0].shape.as_list()
    axis = int(axis) % len(sizes)
    parts = [tf.reshape(x, _around(x.shape.as_list(), axis, axis + 1)) for x in values]
    sizes[axis] = sum(x.shape[axis] for x in values)
    return tf.reshape(tf.concat(parts, 1), sizes)


def _sliced(
    value: Any, begin: Any, end: Any, strides: Any, *, attributes: Mapping[str, Any]
) -> Any:
    """One slice for each axis of which a part is selected."""
    import tensorflow as tf

    numbers = [tf.get_static_value(item) for item in (begin, end, strides)]
    others = attributes["ellipsis_mask"].i or attributes["new_axis_mask"].i
    if not _has_many_axes(value) or others or any(item is None for item in numbers):
        return None
    masks = [attributes[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis")]
    sizes, removed = value.shape.as_list(), []
    for axis, (first, last, step) in enumerate(
        zip(*(item.tolist() for item in numbers), strict=True)
    ):
        free_begin, free_end, shrink = (bool(mask >> axis & 1) for mask in masks)
        if shrink:
            removed.append(axis)
            part = slice(first % sizes[axis], first % sizes[axis] + 1)
        else:
            part = slice(None if free_begin else first, None if free_end else last, step)
        count = len(range(*part.indices(sizes[axis])))
        if part.indices(sizes[axis]) == (0, sizes[axis], 1):
            continue
        value = tf.reshape(value, _around(sizes, axis, axis + 1))[:, part]
        sizes[axis] = count
    return tf.reshape(value, [n for k, n in enumerate(sizes) if k not in removed])


def _replacements() -> dict[str, Callable[..., Any]]:
    import tensorflow as tf

    reductions = {
        "Sum": tf.reduce_sum,
        "Mean": tf.reduce_mean,
        "Max": tf.reduce_max,
        "Min": tf.reduce_min,
    }
    return {
        **{kind: partial(_reduced, reduce=reduce) for kind, reduce in reductions.items()},
        "Softmax": _softmax,
        "ConcatV2": _joined,
        "StridedSlice": _sliced,
    }


@contextlib.contextmanager
def few_axes() -> Iterator[None]:
    """Within the context, operations that are traced have operands of few axes."""
    with replaced_by(_replacements(), ("Sum", "Mean", "Max", "Min", "StridedSlice")):
        yield
