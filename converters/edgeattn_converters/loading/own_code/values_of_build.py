"""Tensors that a class of the user computes from its weights when it is built.

Such a tensor, for example ``self.kernel_i = self.kernel[:, :units]``, was part of the graph in
TensorFlow 1 and followed the weights. Since TensorFlow 2 it is a number of the moment: it keeps the
initial weights, whatever is trained or loaded later, and no file contains it.
"""

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.own_code.hidden_layers import in_attribute
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights import own_loading

_LISTED = 3


@contextlib.contextmanager
def recorded(created: list[Any]) -> Iterator[None]:
    """Append the weights to ``created`` that layers create, in that order."""

    def recording(add_weight: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        created.append(add_weight(*args, **kwargs))
        return created[-1]

    with _weights_created_by(recording):
        yield


@contextlib.contextmanager
def initialized(values: Sequence[Any]) -> Iterator[None]:
    """Let layers create their weights with these values, in the order of :func:`recorded`."""
    remaining = iter(values)

    def with_value(add_weight: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = next(remaining, None)
        if value is not None:
            kwargs["initializer"] = lambda shape, dtype=None, **_: np.asarray(value).reshape(shape)
        return add_weight(*args, **kwargs)

    with _weights_created_by(with_value):
        yield


@contextlib.contextmanager
def _weights_created_by(creation: Callable[..., Any]) -> Iterator[None]:
    """Within the context, ``creation(add_weight, layer, ...)`` creates the weights of layers."""
    import keras

    add_weight = keras.layers.Layer.add_weight

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return creation(add_weight, *args, **kwargs)

    with mock.patch.object(keras.layers.Layer, "add_weight", replaced):
        yield


def with_trained(
    model: Any, created: Sequence[Any], rebuild: Callable[[], Any], *, in_graph: bool
) -> Any:
    """Return a model whose classes have computed their tensors from the weights of ``model``.

    This is ``model`` itself if none depends on the weights. ``created`` are its weights as
    :func:`recorded`, ``rebuild`` builds it once more, and ``in_graph`` is whether the Keras that
    saved it computed such tensors in its graph. Raises :class:`UnsupportedModelError` if not,
    because their values are lost.
    """
    found = _tensors(model)
    if not found:
        return model
    trained = [np.asarray(weight) for weight in created]
    models = []
    for _ in range(2):
        with initialized(trained):
            models.append(rebuild())
    again, third = map(_tensors, models)
    changed = _changed(found, again)
    if not changed:
        return model
    names = enumerated(changed[:_LISTED])
    if _changed(again, third):
        raise UnsupportedModelError(
            f"The file does not contain {names}: tensors that your class computes when it is "
            "built, with other values every time.",
            hint="Create them with self.add_weight(..., trainable=False), train the model again "
            "and save it.",
        )
    if not in_graph:
        raise UnsupportedModelError(
            f"The file does not contain {names}: tensors that your class computes from its weights "
            "in build(). They keep the initial weights, with which the model was trained, because "
            "TensorFlow 2 does not compute them again.",
            hint="Compute them in call(), train the model again and save it.",
        )
    return models[0]


def _tensors(model: Any) -> dict[str, list[Any]]:
    """The tensors and arrays in attributes of layers of the user, by layer and attribute."""
    return {
        f"{number}: {name!r} of layer {layer.name!r}": tensors
        for number, layer in enumerate(model._flatten_layers())
        if is_own_class(type(layer))
        for name, value in vars(layer).items()
        if name not in own_loading.loaded_attributes(layer)
        if (tensors := list(_arrays(value))) and name not in _set_by_calls(type(layer))
    }


def _set_by_calls(cls: type) -> set[str]:
    """The attributes that ``call``, or a method that it uses, sets whenever the layer is called."""
    attributes: set[str] = set()
    methods, seen = ["call"], {"call"}
    while methods:
        for code in _codes(cls, methods.pop()):
            for step in dis.get_instructions(code):
                if step.opname == "STORE_ATTR":
                    attributes.add(step.argval)
                elif isinstance(step.argval, str) and step.argval not in seen:
                    seen.add(step.argval)
                    methods.append(step.argval)
    return attributes


def _codes(cls: type, name: str) -> Iterator[CodeType]:
    """The code of a method, of functions inside, and of the methods that it calls by ``super``."""
    defining = [parent for parent in cls.__mro__ if name in vars(parent)]
    for parent in defining[:1] + list(filter(is_own_class, defining[1:])):
        method = vars(parent)[name]
        # Methods of classes of the user are wrapped when a file of Keras 2 is loaded.
        code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
        codes = [] if code is None else list(_nested(code))
        yield from codes
        if not any("super" in part.co_names for part in codes):
            return


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _arrays(attribute: Any) -> Iterator[Any]:
    import tensorflow as tf

    for value in in_attribute(attribute):
        is_known = isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value)
        if is_known or isinstance(value, np.ndarray):
            yield np.asarray(value)


def _changed(found: Mapping[str, list[Any]], again: Mapping[str, list[Any]]) -> list[str]:
    """The tensors, without the number of the layer, that have other values in a second model."""
    return [
        key.partition(": ")[2]
        for key, values in found.items()
        if len(values) != len(again.get(key, ())) or not all(map(_equal, values, again[key]))
    ]


def _equal(value: Any, other: Any) -> bool:
    numbers = value.dtype.kind in "fc"
    return bool(np.array_equal(value, other, equal_nan=numbers))
