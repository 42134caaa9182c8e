"""Arguments of layers of types that Keras 2 accepts and Keras 3 does not.

Such as ``Dense(np.int64(4))``, ``Conv2D(filters / 2, 3)``, ``MaxPooling2D(padding="SAME")``,
``Dropout(None)`` and ``name="conv1/bn"``.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from edgeattn_converters.loading.legacy import places_of_arguments
from edgeattn_converters.loading.migrate.context import safe_name

# Arguments that Keras 2 converts to an integer.
_COUNTS = ("units", "filters")
# The deviation of a GaussianNoise, at most 1 in Keras 3. It has no effect outside training.
_NOISE = "stddev"
# Arguments that have no effect outside training; in Keras 2, None is as 0.
_OF_TRAINING = (_NOISE, "rate", "dropout")
# Strings in which it ignores the case.
_LOWERED = ("padding", "data_format")


def layer_classes() -> set[type]:
    """Return the layers of Keras that have constructors of their own."""
    import keras

    return {
        value
        for value in vars(keras.layers).values()
        if isinstance(value, type)
        and issubclass(value, keras.layers.Layer)
        and "__init__" in vars(value)
    }


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Let layers have arguments of these types, names with slashes and lists of axes."""
    from edgeattn_converters.loading.migrate import normalized_axes

    with contextlib.ExitStack() as stack:
        stack.enter_context(normalized_axes.accepted())
        stack.enter_context(_names_with_slashes())
        for cls in layer_classes():
            changed = _accepting(vars(cls)["__init__"])
            stack.enter_context(mock.patch.object(cls, "__init__", changed))
        yield


def _accepting(create: Callable[..., Any]) -> Callable[..., Any]:
    """Return the constructor of a layer that accepts values of these types, in place or by name."""
    names = places_of_arguments.names(create)
    first = list(names)[:1]

    # Without functools.wraps: Keras reads both the signature and the names of the arguments.
    def with_types(layer: Any, /, *args: Any, **kwargs: Any) -> Any:
        in_place = [_converted(name, value) for name, value in zip(first, args, strict=False)]
        others = map(_plain, args[len(in_place) :])
        named = {name: _converted(name, value) for name, value in kwargs.items()}
        return create(layer, *in_place, *others, **named)

    setattr(with_types, places_of_arguments.NAMES, names)
    return with_types


@contextlib.contextmanager
def _names_with_slashes() -> Iterator[None]:
    """Let layers and models have such names, which are those of scopes without the slashes.

    A model finds its layers by both.
    """
    import keras

    create, find = keras.Operation.__init__, keras.Model.get_layer

    # Keras looks for the argument "self" of operations without a constructor of their own.
    def with_name(self: Any, name: Any = None) -> None:
        create(self, _scope(name))

    @functools.wraps(find)
    def get_layer(model: Any, name: Any = None, index: Any = None) -> Any:
        return find(model, _scope(name), index)

    with (
        mock.patch.object(keras.Operation, "__init__", with_name),
        mock.patch.object(keras.Model, "get_layer", get_layer),
    ):
        yield


def scopes(names: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Return the names in a file with slashes, with those of the layers that have them.

    Empty if some belong to no layer, or two to the same.
    """
    found = {name: safe_name(name) for name in names if "/" in name and name not in layers}
    free = set(layers) - set(names)
    unique = len(set(found.values())) == len(found)
    return found if unique and set(found.values()) <= free else {}


def _scope(name: Any) -> Any:
    return safe_name(name) if isinstance(name, str) and "/" in name else name


def _converted(name: str, value: Any) -> Any:
    if name in _COUNTS and isinstance(value, float | np.floating):
        return int(value)
    if name in _LOWERED and isinstance(value, str):
        return value.lower()
    if name in _OF_TRAINING and value is None:
        return 0.0
    if name == _NOISE and isinstance(value, int | float):
        return min(value, 1.0)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return integers of numpy, also in arrays without axes, as integers of Python."""
    if isinstance(value, np.integer) or (isinstance(value, np.ndarray) and value.shape == ()):
        return value.item()
    return value
