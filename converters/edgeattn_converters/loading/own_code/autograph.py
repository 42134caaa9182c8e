"""Methods of classes of the user whose Python loops and conditions depend on tensors.

Keras 2 converts ``call`` with AutoGraph, ``for t in tf.range(n)``, and Keras 3 does not. A method
that is a ``tf.function`` is converted, too, but it also stores its graphs: Keras 3 calls it before
the layers in it have weights, and that graph contains the initial values as constants.
"""

import functools
from collections.abc import Callable
from typing import Any

from edgeattn_converters.loading.own_code.own_classes import is_own_class

_MARK = "_edgeattn_converts_loops"


def convert_loops(cls: Any) -> None:
    """Let methods of a class of the user, and of its parents, convert loops; none stores graphs."""
    for parent in filter(is_own_class, cls.__mro__):
        for name, value in list(vars(parent).items()):
            function = getattr(value, "python_function", None)
            if callable(function) and hasattr(value, "get_concrete_function"):
                setattr(parent, name, _converted(function))
            elif name == "call" and callable(value) and not hasattr(value, _MARK):
                setattr(parent, name, _converted_if_needed(value))


def _converted_if_needed(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is converted if it fails without."""
    needed: list[None] = []
    converted = _converted(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        if needed:
            return converted(*args, **kwargs)
        try:
            return method(*args, **kwargs)
        except tf.errors.OperatorNotAllowedInGraphError:
            result = converted(*args, **kwargs)
            needed.append(None)
            return result

    setattr(call, _MARK, True)
    return call


def _converted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that AutoGraph converts at each call, as a ``tf.function`` does for a graph."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf
        from tensorflow.python.autograph.core import ag_ctx, converter

        convert = tf.__internal__.autograph.tf_convert
        options = converter.ConversionOptions(recursive=True)
        with ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED, options) as context:
            return convert(function, context)(*args, **kwargs)

    setattr(call, _MARK, True)
    return call
