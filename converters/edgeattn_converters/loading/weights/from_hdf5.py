"""Weights of ``.h5`` files: one group per layer, with an ordered list of arrays.

Their layouts differ between Keras versions and are converted to those of Keras 3.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import (
    Config,
    all_names,
    is_model,
    layer_name,
    stored_layers,
    wrapped_model,
)
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.migrate.preprocessing import REMOVED
from edgeattn_converters.loading.quantized_layers import is_quantized, quantize_parts_as_stored
from edgeattn_converters.loading.weights import tracking_order
from edgeattn_converters.loading.weights.assignment import (
    MISMATCH,
    Array,
    Assignment,
    find_layer,
    is_input,
)
from edgeattn_converters.loading.weights.layouts import in_keras3_layout, kernel_order

_NamedArrays = Sequence[tuple[str, Array]]
# Variables that got no name, such as the document frequencies of layers that look up words.
_UNNAMED = re.compile(r"(.*/)?Variable(_\d+)?:0$")


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
            (path, tuple(group[path].shape)) for path in hdf5.texts(group, "weight_names")
        ]
        for name, group in _groups(file)
    }


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
        order = kernel_order(
            (_with_shapes(leaf, inner), [array for _, array in part])
            for leaf, inner, part in _layers_with_arrays(file, model, stored, names)
        )
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
    assignment.require_complete()


def _own_arrays(file: Any) -> list[Array]:
    """Return the weights of a subclassed model itself, which Keras stores since version 2.6."""
    group = file.get("model_weights", file).get("top_level_model_weights")
    if group is None:
        return []
    return [hdf5.array(group[path]) for path in hdf5.texts(group, "weight_names")]


def _in_order_of_names(layer: Any, arrays: _NamedArrays) -> _NamedArrays:
    """Return the arrays in the order of the variables: quantizing a built layer changes it."""
    named = {path.rsplit("/", 1)[-1].split(":")[0]: (path, array) for path, array in arrays}
    names = [variable.name for variable in _variables(layer)]
    if len(named) != len(arrays) or sorted(named) != sorted(names):
        return arrays
    return [named[name] for name in names]


def _layers_with_arrays(
    file: Any, model: Any, stored: Config, names: Mapping[str, str]
) -> Iterator[tuple[Config, Any, _NamedArrays]]:
    """Yield config, layer and arrays of each layer with weights; the arrays are not read yet."""
    layers = {layer_name(item): (item, find_layer(model, item)) for item in stored_layers(stored)}
    for name, group in _groups(file):
        arrays = [(path, group[path]) for path in hdf5.texts(group, "weight_names")]
        if not arrays:
            continue
        name = names.get(name, name)
        item, layer = layers.get(name) or _find_nested(model, stored, name) or (None, None)
        if item is not None and (layer is None or is_input(layer)):
            # The outputs do not depend on it, only a loss does: without a value for one of its own
            # variables, the model would be incomplete. Or an input replaces a layer that looks up
            # words, whose weights its config has, too.
            continue
        if item is None:
            raise UnsupportedModelError(
                f"The file contains weights for a layer {name!r} that its architecture lacks.",
                hint=MISMATCH,
            )
        yield from _by_leaf(item, layer, arrays)


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


def _by_leaf(
    item: Config, layer: Any, arrays: _NamedArrays
) -> Iterator[tuple[Config, Any, _NamedArrays]]:
    """Yield config, layer and arrays of a layer, or of each layer of a nested or wrapped model."""
    if (wrapped := wrapped_model(item)) is not None:
        item, layer = wrapped, layer.layer
    if not is_model(item):
        yield item, layer, arrays
        return
    leaves = list(_leaves(item, layer))
    arrays = _of_present(list(all_names(item)), set(_absent(item, layer)), arrays)
    if _has_frequencies(item):
        arrays = [(path, array) for path, array in arrays if not _UNNAMED.match(path)]
    parts = _split_by_name(leaves, arrays)
    if parts is None:
        parts, groups = _split_by_order(leaves, arrays), _by_stored_layer(arrays)
        if len(groups) == len(leaves) and not all(part in groups for part in parts):
            # Other layers were trainable when the file was saved, so its order is another one.
            _require_order(leaves, groups, arrays)
            parts = groups
    for (leaf, inner), part in zip(leaves, parts, strict=True):
        yield leaf, inner, part


def _leaves(item: Config, model: Any) -> Iterator[tuple[Config, Any]]:
    """Yield the layers of a model that have weights, in stored order."""
    for nested in stored_layers(item):
        layer = find_layer(model, nested)
        if layer is None:
            continue
        if is_model(nested):
            yield from _leaves(nested, layer)
        elif (wrapped := wrapped_model(nested)) is not None:
            yield from _leaves(wrapped, layer.layer)
        elif layer.weights:
            yield nested, layer


def _absent(item: Config, model: Any) -> Iterator[str]:
    """Yield the names of the layers that a model lacks, because only a loss depends on them."""
    for nested in stored_layers(item):
        layer = find_layer(model, nested)
        if layer is None:
            yield layer_name(nested)
        elif is_model(nested):
            yield from _absent(nested, layer)


def _has_frequencies(item: Config) -> bool:
    """Return whether a model has a layer with inverse document frequencies, at any depth."""
    return any(
        _has_frequencies(nested)
        if is_model(nested)
        else nested.get("class_name") in REMOVED
        and nested["config"].get("output_mode") in ("tf_idf", "tf-idf")
        for nested in stored_layers(item)
    )


def _of_present(names: Sequence[str], absent: Set[str], arrays: _NamedArrays) -> _NamedArrays:
    """Return the arrays without those of absent layers, which have their names in the paths."""
    kept = []
    for path, array in arrays:
        steps = path.split("/")
        owners = [name for name in names if name in steps]
        if not owners or max(owners, key=steps.index) not in absent:
            kept.append((path, array))
    return kept


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
        arrays = [(path, group[path]) for path in hdf5.texts(group, "weight_names")]
        parts = _split_by_name(list(_leaves(item, layer)), arrays)
        places = {path: place for place, (path, _) in enumerate(arrays)}
        first = [places[part[0][0]] for part in parts or ()]
        if first != sorted(first):
            yield layer_name(item)


def _split_by_name(
    leaves: Sequence[tuple[Config, Any]], arrays: _NamedArrays
) -> list[_NamedArrays] | None:
    """Return the arrays of each leaf by the layer name in their paths, None if ambiguous."""
    names = [layer_name(item) for item, _ in leaves]
    if len(set(names)) != len(names):
        return None
    parts: dict[str, list[tuple[str, Array]]] = {name: [] for name in names}
    for path, array in arrays:
        steps = path.split("/")
        owners = [
            name for name in names if name in steps or path.startswith((f"{name}_", f"{name}/"))
        ]
        if not owners:
            return None
        parts[max(owners, key=len)].append((path, array))
    return list(parts.values()) if all(parts.values()) else None


def _split_by_order(
    leaves: Sequence[tuple[Config, Any]], arrays: _NamedArrays
) -> list[_NamedArrays]:
    """Return the arrays of each leaf by position: first all trainable ones, then all others."""
    remaining = list(arrays)
    parts: list[list[tuple[str, Array]]] = [[] for _ in leaves]
    for kind in ("trainable_weights", "non_trainable_weights"):
        for part, (_, layer) in zip(parts, leaves, strict=True):
            count = len(getattr(layer, kind))
            part += remaining[:count]
            remaining = remaining[count:]
    if remaining:
        parts[-1] += remaining  # assign_all reports too many arrays
    return list(parts)


def _by_stored_layer(arrays: _NamedArrays) -> list[_NamedArrays]:
    """Return the arrays of each layer by its name in the file, the first in their paths to differ.

    Without common steps: model/dense/kernel:0 and model/norm/gamma:0 are of dense and norm.
    """
    paths = [path.split("/") for path, _ in arrays]
    equal = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
    common = len(list(equal))
    groups: dict[str, list[tuple[str, Array]]] = {}
    for steps, item in zip(paths, arrays, strict=True):
        groups.setdefault("/".join(steps[common : common + 1]), []).append(item)
    return list(groups.values())


def _require_order(
    leaves: Sequence[tuple[Config, Any]], groups: Sequence[_NamedArrays], arrays: _NamedArrays
) -> None:
    """Raise :class:`UnsupportedModelError` if the groups are not in the order of the leaves.

    They are if no layer was frozen when the file was saved, or all from one on. If others were,
    their groups are behind those of later layers: an error if these have the same shapes.
    """
    positions = {path: position for position, (path, _) in enumerate(arrays)}
    heads: list[list[int]] = []
    tails: list[list[int]] = []
    for group, (_, layer) in zip(groups, leaves, strict=True):
        indices = [positions[path] for path, _ in group]
        adjacent = sum(index - indices[0] == k for k, index in enumerate(indices))
        # For a layer that the architecture freezes, the number of trainable weights is unknown.
        count = len(layer.trainable_weights) or adjacent
        heads.append(indices[:count])
        tails.append(indices[count:])
    shapes = [tuple(tuple(array.shape) for _, array in group) for group in groups]
    for first_frozen in range(len(groups) + 1):
        frozen = zip(heads[first_frozen:], tails[first_frozen:], strict=True)
        order = itertools.chain(
            *heads[:first_frozen], *tails[:first_frozen], *(head + tail for head, tail in frozen)
        )
        if list(order) == list(range(len(arrays))):
            mixed = 0 < first_frozen < len(groups)
            if not mixed or set(shapes[:first_frozen]).isdisjoint(shapes[first_frozen:]):
                return
            break
    raise UnsupportedModelError(
        "Some layers of a nested model were frozen when the file was saved, and the names of its "
        "weights do not show to which layers they belong.",
        hint=MISMATCH,
    )


def _with_shapes(item: Config, layer: Any) -> Config:
    """Return the config of a layer with the shapes of its variables."""
    return {**item, "shapes": [tuple(variable.shape) for variable in _variables(layer)]}
