"""``training`` as a tensor, which layers of Keras 2 accept and those of Keras 3 do not.

Classes of the user compute it, such as the normalization of many YOLO models, which is frozen with
``trainable``: ``super().call(x, tf.logical_and(training, self.trainable))``. In a graph, the result
is a tensor although its value is known.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from edgeattn_converters.graphs.constant_results import constant_value
from edgeattn_converters.loading.own_code.own_classes import is_own_class

_MARK = "_accepts_training_as_tensor"


def accept(cls: Any) -> None:
    """Let ``call`` of the parents of a class accept a tensor ``training`` whose value is known.

    Only parents of Keras; methods of the user compute with the tensor. It lasts, because classes of
    the user call their parents whenever a model is called.
    """
    for parent in cls.__mro__:
        method = vars(parent).get("call")
        if is_own_class(parent) or not inspect.isfunction(method) or hasattr(method, _MARK):
            continue
        if "training" in inspect.signature(method).parameters:
            parent.call = _with_values(method)


def known(training: Any) -> Any:
    """Return the value of a tensor that no input of a model is behind, anything else as it is."""
    import tensorflow as tf

    if not tf.is_tensor(training):
        return training
    value = constant_value(training)
    return training if value is None else bool(value)


def in_call(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of a layer with the value of such a tensor in its place."""
    if "training" not in kwargs and len(args) < 2:
        return args, kwargs
    return _with_value(tuple(inspect.signature(layer.call).parameters), args, kwargs)


def _with_value(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if "training" in kwargs:
        return args, {**kwargs, "training": known(kwargs["training"])}
    if "training" in names[: len(args)]:
        place = names.index("training")
        args = (*args[:place], known(args[place]), *args[place + 1 :])
    return args, kwargs


def _with_values(method: Callable[..., Any]) -> Callable[..., Any]:
    names = tuple(inspect.signature(method).parameters)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _with_value(names, args, kwargs)
        return method(*args, **kwargs)

    setattr(call, _MARK, True)
    return call
