"""Masks that layers get without a mask in their call, as in Keras 2.

Keras 2 passes ``mask`` with the mask of the first input, also beside other tensors, such as the
states of a recurrent layer or the outputs of an encoder, unless the call has ``mask=None``. Keras 3
passes it to layers with one tensor only, also instead of None.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from edgeattn_converters.loading.keras_tensors import is_keras_tensor, kept_masks, keras_tensors
from edgeattn_converters.loading.legacy_program import OF_TF_KERAS
from edgeattn_converters.loading.own_classes import is_own_class

_MARK = "_passes_masks_as_in_keras_2"
# Of the calls of classes of the user that are running.
_own_calls: list[None] = []


@contextlib.contextmanager
def passed() -> Iterator[None]:
    """Call layers with the masks and the arguments in place, and recurrent ones with the constants,
    of Keras 2."""
    import keras
    from keras.src.models import functional

    from edgeattn_converters.loading import arguments_in_place, masks_over_time, recurrent_constants

    of_keras = keras.layers.Layer.__call__
    if hasattr(of_keras, _MARK):
        yield
        return

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        recurrent_constants.accept(layer, args, kwargs)
        args, kwargs = arguments_in_place.by_name(layer, args, kwargs)
        args, kwargs = _with_mask(layer, args, kwargs)
        if isinstance(layer, keras.layers.TimeDistributed):
            masks_over_time.mask_as_in_keras_2(layer)
        with _kept(layer, args, kwargs):
            return of_keras(layer, *args, **kwargs)

    setattr(call, _MARK, True)
    attention = keras.layers.MultiHeadAttention
    with (
        mock.patch.object(keras.layers.Layer, "__call__", call),
        mock.patch.object(attention, "call", arguments_in_place.attention_call(attention.call)),
        mock.patch.object(functional, "operation_fn", _repeated(functional.operation_fn)),
    ):
        yield


def _repeated(of_keras: Callable[..., Any]) -> Callable[..., Any]:
    """How a functional model repeats a call, without the masks that its inputs did not have when
    it was built: they may have masks now."""

    def operation_fn(operation: Any, **context: Any) -> Any:
        call = of_keras(operation, **context)
        return lambda *args, **kwargs: call(*args, **_without_none(kwargs))

    return operation_fn


def _without_none(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != "mask" or value is not None}


@contextlib.contextmanager
def reported(notes: list[str]) -> Iterator[None]:
    """Call layers with the masks of Keras 3; add a note about each that has another in Keras 2."""
    import keras

    from edgeattn_converters.loading import arguments_in_place

    of_keras = keras.layers.Layer.__call__

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        differences = {
            "Keras 3 passes it no mask, and Keras 2 passes that of its first input": (
                _with_mask(layer, args, kwargs)[1] != kwargs
            ),
            "its fourth argument is query_mask in Keras 3, and attention_mask in Keras 2": (
                arguments_in_place.has_mask_of_attention(layer, args)
            ),
        }
        notes.extend(
            f"{layer.name}: {difference}. {OF_TF_KERAS}"
            for difference, found in differences.items()
            if found
        )
        return of_keras(layer, *args, **kwargs)

    with mock.patch.object(keras.layers.Layer, "__call__", call):
        yield


def pass_masks(cls: Any) -> None:
    """Call layers of a class of the user, and the layers inside them, with the masks of Keras 2.

    It lasts, because masks from outside of a nested model exist only when that is called.
    """
    own = vars(cls).get("__call__")
    if not is_own_class(cls) or hasattr(own, _MARK):
        return

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not _own_calls:
            kwargs = _without_none(kwargs)  # of a functional model, see _repeated
        _own_calls.append(None)
        try:
            with passed():
                if own is not None:
                    return own(layer, *args, **kwargs)
                return super(cls, layer).__call__(*args, **kwargs)
        finally:
            _own_calls.pop()

    setattr(call, _MARK, True)
    cls.__call__ = call


def passed_by(cls: Any) -> contextlib.AbstractContextManager[None]:
    """Call layers as calls of a class do, see :func:`pass_masks`."""
    return passed() if hasattr(cls.__call__, _MARK) else contextlib.nullcontext()


def _kept(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> contextlib.AbstractContextManager[None]:
    """Leave the inputs of a MultiHeadAttention their masks."""
    import keras

    if not isinstance(layer, keras.layers.MultiHeadAttention):
        return contextlib.nullcontext()
    return kept_masks(list(filter(_is_tensor, keras.tree.flatten((args, kwargs)))))


def _with_mask(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with the mask of the first one."""
    import keras

    given = _arguments(layer, args, kwargs)
    if not given:
        return args, kwargs
    first, *others = given.values()
    masks = keras.tree.map_structure(_mask, first)
    if not any(mask is not None for mask in keras.tree.flatten(masks)):
        return args, kwargs
    if "mask" not in given:
        has_others = any(map(_is_tensor, keras.tree.flatten(others)))
        return args, {**kwargs, "mask": masks} if has_others else kwargs
    if given["mask"] is None and args and not keras_tensors(first):
        return (keras.tree.map_structure(_without_mask, first), *args[1:]), kwargs
    return args, kwargs


def _arguments(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, none if it does not accept a mask."""
    signature = inspect.signature(layer.call)
    if "mask" not in signature.parameters:
        return {}
    accepted = {key: value for key, value in kwargs.items() if key in signature.parameters}
    try:
        return dict(signature.bind_partial(*args, **accepted).arguments)
    except TypeError:  # which Keras reports
        return {}


def _mask(tensor: Any) -> Any:
    from keras.src.backend import get_keras_mask

    return get_keras_mask(tensor)


def _is_tensor(value: Any) -> bool:
    import keras

    return is_keras_tensor(value) or bool(keras.ops.is_tensor(value))


def _without_mask(tensor: Any) -> Any:
    import tensorflow as tf

    return tensor if _mask(tensor) is None else tf.identity(tensor)
