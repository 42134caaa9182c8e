"""Masks that classes of the user compute from inputs of a model, which have no values yet.

The masks of Keras 2 could be computed by functions of TensorFlow. Keras 3 does not accept its
symbolic tensors in these, so they get those of TensorFlow, as in ``call``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from edgeattn_converters.loading.keras_tensors import keras_tensors
from edgeattn_converters.loading.own_code.own_classes import is_own_class, source_of

# The scope of operations that compute a mask only, by another call of a model.
MASK_SCOPE = "edgeattn_mask_over_time"
_METHOD = "compute_mask"


def trace_masks(cls: Any) -> None:
    """Let ``compute_mask`` of a class, and of its parents, accept symbolic tensors of Keras."""
    for parent in cls.__mro__:
        method = vars(parent).get(_METHOD)
        if is_own_class(parent) and callable(method) and not hasattr(method, "__wrapped__"):
            setattr(parent, _METHOD, traced(method))


def may_create_masks(value: Any) -> bool:
    """Return whether layers of a class of the user may have a mask that their inputs have not."""
    if not inspect.isclass(value):
        return False
    for parent in filter(is_own_class, value.__mro__):
        method = vars(parent).get(_METHOD)
        code = getattr(inspect.unwrap(method), "__code__", None) if method else None
        # A method that returns None or its argument uses no names.
        if code is not None and code.co_names:
            return True
        if any(name in source_of(parent) for name in ("Masking", "mask_zero", "_keras_mask")):
            return True
    return False


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose masks of symbolic tensors are outputs of an operation of the model.

    They may be inputs of layers: ``LSTM(8)(x, mask=layer.compute_mask(x))``.
    """
    import keras
    from keras.src.backend import compute_output_spec

    @functools.wraps(function)
    def compute_mask(*arguments: Any, **named: Any) -> Any:
        if not keras_tensors([arguments, named]):
            return function(*arguments, **named)
        masks = compute_output_spec(function, *arguments, **named)
        # Outputs of an operation are tensors only, and a mask may be None.
        tensors = iter(_operation(function)(*arguments, **named) if keras_tensors(masks) else ())
        return keras.tree.map_structure(
            lambda mask: next(tensors) if keras_tensors(mask) else mask, masks
        )

    return compute_mask


def _operation(function: Callable[..., Any]) -> Any:
    import keras

    class Mask(keras.Operation):
        def call(self, *arguments: Any, **named: Any) -> Any:
            masks = function(*arguments, **named)
            return [mask for mask in keras.tree.flatten(masks) if keras.ops.is_tensor(mask)]

    return Mask()
