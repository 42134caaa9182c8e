"""Weights of ``.h5`` files: one group per layer, with an ordered list of arrays.

Their layouts differ between Keras versions and are converted to those of Keras 3.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    stored_layers,
    wrapped_model,
)
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.quantized_layers import is_quantized, quantize_parts_as_stored
from edgeattn_converters.loading.weights import tracking_order
from edgeattn_converters.loading.weights.arrays_of_layers import (
    NamedArrays,
    by_leaf,
    leaves_of,
    split_by_name,
)
from edgeattn_converters.loading.weights.assignment import (
    MISMATCH,
    Array,
    Assignment,
    find_layer,
    is_input,
)
from edgeattn_converters.loading.weights.flattened_images import require_order
from edgeattn_converters.loading.weights.layouts import in_keras3_layout, kernel_order
from edgeattn_converters.loading.weights.pruned_weights import (
    WRAPPER_PREFIX,
    listed_masks,
    unassigned,
    without_added,
)


def is_layered(file: Any) -> bool:
    """Return whether an HDF5 file lists its layers, as ``.h5`` files do."""
    names = {"layer_names", "layer_names0"} & set(file.attrs)
    return bool(names) or "model_weights" in file


def stored_shapes(
    file: Any, names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return path and shape of the arrays of each layer by its name.

    ``names`` are the names of layers that differ from those in the file.
    """
    return {
        names.get(name, name): [
            (path, tuple(array.shape)) for path, array in without_added(hdf5.listed_weights(group))
        ]
        for name, group in _groups(file)
    }


def pruned(file: Any) -> int:
    """Return the number of layers in wrappers that prune their weights."""
    return sum(len(listed_masks(hdf5.listed_weights(group))) for _, group in _groups(file))


def group_names(file: Any) -> list[str]:
    """Return the names of the layers of a file, in order."""
    return [name for name, _ in _groups(file)]


def _groups(file: Any) -> Iterator[tuple[str, Any]]:
    root = file.get("model_weights", file)
    for name in hdf5.texts(root, "layer_names"):
        if name in root:
            yield name, root[name]


def assign(
    file: Any,
    model: Any,
    stored: Config,
    *,
    major: int,
    backend: str | None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Assign the weights of an open file to the model built from its config.

    ``stored`` is the config before the migration; ``major`` and ``backend`` are those of the Keras
    that wrote the file; ``names`` are the names of layers that differ in the file. Raises
    :class:`UnsupportedModelError` if layers or shapes differ, or a layer has no weights.
    """
    assignment = Assignment(model)
    order = None
    if major == 1:
        layers = [
            (_with_shapes(leaf, inner), [array for _, array in part])
            for leaf, inner, part in _layers_with_arrays(file, model, stored, names)
        ]
        order = kernel_order(layers)
        require_order(model, layers)
    for leaf, inner, part in _layers_with_arrays(file, model, stored, names):
        if len(part) > len(_variables(inner)) and any("kernel_scale" in path for path, _ in part):
            quantize_parts_as_stored(inner, {path: hdf5.array(array) for path, array in part})
        if is_quantized(inner):
            part = _in_order_of_names(inner, part)
        values = in_keras3_layout(
            {**_with_shapes(leaf, inner), "kernel_order": order},
            [hdf5.array(array) for _, array in part],
            major=major,
            backend=backend,
        )
        variables = _variables(inner)
        if major == 2:
            variables = tracking_order.ordered(inner, variables, [value.shape for value in values])
        assignment.assign_all(inner, variables, values)
    if own := _own_arrays(file):
        variables = [*model._trainable_variables, *model._non_trainable_variables]
        assignment.assign_all(model, variables, own)
    for item, layer, arrays in _layers_with_groups(file, model, stored, names):
        _assign_masks(item, layer, arrays, assignment)
    assignment.require_complete()


def _own_arrays(file: Any) -> list[Array]:
    """Return the weights of a subclassed model itself, which Keras stores since version 2.6."""
    group = file.get("model_weights", file).get("top_level_model_weights")
    if group is None:
        return []
    return [hdf5.array(array) for _, array in hdf5.listed_weights(group)]


def _in_order_of_names(layer: Any, arrays: NamedArrays) -> NamedArrays:
    """Return the arrays in the order of the variables: quantizing a built layer changes it."""
    named = {path.rsplit("/", 1)[-1].split(":")[0]: (path, array) for path, array in arrays}
    names = [variable.name for variable in _variables(layer)]
    if len(named) != len(arrays) or sorted(named) != sorted(names):
        return arrays
    return [named[name] for name in names]


def _layers_with_arrays(
    file: Any, model: Any, stored: Config, names: Mapping[str, str]
) -> Iterator[tuple[Config, Any, NamedArrays]]:
    """Yield config, layer and arrays of each layer with weights; the arrays are not read yet."""
    for item, layer, arrays in _layers_with_groups(file, model, stored, names):
        yield from by_leaf(item, layer, without_added(arrays))


def _layers_with_groups(
    file: Any, model: Any, stored: Config, names: Mapping[str, str]
) -> Iterator[tuple[Config, Any, NamedArrays]]:
    """Yield config, layer and arrays of each group with weights, maybe those of a nested model."""
    layers = {layer_name(item): (item, find_layer(model, item)) for item in stored_layers(stored)}
    for name, group in _groups(file):
        arrays = hdf5.listed_weights(group)
        if not without_added(arrays):
            continue
        name = names.get(name, name)
        item, layer = layers.get(name) or _find_nested(model, stored, name) or (None, None)
        if item is not None and (layer is None or is_input(layer)):
            # The outputs do not depend on it, only a loss does: without a value for one of its own
            # variables, the model would be incomplete. Or an input replaces a layer that looks up
            # words, whose weights its config has, too.
            continue
        if item is None:
            raise Keras3ModelError(
                f"The file contains weights for a layer {name!r} that its architecture lacks.",
                hint=MISMATCH,
            )
        yield item, layer, arrays


def _assign_masks(item: Config, layer: Any, arrays: NamedArrays, assignment: Assignment) -> None:
    """Let the weights of a layer, or of those of a nested model, be pruned by their masks."""
    masks = {name: found for name, found in listed_masks(arrays).items() if found}
    if (wrapped := wrapped_model(item)) is not None:
        item, layer = wrapped, layer.layer
    if masks and not is_model(item):
        assignment.prune(layer, [mask for found in masks.values() for mask in found])
    elif masks:
        for leaf, inner in leaves_of(item, layer):
            name = layer_name(leaf)
            name = name if name in masks else f"{WRAPPER_PREFIX}{name}"
            assignment.prune(inner, masks.pop(name, []))
        if masks:
            raise unassigned(list(masks))


def _find_nested(model: Any, stored: Config, name: str) -> tuple[Config, Any] | None:
    """Return config and layer of a name in a nested model."""
    for item in stored_layers(stored):
        inner = find_layer(model, item) if is_model(item) else None
        if inner is None:
            continue
        for nested in stored_layers(item):
            layer = find_layer(inner, nested)
            if layer_name(nested) == name and layer is not None:
                return nested, layer
        deeper = _find_nested(inner, item, name)
        if deeper:
            return deeper
    return None


def _variables(layer: Any) -> list[Any]:
    """Return the variables in the order in which Keras stores them: trainable ones first."""
    return list(layer.trainable_weights) + list(layer.non_trainable_weights)


def moved_inside(
    file: Any, model: Any, stored: Config, names: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Yield the names of nested models whose layers have the names in the file in another order.

    If some of them were frozen when the file was saved, their weights are behind the others.
    """
    layers = {layer_name(item): (item, find_layer(model, item)) for item in stored_layers(stored)}
    for name, group in _groups(file):
        item, layer = layers.get(names.get(name, name)) or (None, None)
        if item is None or layer is None or not is_model(item):
            continue
        arrays = without_added(hdf5.listed_weights(group))
        parts = split_by_name(list(leaves_of(item, layer)), arrays)
        places = {path: place for place, (path, _) in enumerate(arrays)}
        first = [places[part[0][0]] for part in parts or ()]
        if first != sorted(first):
            yield layer_name(item)


def _with_shapes(item: Config, layer: Any) -> Config:
    """Return the config of a layer with the shapes of its variables."""
    return {**item, "shapes": [tuple(variable.shape) for variable in _variables(layer)]}
