"""Layers of the user that load their arrays themselves, by ``load_own_variables`` of their class.

The method decides what the arrays in a file are, whatever their names and their number. It may set
attributes that are no variables, also in place of variables; the layer computes with these then.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.own_code.hidden_layers import in_attribute
from edgeattn_converters.loading.own_code.own_classes import is_of_edgeattn_or_library
from edgeattn_converters.loading.weights.assignment import recorded_assignments

_LOADED = "_edgeattn_loaded"
_REPLACED = "_edgeattn_replaced"
# Where Keras keeps all variables of a layer.
_LISTS = ("_trainable_variables", "_non_trainable_variables")
_LISTED = 6


def loads_itself(cls: Any) -> bool:
    """Return whether a class has a ``load_own_variables`` of the user."""
    return _is_of_user(cls, "load_own_variables")


def _is_of_user(cls: Any, name: str) -> bool:
    method = getattr(cls, name, None)
    return callable(method) and not is_of_edgeattn_or_library(method.__module__ or "")


def layers_of(model: Any) -> list[Any]:
    """Return the layers of a model, and the model, that load their arrays themselves."""
    return [layer for layer in model._flatten_layers() if loads_itself(type(layer))]


def load(model: Any, layer: Any, group: Any) -> list[Any]:
    """Let a layer of a model load the arrays of its group in a file; return what has values.

    These are variables of the layer and others. Raises :class:`UnsupportedModelError` if the method
    fails.
    """
    stored = group.get("vars", {})
    arrays = {path: hdf5.array(dataset) for path, dataset in hdf5.datasets(stored)}
    with recorded(model, [layer]) as loaded:
        try:
            layer.load_own_variables(arrays)
        except EdgeattnError:
            raise
        except Exception as error:
            raise _failure(layer, arrays, error) from error
    return loaded


@contextlib.contextmanager
def recorded(model: Any, layers: Iterable[Any]) -> Iterator[list[Any]]:
    """Return the variables of a model that have values after the context, which loads ``layers``.

    A variable whose attribute has got another value counts: no layer computes with it any more.
    """
    layers = list(layers)
    variables = {id(item): item for layer in layers for item in layer.weights}
    values = {key: np.asarray(item).tobytes() for key, item in variables.items()}
    attributes = [_attributes(layer) for layer in layers]
    held = _held(model) if layers else set()
    loaded: list[Any] = []
    with recorded_assignments() as assigned:
        yield loaded
    loaded.extend(assigned)
    if not layers:
        return
    changed = (key for key, item in variables.items() if np.asarray(item).tobytes() != values[key])
    loaded.extend(variables[key] for key in changed)
    for key in (held - _held(model)) & variables.keys():
        setattr(variables[key], _REPLACED, True)
        loaded.append(variables[key])
    for layer, before in zip(layers, attributes, strict=True):
        after = _attributes(layer)
        names = {name for name, value in after.items() if not _is_same(before.get(name), value)}
        vars(layer)[_LOADED] = loaded_attributes(layer) | names


def loaded_attributes(layer: Any) -> frozenset[str]:
    """Return the names of the attributes that ``load_own_variables`` of a layer has set."""
    names: frozenset[str] = vars(layer).get(_LOADED, frozenset())
    return names


def is_loaded(layer: Any) -> bool:
    """Return whether a layer has loaded its arrays itself."""
    return _LOADED in vars(layer)


def is_replaced(variable: Any) -> bool:
    """Return whether an attribute had a variable, without a value, until its layer was loaded."""
    return getattr(variable, _REPLACED, False)


def copy_attributes(layer: Any, other: Any) -> None:
    """Set what a layer has loaded in another one of its class."""
    for name in loaded_attributes(layer):
        setattr(other, name, vars(layer)[name])
    if is_loaded(layer):
        vars(other)[_LOADED] = loaded_attributes(layer)


def require_no_assets(model: Any, assets: Iterable[str]) -> None:
    """Raise :class:`UnsupportedModelError` if a class of the user reads ``assets`` of a file.

    ``assets`` are the names of the files that Keras stores beside the weights.
    """
    if not any(True for _ in assets):
        return
    for layer in model._flatten_layers():
        if _is_of_user(type(layer), "load_assets"):
            name = type(layer).__name__
            raise UnsupportedModelError(
                f"Layer {layer.name!r} of your class {name} loads files that Keras stores beside "
                "the weights (save_assets, load_assets), which edgeattn does not read.",
                hint=f"Let {name} store their contents as arrays: save_own_variables(self, store) "
                "and load_own_variables(self, store). Load the model in Keras and save it again.",
            )


def notes_on_assets(model: Any) -> list[str]:
    """Return a note on each layer that loads files beside the weights, for a file of weights."""
    return [
        f"{layer.name}: a file of weights does not contain what save_assets of your class "
        f"{type(layer).__name__} stores, and Keras does not load it. The layer computes with what "
        "the program creates."
        for layer in model._flatten_layers()
        if _is_of_user(type(layer), "load_assets")
    ]


def _attributes(layer: Any) -> dict[str, tuple[Any, list[bytes]]]:
    """The attributes of a layer with the values of the arrays in them."""
    import tensorflow as tf

    kinds = (np.ndarray, tf.Tensor, tf.Variable)
    return {
        name: (
            value,
            [np.asarray(x).tobytes() for x in in_attribute(value) if isinstance(x, kinds)],
        )
        for name, value in vars(layer).items()
        if not name.startswith("_self_") and name not in (*_LISTS, _LOADED)
    }


def _is_same(before: tuple[Any, list[bytes]] | None, after: tuple[Any, list[bytes]]) -> bool:
    return before is not None and before[0] is after[0] and before[1] == after[1]


def _held(model: Any) -> set[int]:
    """The ids of what attributes of the layers of a model contain."""
    return {
        id(item)
        for layer in model._flatten_layers()
        for name, value in vars(layer).items()
        # TensorFlow keeps what an attribute had before.
        if not name.startswith("_self_") and name not in _LISTS
        for item in in_attribute(value)
    }


def _failure(layer: Any, arrays: Mapping[str, Any], error: Exception) -> UnsupportedModelError:
    name = type(layer).__name__
    found = [f"{key} {tuple(array.shape)}" for key, array in arrays.items()]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    contains = ", ".join(found[:_LISTED]) + more or "no arrays"
    return Keras3ModelError(
        f"load_own_variables of your class {name} fails for layer {layer.name!r}: "
        f"{type(error).__name__}: {error_text.reason(error)} The file contains for it: {contains}.",
        hint=f"Pass {name} as it was when the model was saved: save_own_variables and "
        "load_own_variables must fit.",
    )
