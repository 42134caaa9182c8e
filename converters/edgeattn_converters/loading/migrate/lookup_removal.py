"""Removal of the layers that look up values, at the inputs of a model and of the models in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn_converters.loading.config_inspection import Config, is_functional, is_model
from edgeattn_converters.loading.migrate.context import keras_layer
from edgeattn_converters.loading.migrate.functional_nodes import is_tensor, tensor
from edgeattn_converters.loading.migrate.graph_edits import (
    Output,
    endpoint_names,
    is_endpoint,
    redirected,
    redirected_endpoints,
    unused_name,
)
from edgeattn_converters.loading.migrate.lookups_first import lookups_first
from edgeattn_converters.loading.migrate.preprocessing import (
    REMOVED,
    REMOVED_NOTE,
    source_names,
)


@dataclass(frozen=True)
class LookupLayer:
    """The config of a removed layer, and the names of the nested models that contain it."""

    config: Config
    models: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """The names of the models and of the layer."""
        return (*self.models, str(self.config["config"]["name"]))


@dataclass(frozen=True)
class Chain:
    """An input layer of the stored model, and the layers that were removed after it."""

    input_layer: Config
    layers: tuple[LookupLayer, ...] = ()

    def extended(self, *layers: LookupLayer) -> Chain:
        return replace(self, layers=(*self.layers, *layers))

    def as_input(self, name: str) -> dict[str, Any]:
        """The input layer in place of the last removed layer."""
        shape, dtype = self.input_layer["config"]["batch_shape"], None
        for layer in self.layers:
            shape, dtype, _ = REMOVED[layer.config["class_name"]](layer.config["config"], shape)
        config = {"batch_shape": shape, "dtype": dtype, "name": name}
        return {**keras_layer("InputLayer", config), "name": name, "inbound_nodes": []}

    def notes(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """The path of each removed layer, and a sentence about what the device has to do."""
        shape = self.input_layer["config"]["batch_shape"]
        for layer in self.layers:
            kind, config = layer.config["class_name"], layer.config["config"]
            shape, _, task = REMOVED[kind](config, shape)
            yield layer.path, f"{config['name']}: removed {kind}, {REMOVED_NOTE} {task}."


@dataclass(frozen=True)
class Removal:
    """A model config, the chain of each of its inputs, and the inputs in place of the old ones."""

    config: dict[str, Any]
    chains: dict[str, Chain] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not any(chain.layers for chain in self.chains.values())


def remove_lookups(config: dict[str, Any], notes: list[str]) -> Removal:
    """Remove the lookup layers directly after inputs from a migrated model config.

    What they return becomes inputs of the model: one for each input that a layer is called with,
    also if the layer is in a nested model. Lookup layers elsewhere are left in the config.

    Args:
        config: config of the model, as Keras 3 stores it.
        notes: gets a sentence for every layer that is removed.
    """
    removal = _removal(config)
    notes.extend(dict(note for chain in removal.chains.values() for note in chain.notes()).values())
    return replace(
        removal, chains={k: chain for k, chain in removal.chains.items() if chain.layers}
    )


def _removal(config: dict[str, Any]) -> Removal:
    config = lookups_first(config)
    if is_functional(config):
        return _Graph(config).removal()
    return _of_sequential(config) if is_model(config) else Removal(config)


def _of_sequential(config: dict[str, Any]) -> Removal:
    layers = list(config["config"]["layers"])
    if not layers or not _is_input(layers[0]):
        return Removal(config)
    chain, name = Chain(layers[0]), str(layers[0]["config"]["name"])
    new = name
    while len(layers) > 1:
        lookups, rest = _first_lookups(layers[1])
        if not lookups:
            break
        chain = chain.extended(*lookups)
        layers = [layers[0], *rest, *layers[2:]]
        if rest:
            break
    if chain.layers:
        others = {layer["config"]["name"] for layer in layers[1:]}
        new = unused_name(chain.layers[-1].path[-1], others)
        layers[0] = chain.as_input(new)
    return Removal(
        {**config, "config": {**config["config"], "layers": layers}}, {new: chain}, {name: [new]}
    )


def _first_lookups(layer: dict[str, Any]) -> tuple[list[LookupLayer], list[dict[str, Any]]]:
    """The lookup layers at the start of a layer of a Sequential, and the layer without them."""
    if layer["class_name"] in REMOVED:
        return [LookupLayer(layer)], []
    removal = _removal(layer)
    if removal.is_empty or len(removal.chains) != 1:
        return [], [layer]
    (chain,) = removal.chains.values()
    lookups = list(_inside(layer["config"]["name"], chain))
    return lookups, [] if _is_passed_on(removal.config) else [removal.config]


def _inside(model: str, chain: Chain) -> Iterator[LookupLayer]:
    """The layers of a chain in a nested model, for the model around that."""
    for layer in chain.layers:
        yield replace(layer, models=(model, *layer.models))


def _is_passed_on(config: Config) -> bool:
    """Whether a model has nothing but its input, which no Sequential can be called with."""
    return not is_functional(config) and len(config["config"]["layers"]) == 1


def _is_input(layer: Config) -> bool:
    return layer.get("class_name") == "InputLayer"


class _Graph:
    """The layers of a functional model by name, while lookup layers are removed from them."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._layers = {layer["name"]: layer for layer in config["config"]["layers"]}
        self._outputs = config["config"]["output_layers"]
        self._chains = {k: Chain(layer) for k, layer in self._layers.items() if _is_input(layer)}
        # By the name of an input, the inputs that were made of what layers look up in it.
        self._new: dict[str, list[str]] = {}

    def removal(self) -> Removal:
        for name in list(self._layers):
            if self._layers[name]["class_name"] in REMOVED:
                self._remove_layer(name)
            elif is_model(self._layers[name]):
                self._remove_in_model(name)
        inner = self._config["config"]
        used = {source for layer in self._layers.values() for source in source_names(layer)}
        unused = {name for name in self._new if name not in used}

        def inputs_of(name: str) -> list[str]:
            others = [item for new in self._new.get(name, ()) for item in inputs_of(new)]
            return others if name in unused else [name, *others]

        old = list(endpoint_names(inner["input_layers"]))
        layers = [layer for name, layer in self._layers.items() if name not in unused]
        endpoints = _replaced(inner["input_layers"], inputs_of)
        changed = {**inner, "layers": layers, "input_layers": endpoints,
                   "output_layers": self._outputs}  # fmt: skip
        inputs = {name: inputs_of(name) for name in old}
        chains = {new: self._chains[new] for names in inputs.values() for new in names}
        return Removal({**self._config, "config": changed}, chains, inputs)

    def _remove_layer(self, name: str) -> None:
        layer = self._layers[name]
        calls = [source_names({"inbound_nodes": [call]}) for call in layer["inbound_nodes"]]
        if not calls or any(len(call) != 1 or call[0] not in self._chains for call in calls):
            return
        del self._layers[name]
        sources = list(dict.fromkeys(source for (source,) in calls))
        inputs = {
            source: self._add_input(name, source, (LookupLayer(layer),), len(sources))
            for source in sources
        }
        self._redirect({(name, k): (inputs[source], 0) for k, (source,) in enumerate(calls)})

    def _remove_in_model(self, name: str) -> None:
        layer = self._layers[name]
        removal = _removal({key: layer[key] for key in layer if key != "inbound_nodes"})
        if removal.is_empty:
            return
        endpoints = _endpoints_of(layer["config"], removal.inputs)
        calls = [_arguments(endpoints, node["args"]) for node in layer["inbound_nodes"]]
        changed = [old for old, new in removal.inputs.items() if new != [old]]
        sources = {old: {_source(call.get(old)) for call in calls} for old in changed}
        if not calls or not all(names <= self._chains.keys() for names in sources.values()):
            return
        added: dict[tuple[str, str], str] = {}

        def argument(call: Mapping[str, Any], old: str, new: str) -> Any:
            if not removal.chains[new].layers:
                return call[old]
            source = _source(call[old])
            if (new, source) not in added:
                lookups = tuple(_inside(name, removal.chains[new]))
                added[new, source] = self._add_input(new, source, lookups, len(sources[old]))
            return tensor(added[new, source], 0, 0)

        config = _identity(removal.config) if _is_passed_on(removal.config) else removal.config
        endpoints = _endpoints_of(config["config"], removal.chains)
        nodes = []
        for node, call in zip(layer["inbound_nodes"], calls, strict=True):
            values = {
                new: argument(call, old, new)
                for old, names in removal.inputs.items()
                for new in names
            }
            nodes.append({**node, "args": [_filled(endpoints, values)]})
        self._layers[name] = {**config, "name": name, "inbound_nodes": nodes}

    def _add_input(
        self, name: str, source: str, layers: tuple[LookupLayer, ...], calls: int
    ) -> str:
        """Add the input for what ``layers`` return for ``source``, one of several ``calls``."""
        chain = self._chains[source].extended(*layers)
        stored = chain.input_layer["config"]["name"]
        new = unused_name(name if calls == 1 else f"{name}_{stored}", self._layers)
        self._layers[new], self._chains[new] = chain.as_input(new), chain
        self._new.setdefault(source, []).append(new)
        return new

    def _redirect(self, outputs: Mapping[Output, Output]) -> None:
        """Connect what took the outputs of removed layers to inputs."""
        self._layers = {
            name: {**layer, "inbound_nodes": redirected(layer.get("inbound_nodes") or [], outputs)}
            for name, layer in self._layers.items()
        }
        self._outputs = redirected_endpoints(self._outputs, outputs)


def _endpoints_of(config: Config, names: Iterable[str]) -> Any:
    """``input_layers`` of a model; a Sequential has a single input."""
    return config.get("input_layers") or [next(iter(names)), 0, 0]


def _replaced(endpoints: Any, inputs_of: Callable[[str], list[str]]) -> Any:
    """``input_layers`` with the inputs that are in the place of each one."""
    if isinstance(endpoints, Mapping):
        result: dict[str, Any] = {}
        for key, item in endpoints.items():
            if not is_endpoint(item):
                result[key] = _replaced(item, inputs_of)
                continue
            names = inputs_of(item[0])
            for name in names:
                # The key of another input may be the name of a layer.
                new = key if len(names) == 1 else unused_name(name, {*result, *endpoints} - {key})
                result[new] = [name, *item[1:]]
        return result
    if is_endpoint(endpoints):
        inputs = [[name, *endpoints[1:]] for name in inputs_of(endpoints[0])]
        return inputs[0] if len(inputs) == 1 else inputs
    parts: list[Any] = []
    for item in endpoints:
        new = _replaced(item, inputs_of)
        parts += new if isinstance(new, list) and isinstance(new[0], list) else [new]
    return parts


def _arguments(endpoints: Any, args: Any) -> dict[str, Any]:
    """The tensor for each input of a model that is called with ``args``.

    Empty if the arguments have another structure than the inputs.
    """
    if is_endpoint(endpoints):
        while isinstance(args, list) and len(args) == 1:
            args = args[0]
        return {endpoints[0]: args} if is_tensor(args) else {}
    if isinstance(args, list) and len(args) == 1 and not is_tensor(args[0]):
        args = args[0]
    if isinstance(args, Mapping) and not is_tensor(args):
        by_key = (
            endpoints
            if isinstance(endpoints, Mapping)
            else {name: [name, 0, 0] for name in endpoint_names(endpoints)}
        )
        if by_key.keys() != args.keys():
            return {}
        pairs = [(by_key[key], value) for key, value in args.items()]
    elif isinstance(endpoints, Mapping) or len(args) != len(endpoints):
        return {}
    else:
        pairs = list(zip(endpoints, args, strict=True))
    parts = [_arguments(endpoint, value) for endpoint, value in pairs]
    return {} if not all(parts) else {k: v for part in parts for k, v in part.items()}


def _filled(endpoints: Any, values: Mapping[str, Any]) -> Any:
    """The argument of a model: ``values`` by the names of its inputs, in their structure."""
    if is_endpoint(endpoints):
        return values[endpoints[0]]
    if isinstance(endpoints, Mapping):
        return {key: _filled(item, values) for key, item in endpoints.items()}
    return [_filled(item, values) for item in endpoints]


def _source(value: Any) -> str:
    """The layer that computes a tensor; empty if there is none."""
    return str(value["config"]["keras_history"][0]) if is_tensor(value) else ""


def _identity(config: Config) -> dict[str, Any]:
    """A Sequential of an input alone, as a model that can be called."""
    (layer,) = config["config"]["layers"]
    name = layer["config"]["name"]
    inner = {
        "name": config["config"]["name"], "trainable": True,
        "layers": [{**layer, "name": name, "inbound_nodes": []}],
        "input_layers": [name, 0, 0], "output_layers": [name, 0, 0],
    }  # fmt: skip
    return {"module": "keras.src.models.functional", "class_name": "Functional",
            "config": inner, "registered_name": "Functional"}  # fmt: skip
