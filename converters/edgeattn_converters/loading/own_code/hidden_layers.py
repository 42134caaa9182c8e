"""Layers in attributes that Keras saves but does not list: ``self.__dict__["dense"] = Dense(3)``.

Keras lists layers when an attribute is set. Files with a group for each object, ``.keras`` and
``.weights.h5``, have those of all attributes that it finds later.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn_converters.loading.own_code.own_classes import is_own_class


def in_attribute(value: Any) -> Iterator[Any]:
    """Return the values in an attribute of a layer, which may be in lists and mappings."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from in_attribute(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from in_attribute(item)
    else:
        yield value


def list_hidden_layers(model: Any) -> None:
    """Let Keras list the layers, so that the model has their weights, too."""
    for layer, hidden in hidden_layers(model):
        layer._layers.append(hidden)


def hidden_layers(model: Any) -> list[tuple[Any, Any]]:
    """Return layers of the user's classes with the layers in their attributes that are not listed.

    A layer that another one lists is none of them.
    """
    found: list[tuple[Any, Any]] = []
    layers = list(model._flatten_layers())
    known = {id(layer) for layer in layers}
    for layer in layers:  # to which inner ones are added
        for item in saved_layers(layer) if is_own_class(type(layer)) else ():
            if id(item) not in known:
                inner = item._flatten_layers()
                found.append((layer, item))
                layers += [part for part in inner if id(part) not in known]
                known |= {id(part) for part in inner}
    return found


def saved_layers(layer: Any) -> list[Any]:
    """Return the layers in those attributes of a layer that Keras 3 saves."""
    import keras
    from keras.src.saving.saving_lib import _walk_saveable

    values = [item for _, value in _walk_saveable(layer) for item in in_attribute(value)]
    return [item for item in values if isinstance(item, keras.layers.Layer)]
