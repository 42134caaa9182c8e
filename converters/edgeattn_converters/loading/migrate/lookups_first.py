"""Lookup layers ahead of layers that only move values.

A layer that looks up each value by itself returns the same ahead of a layer that only moves values,
such as Reshape. Directly behind the inputs it can be removed, and the other layer stays in the
model, where it moves indices instead of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeattn_converters.loading.config_inspection import Config, is_functional, is_sequential
from edgeattn_converters.loading.lambdas.expressions import REGISTERED
from edgeattn_converters.loading.migrate.functional_nodes import is_tensor, tensor
from edgeattn_converters.loading.migrate.graph_edits import (
    Output,
    endpoint_names,
    redirected,
    redirected_endpoints,
    unused_name,
)
from edgeattn_converters.loading.migrate.preprocessing import REMOVED, source_names

_MOVES = frozenset(
    {"Reshape", "Flatten", "Permute", "RepeatVector", "Concatenate"}
    | {"Squeeze", "ExpandDims", "Transpose", "SwapAxes", "Swapaxes", "Moveaxis", "Flip", "Roll"}
    | {"Repeat", "Tile", "Stack", "BroadcastTo"}
)
# These also omit values, which then need an index too.
_SELECTIONS = frozenset({"GetItem", "Take", "Cropping1D", "Cropping2D", "Cropping3D"})
_MOVING_OPERATIONS = frozenset({"reshape", "squeeze", "expand_dims", "transpose", "flip", "tile"})
# Smaller ones would wrap around.
_INTEGERS = frozenset({"int32", "int64"})
_WHOLE_AXIS = {"start": None, "stop": None, "step": None}


def lookups_first(config: dict[str, Any]) -> dict[str, Any]:
    """A migrated model config with its lookup layers ahead of layers that only move values.

    Lookups of other models in it stay where they are, and so do those that depend on the place or
    on the number of the values. ``TimeDistributed`` around a lookup that does not need it is
    omitted.
    """
    if is_functional(config):
        return _Graph(config).changed()
    return _in_sequential(config) if is_sequential(config) else config


def _in_sequential(config: dict[str, Any]) -> dict[str, Any]:
    layers = list(config["config"]["layers"])
    if not layers or layers[0].get("class_name") != "InputLayer":
        return config
    shape = layers[0]["config"]["batch_shape"]
    for position in range(1, len(layers)):
        before = layers[position - 1] if position > 1 else None
        layers[position] = _without_time(layers[position], None if before else shape)
        place = position
        while place > 1 and _commute(layers[place - 1], layers[place]):
            layers[place - 1 : place + 1] = [layers[place], layers[place - 1]]
            place -= 1
        if place == 2 and _casts_for(layers[1], layers[2]):
            del layers[1]
            break
        if place == 2 and _is_single(shape) and _takes_one_value(layers[1], None, layers[2]):
            del layers[1]
            break
    return {**config, "config": {**config["config"], "layers": layers}}


class _Graph:
    """The layers of a functional model by name, while lookups are moved."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._layers = {layer["name"]: layer for layer in config["config"]["layers"]}
        self._outputs = config["config"]["output_layers"]

    def changed(self) -> dict[str, Any]:
        for name, layer in self._layers.items():
            self._layers[name] = _without_time(layer, self._shape(layer))
        while (name := self._first_behind_moves()) is not None:
            self._move(name)
        inner = {**self._config["config"], "layers": list(self._layers.values()),
                 "output_layers": self._outputs}  # fmt: skip
        return {**self._config, "config": inner}

    def _shape(self, layer: Config) -> list[Any] | None:
        """The shape of the only input of the model that a layer is called with."""
        sources = {self._layers[name]["class_name"]: name for name in source_names(layer)}
        if list(sources) != ["InputLayer"] or len(set(source_names(layer))) > 1:
            return None
        shape: list[Any] = self._layers[sources["InputLayer"]]["config"]["batch_shape"]
        return shape

    def _first_behind_moves(self) -> str | None:
        for name, layer in self._layers.items():
            if layer["class_name"] not in REMOVED or not layer.get("inbound_nodes"):
                continue
            moves = [self._move_before(layer, call) for call in layer["inbound_nodes"]]
            if any(moves) and all(map(self._follows_inputs, source_names(layer))):
                return name
        return None

    def _move_before(self, lookup: Config, call: Config) -> Callable[..., Any] | None:
        """How a call of a lookup and the layer before it change places; None if they cannot."""
        if len(source_names({"inbound_nodes": [call]})) != 1 or not is_tensor(call["args"][0]):
            return None
        source, node, _ = call["args"][0]["config"]["keras_history"]
        layer = self._layers[source]
        if layer["class_name"] == "InputLayer":
            return None
        stored = layer["inbound_nodes"][node]
        if _commute(layer, lookup):
            return lambda on_lookup: (layer, _with_tensors(stored, on_lookup))
        if _casts_for(layer, lookup):
            return lambda on_lookup: (None, on_lookup(stored["args"][0]))
        shape = self._shape(layer)
        if shape is None:
            return None
        if _is_single(shape) and _takes_one_value(layer, stored, lookup):
            return lambda on_lookup: (None, on_lookup(stored["args"][0]))
        selected = _selected_column(layer, stored, lookup, shape)
        if selected is None:
            return None
        return lambda on_lookup: (layer, _with_tensors(selected, on_lookup))

    def _follows_inputs(self, name: str) -> bool:
        """Whether nothing but lookups and layers that move values is between inputs and a layer."""
        layer = self._layers[name]
        if layer["class_name"] == "InputLayer":
            return True
        known = layer["class_name"] in REMOVED or _moves_values(layer) or _is_cast(layer)
        return known and all(map(self._follows_inputs, source_names(layer)))

    def _move(self, name: str) -> None:
        """Call a lookup with what the layers ahead of it are called with, and these behind it."""
        lookup = self._layers[name]
        calls: list[Any] = []
        outputs: dict[Output, Output] = {}
        copies: dict[str, Any] = {}

        def on_lookup(value: Any) -> Any:
            calls.append({"args": [value], "kwargs": {}})
            return tensor(name, len(calls) - 1, 0)

        for number, call in enumerate(lookup["inbound_nodes"]):
            move = self._move_before(lookup, call)
            if move is None:
                outputs[name, number] = (name, len(calls))
                calls.append(call)
                continue
            layer, stored = move(on_lookup)
            if layer is None:
                outputs[name, number] = (name, len(calls) - 1)
                continue
            new = unused_name(layer["name"], {*self._layers, *copies})
            copies[new] = {**layer, "name": new, "config": {**layer["config"], "name": new},
                           "inbound_nodes": [stored]}  # fmt: skip
            outputs[name, number] = (new, 0)
        self._layers = {
            key: {**layer, "inbound_nodes": redirected(layer.get("inbound_nodes") or [], outputs)}
            for key, layer in self._layers.items()
        }
        self._layers[name] = {**self._layers[name], "inbound_nodes": calls}
        self._layers |= copies
        self._outputs = redirected_endpoints(self._outputs, outputs)
        self._remove_unused(source_names(lookup))

    def _remove_unused(self, names: list[str]) -> None:
        used = {source for layer in self._layers.values() for source in source_names(layer)}
        used |= {*endpoint_names(self._outputs)}
        for name in names:
            layer = self._layers.get(name)
            if layer is not None and name not in used and layer["class_name"] != "InputLayer":
                del self._layers[name]
                self._remove_unused(source_names(layer))


def _with_tensors(value: Any, changed: Callable[[Any], Any]) -> Any:
    """The call of a layer with other tensors."""
    if is_tensor(value):
        return changed(value)
    if isinstance(value, Mapping):
        return {key: _with_tensors(item, changed) for key, item in value.items()}
    return [_with_tensors(item, changed) for item in value] if isinstance(value, list) else value


def _commute(layer: Config, lookup: Config) -> bool:
    """Whether ``lookup`` returns the same ahead of ``layer`` as behind it."""
    config = lookup["config"]
    if lookup["class_name"] not in REMOVED or lookup["class_name"] == "TextVectorization":
        return False
    if config.get("output_mode", "int") != "int" or config.get("invert"):
        return False
    return _moves_values(layer) and (not _selects(layer) or _numbers_all(lookup))


def _casts_for(layer: Config, lookup: Config) -> bool:
    """Whether ``layer`` makes integers of numbers, as an ``IntegerLookup`` does itself."""
    return lookup["class_name"] == "IntegerLookup" and _is_cast(layer)


def _is_cast(layer: Config) -> bool:
    if layer.get("registered_name") == REGISTERED:
        expression = layer["config"]["expression"]
        if expression.get("op") != "cast" or "input" not in expression["args"][0]:
            return False
        return expression["args"][1].get("const") in _INTEGERS
    of_keras = str(layer.get("module")).startswith("keras.") and layer["class_name"] == "Cast"
    return of_keras and layer["config"].get("dtype") in _INTEGERS


def _numbers_all(lookup: Config) -> bool:
    """Whether a lookup accepts values outside its vocabulary."""
    return lookup["class_name"] == "Hashing" or lookup["config"].get("num_oov_indices", 1) > 0


def _moves_values(layer: Config) -> bool:
    if layer.get("registered_name") == REGISTERED:
        return _is_move(layer["config"]["expression"])
    of_keras = str(layer.get("module")).startswith("keras.")
    return of_keras and layer["class_name"] in _MOVES | _SELECTIONS


def _selects(layer: Config) -> bool:
    if layer.get("registered_name") == REGISTERED:
        return "getitem" in _operations(layer["config"]["expression"])
    return layer["class_name"] in _SELECTIONS


def _is_move(expression: Config) -> bool:
    if "input" in expression:
        return True
    if expression.get("op") not in _MOVING_OPERATIONS | {"getitem"}:
        return False
    moved, *settings = expression["args"]
    return _is_move(moved) and not any(map(_depends_on_values, settings))


def _depends_on_values(expression: Any) -> bool:
    if isinstance(expression, Mapping):
        computes = not expression.keys() <= {"const", "tuple", "tensor", "slice", "ellipsis"}
        return computes or any(map(_depends_on_values, expression.values()))
    return isinstance(expression, list) and any(map(_depends_on_values, expression))


def _operations(expression: Any) -> Iterator[str]:
    if isinstance(expression, Mapping) and "op" in expression:
        yield expression["op"]
        yield from _operations(expression["args"][0])


def _is_single(shape: Any) -> bool:
    """Whether a sample of this shape, with the batch axis, is one value."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _takes_one_value(layer: Config, call: Config | None, lookup: Config) -> bool:
    """Whether ``layer`` returns samples of one value, of shape () or (1,), as it receives them.

    Layers that split text and one-hot vectors are the same for both shapes.
    """
    is_one_hot = lookup["config"].get("output_mode") == "one_hot"
    is_text = lookup["class_name"] == "TextVectorization"
    if lookup["class_name"] not in REMOVED or not (is_text or is_one_hot):
        return False
    if layer.get("registered_name") == REGISTERED:
        expression = layer["config"]["expression"]
        return expression.get("op") == "squeeze" and "input" in expression["args"][0]
    if not _moves_values(layer):
        return False
    if layer["class_name"] == "GetItem" and call is not None:
        return _key(call) is not None
    if layer["class_name"] == "Reshape" and "target_shape" in layer["config"]:
        return list(layer["config"]["target_shape"]) in ([], [1], [-1])
    return layer["class_name"] in ("Flatten", "Squeeze")


def _key(call: Config) -> Any:
    """``k`` of ``x[:, k]``, as it is stored; None for other keys."""
    if len(call["args"]) != 2 or call.get("kwargs"):
        return None
    key = call["args"][1]
    key = key.get("items") if isinstance(key, Mapping) else key
    if not isinstance(key, list) or len(key) != 2 or not _is_slice(key[0]):
        return None
    if key[0]["config"] != _WHOLE_AXIS or not (isinstance(key[1], int) or _is_slice(key[1])):
        return None
    return key[1]


def _is_slice(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("class_name") == "__slice__"


def _selected_column(
    layer: Config, call: Config, lookup: Config, shape: Any
) -> dict[str, Any] | None:
    """The call of ``x[:, k]`` with one-hot vectors instead of values.

    The vectors are an additional axis, so that a slice with one value becomes its index.
    """
    is_one_hot = lookup["config"].get("output_mode") == "one_hot" and _numbers_all(lookup)
    if not is_one_hot or layer["class_name"] != "GetItem" or not _moves_values(layer):
        return None
    key = _key(call)
    if key is None or len(shape) != 2 or shape[1] in (None, 1):
        return None
    if not isinstance(key, int):
        columns = range(shape[1])[slice(*(key["config"][k] for k in ("start", "stop", "step")))]
        if len(columns) != 1:
            return dict(call)
        key = columns[0]
    whole = {"class_name": "__slice__", "config": _WHOLE_AXIS}
    return {**call, "args": [call["args"][0], [whole, key]]}


def _without_time(layer: dict[str, Any], shape: Any) -> dict[str, Any]:
    """The lookup in a ``TimeDistributed``, under its name; ``shape`` is that of the input before.

    A one-hot vector takes the place of an axis of one value, which must not be that of the time.
    """
    inner = layer["config"].get("layer") if layer["class_name"] == "TimeDistributed" else None
    if not isinstance(inner, Mapping) or inner.get("class_name") not in REMOVED:
        return layer
    mode = inner["config"].get("output_mode", "int")
    is_one_hot = mode == "one_hot" and shape is not None and len(shape) > 2
    if inner["class_name"] == "TextVectorization" or not (mode == "int" or is_one_hot):
        return layer
    name = layer["config"]["name"]
    changed = {**inner, "config": {**inner["config"], "name": name}}
    if "inbound_nodes" in layer:
        changed |= {"name": name, "inbound_nodes": layer["inbound_nodes"]}
    return changed
