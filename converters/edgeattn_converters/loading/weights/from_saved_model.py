"""Weights of SavedModel folders: one array per path in the object graph of the checkpoint."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.formats.saved_model import SAVE_AS_FILE
from edgeattn_converters.loading.migrate.attention_package import ATTRIBUTES
from edgeattn_converters.loading.migrate.preprocessing import REMOVED
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights.assignment import Assignment, find_layer, own_layer

_OF_LOOKUPS = ("_lookup_layer", "idf_weights", "num_documents")
_LISTED = re.compile(r"(trainable_|non_trainable_|)variables/(\d+)")


def is_listed(variables: Mapping[str, Any]) -> bool:
    """Return whether some arrays are stored by their place in the list of all variables.

    A checkpoint names a variable by the shortest path to it. For those inside a layer, such as the
    cell of an LSTM, that is their place in the list.
    """
    return any(map(_LISTED.fullmatch, variables))


def assign(variables: Mapping[str, Any], model: Any, stored: Config) -> None:
    """Assign the weights to the model built from the config; see :func:`.from_hdf5.assign`."""
    assignment = Assignment(model)
    _assign_model(variables, model, stored, assignment, complete=not is_listed(variables))
    if is_listed(variables):
        _assign_listed(variables, model, stored, assignment)
    assignment.require_complete()


def _assign_model(
    variables: Mapping[str, Any],
    model: Any,
    stored: Config,
    assignment: Assignment,
    *,
    complete: bool,
) -> None:
    """Assign by number: layers with weights are numbered in the order of the config.

    ``complete`` is whether every layer has its arrays under its number.
    """
    by_index: dict[int, dict[str, Any]] = {}
    for path, value in variables.items():
        if match := re.match(r"layer_with_weights-(\d+)/", path):
            by_index.setdefault(int(match[1]), {})[path[match.end() :]] = value
    layers = [
        (item, layer)
        for item in stored_layers(stored)
        if (layer := find_layer(model, item)) is not None and layer.weights
    ]
    if complete and any(item.get("class_name") in REMOVED for item in stored_layers(stored)):
        by_index = _without_lookups(by_index)
    if len(by_index) != len(layers) if complete else max(by_index, default=-1) >= len(layers):
        raise UnsupportedModelError(
            f"The model has {counted(len(layers), 'layer')} with weights, the folder has "
            f"{max(len(by_index), max(by_index, default=-1) + 1)}.",
            hint=SAVE_AS_FILE,
        )
    for index, arrays in sorted(by_index.items()):
        item, layer = layers[index]
        if is_model(item):
            _assign_model(arrays, layer, item, assignment, complete=complete)
            continue
        for path, value in arrays.items():
            _assign_variable(path, value, layer, assignment)


def _without_lookups(by_index: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The arrays of layers without the layers that look up words, which are numbered, too.

    Those have tables, which are no arrays, and may have counts and frequencies of documents.
    """
    kept = [
        arrays
        for _, arrays in sorted(by_index.items())
        if not all(path.startswith(_OF_LOOKUPS) for path in arrays)
    ]
    return dict(enumerate(kept))


def _assign_listed(
    variables: Mapping[str, Any], model: Any, stored: Config, assignment: Assignment
) -> None:
    """Assign the arrays that are stored by their place in a list of Keras 2: ``model.variables``,
    or in that of the trainable ones or the others, which some versions store first."""
    unique = {id(variable): (layer, variable) for layer, variable in _in_order(stored, model)}
    in_order = list(unique.values())
    trainable = {id(variable) for layer, _ in in_order for variable in layer.trainable_weights}
    lists = {
        "": in_order,
        "trainable_": [pair for pair in in_order if id(pair[1]) in trainable],
        "non_trainable_": [pair for pair in in_order if id(pair[1]) not in trainable],
    }
    listed = {(match[1], int(match[2])): value for path, value in variables.items()
              if (match := _LISTED.fullmatch(path))}  # fmt: skip
    named = [path for path in variables if re.match(r"layer_with_weights-", path)]
    count = len(listed) + sum("keras_api" not in path for path in named)
    if count != len(in_order) or any(index >= len(lists[kind]) for kind, index in listed):
        raise UnsupportedModelError(
            f"The model has {counted(len(in_order), 'weight array')}, the folder has {count}.",
            hint=SAVE_AS_FILE,
        )
    for (kind, index), value in listed.items():
        layer, variable = lists[kind][index]
        if is_own_class(type(layer)):
            raise UnsupportedModelError(
                f"The folder does not name the weights inside layer {layer.name!r} of your class "
                f"{type(layer).__name__}.",
                hint=SAVE_AS_FILE,
            )
        assignment.assign(variable, value, layer.name)


def _in_order(stored: Config, model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield layer and variable in the order of Keras 2: by layer, trainable ones first."""
    for item in stored_layers(stored):
        layer = find_layer(model, item)
        if layer is None:
            continue
        if is_model(item):
            yield from _in_order(item, layer)
        else:
            for variable in (*layer.trainable_weights, *layer.non_trainable_weights):
                yield layer, variable


def _assign_variable(path: str, value: Any, layer: Any, assignment: Assignment) -> None:
    target = layer
    for step in path.split("/"):
        target = own_layer(target)
        if isinstance(target, list | tuple) and step.isdigit():
            target = target[int(step)]
            continue
        names = (step, step.lstrip("_"), ATTRIBUTES.get(step, ""), _renamed(target, step))
        attributes = (getattr(target, n) for n in names if n and hasattr(target, n))
        found = next((value for value in attributes if value is not None), None)
        # Attributes of Normalization are computed from its variables, which have their names.
        target = _variable(target, step) if found is None or _is_value(found) else found
    if target is None or not hasattr(target, "assign"):
        if path.startswith("keras_api"):
            return
        raise UnsupportedModelError(
            f"The folder contains weights {path!r} for layer {layer.name!r}, which has no such "
            "attribute.",
            hint=SAVE_AS_FILE,
        )
    assignment.assign(target, value, layer.name)


def _renamed(layer: Any, name: str) -> str:
    """Return the attribute of Keras 3 for one of Keras 2 with another name, "" for all others."""
    import keras

    depthwise = keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D
    return "kernel" if name == "depthwise_kernel" and isinstance(layer, depthwise) else ""


def _variable(layer: Any, name: str) -> Any:
    """Return the variable of a layer by its name, None if there is none."""
    own = [
        *getattr(layer, "_trainable_variables", ()),
        *getattr(layer, "_non_trainable_variables", ()),
    ]
    return next((variable for variable in own if variable.name == name), None)


def _is_value(found: Any) -> bool:
    """Return whether an attribute is a tensor, neither a variable nor an object with some."""
    return hasattr(found, "shape") and not hasattr(found, "assign")
