"""Weights out of HDF5 into a built model, by the names in the file and never by luck.

Keras matches by position, and its versions order layers differently. Here a layer gets what was
stored under its name; every shape is checked and no weight may be left without a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.migrate import attention_package
from edgeattn_converters.loading.migrate import config_summary as outline
from edgeattn_converters.loading.migrate.context import Config, safe_name
from edgeattn_converters.loading.migrate.weight_layouts import Array, convert

_DAMAGED = "The file and its architecture do not belong together, or the file is damaged."


def stored_arrays(file: Any) -> Mapping[str, list[tuple[str, Array]]]:
    """What a ``.h5`` of any era keeps for each layer: names and arrays in their order."""
    root = file.get("model_weights", file)
    found = {}
    for name in hdf5.texts(root, "layer_names"):
        if name not in root:
            continue
        group = root[name]
        found[name] = [
            (path, np.asarray(group[path])) for path in hdf5.texts(group, "weight_names")
        ]
    return found


def stored_shapes(file: Any, stored: Config) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Path and shape of a layer's arrays, by its name, in a file of any era."""
    root = file.get("model_weights", file)
    names = list(hdf5.texts(root, "layer_names"))
    if names or not outline.is_model(stored):
        return {
            name: [(path, tuple(root[name][path].shape)) for path in
                   hdf5.texts(root[name], "weight_names")]
            for name in names
            if name in root
        }  # fmt: skip
    return {
        outline.layer_name(item): [
            (f"{outline.layer_name(item)}/bias" if path.endswith("vars/2") else path, shape)
            for path, shape in ((p, tuple(a.shape)) for p, a in hdf5.datasets(group))
        ]
        for item, group in _archived(file, stored)
    }


def assign_layers(
    model: Any,
    stored: Config,
    arrays: Mapping[str, Sequence[tuple[str, Array]]],
    *,
    era: int,
    backend: str | None,
) -> None:
    """Fill a model from a ``.h5``'s arrays. Requires the model built from that config.

    Raises:
        UnsupportedModelError: a layer that does not fit, or has nothing stored.
    """
    filled: set[int] = set()
    items = {outline.layer_name(item): (item, None) for item in outline.stored_layers(stored)}
    places = {name: (item, _find(model, name)) for name, (item, _) in items.items()}
    for name, named in arrays.items():
        if not named:
            continue
        if name not in places:
            inner = _find_deep(model, stored, name)
            if inner is None:
                raise UnsupportedModelError(
                    f"the file stores weights for a layer {name!r} that its architecture lacks",
                    hint=_DAMAGED,
                )
            places[name] = inner
        item, layer = places[name]
        for variable, value in _pairs(item, layer, named, era=era, backend=backend):
            set_variable(variable, value, layer.name, filled)
    check_filled(model, filled)


def _find(model: Any, name: str) -> Any:
    return next((one for one in model.layers if one.name == safe_name(name)), None)


def _find_deep(model: Any, stored: Config, name: str) -> tuple[Config, Any] | None:
    """A layer within a model within this one."""
    for item in outline.stored_layers(stored):
        if not outline.is_model(item):
            continue
        inner = _find(model, outline.layer_name(item))
        if inner is None:
            continue
        for below in outline.stored_layers(item):
            if outline.layer_name(below) == name and _find(inner, name) is not None:
                return below, _find(inner, name)
        found = _find_deep(inner, item, name)
        if found:
            return found
    return None


def _pairs(
    item: Config,
    layer: Any,
    named: Sequence[tuple[str, Array]],
    *,
    era: int,
    backend: str | None,
) -> Iterator[tuple[Any, Array]]:
    """Variables and their values for one layer or one model within the model."""
    if layer is None:
        raise UnsupportedModelError(
            f"the layer {outline.layer_name(item)!r} has weights stored, but was not built",
            hint=_DAMAGED,
        )
    if not outline.is_model(item):
        values = convert(item, [array for _, array in named], era=era, backend=backend)
        yield from _zip(layer.name, _variables(layer), values)
        return
    leaves = list(_leaves(item, layer))
    parts = _by_name(leaves, named) or _by_order(leaves, named)
    for (leaf, inner), part in zip(leaves, parts, strict=True):
        values = convert(leaf, [array for _, array in part], era=era, backend=backend)
        yield from _zip(inner.name, _variables(inner), values)


def _zip(name: str, variables: Sequence[Any], values: Sequence[Array]) -> list[tuple[Any, Array]]:
    if len(variables) != len(values):
        raise UnsupportedModelError(
            f"layer {name!r} expects {len(variables)} arrays of weights, the file has "
            f"{len(values)}: {[value.shape for value in values]}",
            hint=_DAMAGED,
        )
    return list(zip(variables, values, strict=True))


def _variables(layer: Any) -> list[Any]:
    """In the order in which every era stored them: the trained ones first."""
    return list(layer.trainable_weights) + list(layer.non_trainable_weights)


def _leaves(item: Config, model: Any) -> Iterator[tuple[Config, Any]]:
    """The layers with weights of a model, in their stored order."""
    for below in outline.stored_layers(item):
        inner = _find(model, outline.layer_name(below))
        if inner is None:
            continue
        if outline.is_model(below):
            yield from _leaves(below, inner)
        elif inner.weights:
            yield below, inner


def _by_name(
    leaves: Sequence[tuple[Config, Any]], named: Sequence[tuple[str, Array]]
) -> list[list[tuple[str, Array]]] | None:
    """Arrays by the layer's name in their own; None when that does not come out even."""
    names = [outline.layer_name(item) for item, _ in leaves]
    if len(set(names)) != len(names):
        return None
    parts: dict[str, list[tuple[str, Array]]] = {name: [] for name in names}
    for path, array in named:
        steps = path.split("/")
        owners = [
            name for name in names if name in steps or path.startswith((f"{name}_", f"{name}/"))
        ]
        if not owners:
            return None
        parts[max(owners, key=len)].append((path, array))
    return list(parts.values()) if all(parts.values()) else None


def _by_order(
    leaves: Sequence[tuple[Config, Any]], named: Sequence[tuple[str, Array]]
) -> list[list[tuple[str, Array]]]:
    """Arrays by position: first every layer's trained ones, then every layer's others."""
    rest = list(named)
    parts: list[list[tuple[str, Array]]] = [[] for _ in leaves]
    for kind in ("trainable_weights", "non_trainable_weights"):
        for index, (_, layer) in enumerate(leaves):
            count = len(getattr(layer, kind))
            parts[index] += rest[:count]
            rest = rest[count:]
    if rest:
        parts[-1] += rest  # reported as too many
    return parts


def set_variable(variable: Any, value: Array, name: str, filled: set[int]) -> None:
    """Give a variable its value and remember that it has one. Refuses another shape."""
    if tuple(variable.shape) != tuple(value.shape):
        raise UnsupportedModelError(
            f"layer {name!r} expects weights of shape {tuple(variable.shape)}, the file has "
            f"{tuple(value.shape)}",
            hint=_DAMAGED,
        )
    variable.assign(value)
    filled.add(id(variable))


def check_filled(model: Any, filled: set[int]) -> None:
    """Refuse a model of which some weights were not in the file."""
    empty = [
        getattr(variable, "path", variable.name)
        for variable in model.weights
        if id(variable) not in filled
    ]
    if empty:
        raise UnsupportedModelError(
            f"the file has no weights for {len(empty)} of {len(model.weights)} variables, "
            f"the first being {empty[0]!r}",
            hint="It holds an architecture, or part of the weights. Save the trained model with "
            "model.save(...).",
        )


def assign_archive(file: Any, model: Any, stored: Config, *, era: int) -> None:
    """Fill a model from the weights file of a ``.keras``. Requires it built from that config.

    Raises:
        UnsupportedModelError: a layer that does not fit, or has nothing stored.
    """
    filled: set[int] = set()
    _fill_model(file, model, stored, filled, era)
    check_filled(model, filled)


def _fill_model(group: Any, model: Any, stored: Config, filled: set[int], era: int) -> None:
    """The layers of a model lie in one group, by their class and a count, in stored order."""
    if not outline.is_model(stored):
        _fill_layer(group, model, filled)
        return
    for item, part in _archived(group, stored):
        layer = _find(model, outline.layer_name(item))
        if layer is None:
            continue
        if outline.is_model(item):
            _fill_model(part, layer, item, filled, era)
        else:
            _fill_layer(part, layer, filled)


def _archived(group: Any, stored: Config) -> Iterator[tuple[Config, Any]]:
    """The layers of a model with the groups they are stored in."""
    layers = next((group[key] for key in _CONTAINERS if key in group), None)
    if layers is None:
        return
    counts: dict[str, int] = {}
    entries = []
    for item in outline.stored_layers(stored):
        key = _snake(str(item.get("class_name")).rsplit(">", 1)[-1])
        if _is_operation(item):
            continue
        index = counts.get(key, 0)
        counts[key] = index + 1
        entries.append((item, key if index == 0 else f"{key}_{index}"))
    named = {_name_attribute(layers[key]): key for key in layers if _name_attribute(layers[key])}
    for item, key in entries:
        here = named.get(outline.layer_name(item), key)
        if here in layers:
            yield item, layers[here]


_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


def _is_operation(item: Config) -> bool:
    from edgeattn_converters.loading.safety.allowed_classes import is_operation_module

    module = item.get("module")
    return isinstance(module, str) and is_operation_module(module)


def _name_attribute(group: Any) -> str | None:
    value = group.attrs.get("name")
    if value is None and "vars" in group:
        value = group["vars"].attrs.get("name")
    return value.decode() if isinstance(value, bytes) else value


def _snake(name: str) -> str:
    """A class name as Keras turns it into the name of a group."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _fill_layer(group: Any, layer: Any, filled: set[int]) -> None:
    """A layer's own variables lie under ``vars``, those of its parts under their attributes."""
    import h5py
    import keras

    if "vars" in group and len(group["vars"]):
        values = {key: np.asarray(group["vars"][key]) for key in group["vars"]}
        own = list(layer._trainable_variables) + list(layer._non_trainable_variables)
        if type(layer).load_own_variables is not keras.layers.Layer.load_own_variables:
            layer.load_own_variables(values)
            filled.update(id(variable) for variable in own)
        else:
            ordered = [values[key] for key in sorted(values, key=int)]
            for variable, value in _zip(layer.name, own, ordered):
                set_variable(variable, value, layer.name, filled)
    for key in group:
        if key == "vars" or not isinstance(group[key], h5py.Group) or "seed_generator" in key:
            continue
        if not any(True for _ in hdf5.datasets(group[key])):
            continue
        _fill_part(group[key], key, layer, filled)


def _fill_part(group: Any, key: str, layer: Any, filled: set[int]) -> None:
    import keras

    part = next(
        (
            found
            for name in (key, key.lstrip("_"), attention_package.PARTS.get(key))
            if name and (found := getattr(layer, name, None)) is not None
        ),
        None,
    )
    if isinstance(part, keras.layers.Layer):
        _fill_layer(group, part, filled)
    elif isinstance(part, list | tuple | dict):
        members = list(part.values()) if isinstance(part, dict) else list(part)
        counts: dict[str, int] = {}
        for member in members:
            name = _snake(type(member).__name__)
            index = counts.get(name, 0)
            counts[name] = index + 1
            name = name if index == 0 else f"{name}_{index}"
            if name in group:
                _fill_layer(group[name], member, filled)
    else:
        raise UnsupportedModelError(
            f"the file has weights for {key!r} of layer {layer.name!r}, which has no such part",
            hint="A class of your own must have the attributes it had when it was saved: "
            "--custom-objects FILE.py",
        )
