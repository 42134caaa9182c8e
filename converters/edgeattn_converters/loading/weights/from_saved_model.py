"""Weights of SavedModel folders: one array per path in the object graph of the checkpoint."""

import re
from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.formats.saved_model import SAVE_AS_FILE
from edgeattn_converters.loading.migrate.attention_package import ATTRIBUTES
from edgeattn_converters.loading.weights.assignment import Assignment, find_layer, own_layer


def assign(variables: Mapping[str, Any], model: Any, stored: Config) -> None:
    """Assign the weights to the model built from the config; see :func:`.from_hdf5.assign`."""
    assignment = Assignment(model)
    _assign_model(variables, model, stored, assignment)
    assignment.require_complete()


def _assign_model(
    variables: Mapping[str, Any], model: Any, stored: Config, assignment: Assignment
) -> None:
    """Assign by number: layers with weights are numbered in the order of the config."""
    by_index: dict[int, dict[str, Any]] = {}
    for path, value in variables.items():
        if match := re.match(r"layer_with_weights-(\d+)/", path):
            by_index.setdefault(int(match[1]), {})[path[match.end() :]] = value
    layers = [
        (item, layer)
        for item in stored_layers(stored)
        if (layer := find_layer(model, item)) is not None and layer.weights
    ]
    if len(by_index) != len(layers):
        raise UnsupportedModelError(
            f"The model has {counted(len(layers), 'layer')} with weights, the folder has "
            f"{len(by_index)}.",
            hint=SAVE_AS_FILE,
        )
    for index, (item, layer) in zip(sorted(by_index), layers, strict=True):
        if is_model(item):
            _assign_model(by_index[index], layer, item, assignment)
            continue
        for path, value in by_index[index].items():
            _assign_variable(path, value, layer, assignment)


def _assign_variable(path: str, value: Any, layer: Any, assignment: Assignment) -> None:
    target = layer
    for step in path.split("/"):
        target = own_layer(target)
        if isinstance(target, list | tuple) and step.isdigit():
            target = target[int(step)]
            continue
        names = (step, step.lstrip("_"), ATTRIBUTES.get(step, ""))
        target = next((getattr(target, n) for n in names if n and hasattr(target, n)), None)
    if target is None or not hasattr(target, "assign"):
        if path.startswith("keras_api"):
            return
        raise UnsupportedModelError(
            f"The folder contains weights {path!r} for layer {layer.name!r}, which has no such "
            "attribute.",
            hint=SAVE_AS_FILE,
        )
    assignment.assign(target, value, layer.name)
