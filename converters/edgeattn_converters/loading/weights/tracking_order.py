"""The order in which tf.keras 1 and 2 stored the weights of a class of the user.

It is that of the attributes: a list has its place when it is assigned, also if layers are appended
later, and the layers in a dictionary are sorted by their keys. Keras 3 has the order in which
layers are created or appended.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights import functional_order

_ATTRIBUTES = "_edgeattn_assigned"
# Attributes of Keras 3 and TensorFlow with every layer.
_OF_KERAS = ("_layers", "_tracked", "_self_")


@contextlib.contextmanager
def recorded() -> Iterator[None]:
    """Record the order in which attributes of layers of the user are assigned for the last time."""
    import keras

    set_attribute = keras.layers.Layer.__setattr__

    def recording(layer: Any, name: str, value: Any) -> None:
        if is_own_class(type(layer)) and not name.startswith(_OF_KERAS):
            names = layer.__dict__.setdefault(_ATTRIBUTES, {})
            names.pop(name, None)
            names[name] = None
        set_attribute(layer, name, value)

    with mock.patch.object(keras.layers.Layer, "__setattr__", recording):
        yield


def ordered(layer: Any, variables: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Return the variables of a layer in the order in which tf.keras stored them.

    ``variables`` are in the order of Keras 3, which is kept for a layer that was not recorded and
    if the other order does not fit the ``shapes`` of the stored arrays.
    """
    if _ATTRIBUTES not in vars(layer):
        return list(variables)
    trainable, others = _tracked(layer)
    tracked = list({id(variable): variable for variable in trainable + others}.values())
    same = {id(variable) for variable in tracked} == {id(variable) for variable in variables}
    if not same or [tuple(variable.shape) for variable in tracked] != list(shapes):
        return list(variables)
    return tracked


def is_recorded(model: Any) -> bool:
    """Whether the order of the attributes of a model is known, which is of a class of the user."""
    return _ATTRIBUTES in vars(model)


def layers_of_keras_2(model: Any) -> list[Any]:
    """Return the ``layers`` of a model in the order of Keras 2."""
    import keras

    if functional_order.is_functional(model):
        ordered = functional_order.operations(model)
        return [layer for layer in ordered if isinstance(layer, keras.layers.Layer)]
    if not is_recorded(model) or isinstance(model, keras.Sequential):
        return list(model.layers)
    layers = [
        inner
        for name in vars(model)[_ATTRIBUTES]
        for inner in _in_attribute(vars(model).get(name))
        if isinstance(inner, keras.layers.Layer)
    ]
    return list({id(layer): layer for layer in layers}.values())


def _in_attribute(value: Any) -> Iterator[Any]:
    """Yield the values in an attribute, which may be in lists and mappings, as Keras 2 does."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _in_attribute(item)
    elif isinstance(value, Mapping):
        keys = list(value)
        with contextlib.suppress(TypeError):  # Keras 2 has no weights for a dictionary of such keys
            keys.sort()
        for key in keys:
            yield from _in_attribute(value[key])
    else:
        yield value


def _tracked(layer: Any) -> tuple[list[Any], list[Any]]:
    """Return the trainable and the other variables of a layer."""
    import keras

    if _ATTRIBUTES not in vars(layer):
        return list(layer.trainable_weights), list(layer.non_trainable_weights)
    trainable, others = list(layer._trainable_variables), list(layer._non_trainable_variables)
    if not layer.trainable:
        trainable, others = [], trainable + others
    for name in vars(layer)[_ATTRIBUTES]:
        for inner in _in_attribute(vars(layer).get(name)):
            if isinstance(inner, keras.layers.Layer):
                of_inner = _tracked(inner)
                # A frozen layer lists all variables of a layer inside it before the next one.
                (trainable if layer.trainable else others).extend(of_inner[0])
                others += of_inner[1]
    return trainable, others
