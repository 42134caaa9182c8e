"""Squeezes without axes, ``tf.squeeze(x)``, of tensors whose first axis is that of the samples.

TensorFlow then removes every axis of length one, also that of the samples if a batch has one. While
the batch is free, it does not even know the number of axes. ``model.predict`` computes larger
batches, as a rule, which keep the axis.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

from edgeattn_converters.graphs.data_sources import is_data

Shape = tuple[int | None, ...]
# The shapes of the data that were squeezed without axes while a model had a free batch.
_squeezed: WeakKeyDictionary[Any, set[Shape]] = WeakKeyDictionary()


@contextlib.contextmanager
def squeezes_of_free_batches(model: Any = None, batch: int | None = None) -> Iterator[None]:
    """Let squeezes without axes keep axes whose length is not known, such as that of the samples.

    ``model`` is the one that is traced for this ``batch``, None if it is free. For a single sample,
    they keep the axes that they keep in the free batch. A model that was created for one sample
    computes what TensorFlow does.
    """
    import tensorflow as tf
    from tensorflow.python.ops import gen_array_ops  # through which all functions squeeze

    if any(_is_single(tensor) for tensor in getattr(model, "inputs", None) or ()):
        yield
        return
    original = gen_array_ops.squeeze
    shapes = set() if model is None else _squeezed.setdefault(model, set())

    def squeeze(x: Any, axis: Any = None, name: Any = None) -> Any:
        known = isinstance(x, tf.Tensor) and x.shape.rank is not None
        has_axes = axis is not None and not (isinstance(axis, list | tuple) and not axis)
        if has_axes or not known:
            return original(x, axis, name)
        shape = tuple(x.shape.as_list())
        # Keras itself squeezes weights, such as a bias of shape (1, 1, 4).
        if None not in shape and not (1 in shape and is_data(x)):
            return original(x, axis, name)
        if batch is None:
            shapes.add(shape)
        axes = _ones(shape) if None in shape else _of_free_batch(shape, shapes)
        if axes is None:
            return original(x, axis, name)
        # TensorFlow takes an empty list for all axes.
        return original(x, axes, name) if axes else tf.identity(x, name)

    with mock.patch.object(gen_array_ops, "squeeze", squeeze):
        yield


def _is_single(tensor: Any) -> bool:
    return bool(len(tensor.shape)) and tensor.shape[0] == 1


def _ones(shape: Shape) -> list[int]:
    return [axis for axis, size in enumerate(shape) if size == 1]


def _of_free_batch(shape: Shape, squeezed: set[Shape]) -> list[int] | None:
    """The axes that are removed from a tensor of this shape if the batch is free.

    None if this is not known, because no tensor or several have it apart from the free axes.
    """
    found = {tuple(_ones(other)) for other in squeezed if _is_of(shape, other)}
    return list(next(iter(found))) if len(found) == 1 else None


def _is_of(shape: Shape, free: Shape) -> bool:
    """Whether a shape is ``free`` with a length for each axis that has none there."""
    return len(shape) == len(free) and all(
        size in (None, known) for known, size in zip(shape, free, strict=True)
    )
