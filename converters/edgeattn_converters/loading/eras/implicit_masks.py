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

from edgeattn_converters.loading.keras_tensors import (
    is_keras_tensor,
    kept_masks,
    keras_tensors,
    without_mask,
)
from edgeattn_converters.loading.legacy import training_tensors
from edgeattn_converters.loading.legacy.legacy_program import OF_TF_KERAS, generated_name
from edgeattn_converters.loading.migrate.functional_nodes import is_none
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights import functional_order

_MARK = "_passes_masks_as_in_keras_2"
# Of the calls of classes of the user that are running.
_own_calls: list[None] = []


@contextlib.contextmanager
def passed(*, of_program: bool = False) -> Iterator[None]:
    """Call layers with the masks and the arguments in place, and recurrent ones with the constants,
    of Keras 2. Layers of Keras use masks as in Keras 2, also those that a call creates.

    The calls may be those ``of_program``. Others are repeated: Keras 3 stores ``mask=None`` for
    inputs that have no mask until their model is part of another one.
    """
    import keras
    from keras.src.models import functional

    from edgeattn_converters.loading.eras import masks_over_time, recurrent_constants
    from edgeattn_converters.loading.legacy import arguments_in_place
    from edgeattn_converters.loading.migrate import legacy_mask_layers

    of_keras = keras.layers.Layer.__call__
    if hasattr(of_keras, _MARK):
        yield
        return

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        given = keras_tensors((args, kwargs))
        recurrent_constants.accept(layer, args, kwargs)
        args, kwargs = training_tensors.in_call(layer, args, kwargs)
        args, kwargs = arguments_in_place.by_name(layer, args, kwargs)
        args = _without_masks(layer, args, kwargs, of_program=of_program)
        args, kwargs = _with_mask(layer, args, kwargs)
        if isinstance(layer, keras.layers.TimeDistributed):
            masks_over_time.mask_as_in_keras_2(layer)
        with _kept(layer, args, kwargs):
            results = of_keras(layer, *args, **kwargs)
        functional_order.record(layer, given)
        return results

    setattr(call, _MARK, True)
    attention = keras.layers.MultiHeadAttention
    with (
        legacy_mask_layers.of_keras_2(),
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
    return {key: value for key, value in kwargs.items() if key != "mask" or not is_none(value)}


@contextlib.contextmanager
def reported(notes: list[str]) -> Iterator[None]:
    """Call layers with the masks of Keras 3; add a note about each that has another in Keras 2."""
    import keras

    from edgeattn_converters.loading.legacy import arguments_in_place

    of_keras = keras.layers.Layer.__call__

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        differences = {
            "Keras 3 passes it the mask of its input in place of mask=None, and Keras 2 none": (
                _ignores_none(layer, args, kwargs)
            ),
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
        results = of_keras(layer, *args, **kwargs)
        functional_order.record(layer, keras_tensors((args, kwargs)))
        return results

    with mock.patch.object(keras.layers.Layer, "__call__", call):
        yield


def pass_masks(cls: Any) -> None:
    """Call layers of a class of the user, and the layers inside them, with the masks of Keras 2.

    It lasts, because masks from outside of a nested model exist only when that is called.
    """
    own = vars(cls).get("__call__")
    if not is_own_class(cls) or hasattr(own, _MARK):
        return
    for parent in filter(is_own_class, cls.__mro__):
        for name in ("call", "compute_mask"):
            method = vars(parent).get(name)
            if callable(method) and not hasattr(method, _MARK):
                setattr(parent, name, _without_empty_masks(method))

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not _own_calls and not keras_tensors(args):
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


def _without_empty_masks(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that gets None if none of several inputs has a mask.

    Keras 3 passes a list of None.
    """
    import keras

    def is_empty(mask: Any) -> bool:
        is_nested = isinstance(mask, list | tuple | dict)
        return is_nested and all(item is None for item in keras.tree.flatten(mask))

    @functools.wraps(method)
    def with_masks(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if is_empty(kwargs.get("mask")):
            kwargs["mask"] = None
        if method.__name__ == "compute_mask" and len(args) > 1 and is_empty(args[1]):
            args = (args[0], None, *args[2:])
        return method(layer, *args, **kwargs)

    setattr(with_masks, _MARK, True)
    return with_masks


def passed_by(cls: Any) -> contextlib.AbstractContextManager[None]:
    """Call layers as calls of a class do, see :func:`pass_masks`."""
    return passed() if are_passed_by(cls) else contextlib.nullcontext()


def are_passed_by(cls: Any) -> bool:
    """Return whether a class gets the masks of Keras 2, see :func:`pass_masks`."""
    return hasattr(cls.__call__, _MARK)


def _kept(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> contextlib.AbstractContextManager[None]:
    """Leave the inputs of a MultiHeadAttention their masks."""
    import keras

    if not isinstance(layer, keras.layers.MultiHeadAttention):
        return contextlib.nullcontext()
    return kept_masks(list(filter(_is_tensor, keras.tree.flatten((args, kwargs)))))


def _ignores_none(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call has mask=None, in whose place Keras 3 passes that of its first argument."""
    import keras

    given = _arguments(layer, args, kwargs)
    if given.get("mask", ()) is not None:
        return False
    first = keras.tree.flatten(next(iter(given.values())))
    return any(_mask(tensor) is not None for tensor in first)


def _without_masks(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, of_program: bool
) -> tuple[Any, ...]:
    """The arguments in place; the first one is copied without a mask if that of the call is None.

    A symbolic tensor of a program may be part of a model that is called with a mask later.
    """
    import keras

    given = _arguments(layer, args, kwargs)
    if not args or not is_none(given.get("mask", ())):
        return args

    def copied(tensor: Any) -> Any:
        if not is_keras_tensor(tensor):
            return without_mask(tensor)
        return _symbolic_copy(tensor) if of_program or _mask(tensor) is not None else tensor

    return (keras.tree.map_structure(copied, args[0]), *args[1:])


def _symbolic_copy(tensor: Any) -> Any:
    """The result of a layer, which can be stored."""
    from edgeattn_converters.loading.migrate import explicit_masks, registered_objects

    config = explicit_masks.without_mask(generated_name("without_mask"))["config"]
    return registered_objects.Expression(**config)(tensor)


def _with_mask(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with the mask of the first one, if it has others or needs a mask."""
    import keras

    given = _arguments(layer, args, kwargs)
    if not given or "mask" in given:
        return args, kwargs
    first, *others = given.values()
    masks = keras.tree.map_structure(_mask, first)
    has_others = any(map(_is_tensor, keras.tree.flatten(others)))
    parameter = inspect.signature(layer.call).parameters["mask"]
    is_passed = has_others or parameter.default is parameter.empty
    if is_passed and any(mask is not None for mask in keras.tree.flatten(masks)):
        return args, {**kwargs, "mask": masks}
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
