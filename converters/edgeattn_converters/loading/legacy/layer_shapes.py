"""Methods of Keras' own layers that take and return shapes, as code for Keras 2 calls them.

There, ``layer.compute_output_shape(shape)`` accepts a TensorShape and returns one, also for models
and layers around other ones. Keras 3 returns tuples and lists.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from edgeattn_converters.loading.legacy.tensor_shapes import plain_shapes, shapes_in
from edgeattn_converters.loading.own_code.own_classes import is_own_class

_METHODS = ("build", "compute_output_shape")
# The contexts that are active: an inner one has nothing to change.
_contexts: list[None] = []


@contextlib.contextmanager
def of_tensorflow() -> Iterator[None]:
    """Let layers of Keras accept shapes of TensorFlow, and return ones with its methods.

    Layers also have ``compute_output_signature``.
    """
    import keras

    if _contexts:
        yield
        return
    with contextlib.ExitStack() as stack:
        for cls in _classes(keras.layers.Layer):
            for name in _METHODS:
                if name in vars(cls):
                    changed = _with_shapes(vars(cls)[name])
                    stack.enter_context(mock.patch.object(cls, name, changed))
        stack.enter_context(
            mock.patch.object(
                keras.layers.Layer, "compute_output_signature", _output_signature, create=True
            )
        )
        _contexts.append(None)
        stack.callback(_contexts.pop)
        yield


def as_in_context(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what replaces a method of a layer, with these shapes if such a context is active."""
    return _with_shapes(method) if _contexts else method


def _classes(cls: Any) -> Iterator[Any]:
    """A class of Keras or edgeattn and those derived from it; classes of the user have the methods
    that they define."""
    if is_own_class(cls):
        return
    yield cls
    for derived in cls.__subclasses__():
        yield from _classes(derived)


def _with_shapes(method: Callable[..., Any]) -> Callable[..., Any]:
    # Its attributes are copied, with which Keras marks methods that a class does not define.
    @functools.wraps(method)
    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        named = {name: plain_shapes(value) for name, value in kwargs.items()}
        return shapes_in(method(layer, *map(plain_shapes, args), **named))

    return called


def _output_signature(layer: Any, input_signature: Any) -> Any:
    """Return the shapes of the outputs as a TensorSpec, with the dtype in which a layer computes.

    Raises :class:`TypeError` if an input is not a TensorSpec, as Keras 2.
    """
    import tensorflow as tf

    def shape_of(item: Any) -> Any:
        if not isinstance(item, tf.TensorSpec):
            raise TypeError(f"Only TensorSpec signature types are supported, got {item!r}.")
        return item.shape

    shapes = layer.compute_output_shape(tf.nest.map_structure(shape_of, input_signature))
    return _specs(shapes, layer.compute_dtype)


def _specs(shapes: Any, dtype: str) -> Any:
    import tensorflow as tf

    if isinstance(shapes, dict):
        return {name: _specs(item, dtype) for name, item in shapes.items()}
    if isinstance(shapes, list | tuple) and any(isinstance(item, list | tuple) for item in shapes):
        return [_specs(item, dtype) for item in shapes]
    return tf.TensorSpec(shapes, dtype)
