"""Masks for recurrent layers with initial states in nested models of Keras 2.

Keras 2 passes them the mask of their sequence. If that comes from outside of the nested model, it
exists only when the model is called: a layer makes it a tensor. Other masks are passed by
:mod:`edgeattn_converters.loading.eras.implicit_masks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.migrate.context import registered_layer
from edgeattn_converters.loading.migrate.functional_nodes import is_tensor, tensor

STEP_MASK = "edgeattn>StepMask"

_Layer = dict[str, Any]


def with_masks(layers: Sequence[_Layer]) -> list[_Layer]:
    """The migrated layers of a nested model, with a mask in calls with states or constants.

    Calls whose sequence does not depend on an input of the model are unchanged.
    """
    sources = {
        layer["name"]: [name for call in layer["inbound_nodes"] for name in _names(call)]
        for layer in layers
    }
    inputs = {layer["name"] for layer in layers if layer.get("class_name") == "InputLayer"}
    names = set(sources)
    result: list[_Layer] = []
    for layer in layers:
        calls = []
        for call in layer["inbound_nodes"]:
            if _lacks_mask(call) and inputs & _ancestors(call["args"][0], sources):
                name = _unused(f"{layer['name']}_mask", names)
                names.add(name)
                node = {"args": [call["args"][0]], "kwargs": {}}
                step_mask = registered_layer(STEP_MASK, {"name": name})
                result.append({**step_mask, "name": name, "inbound_nodes": [node]})
                call = {**call, "kwargs": {**call["kwargs"], "mask": tensor(name, 0, 0)}}
            calls.append(call)
        result.append({**layer, "inbound_nodes": calls})
    return result


def _lacks_mask(call: Mapping[str, Any]) -> bool:
    kwargs, args = call["kwargs"], call["args"]
    others = _names([kwargs.get("initial_state"), kwargs.get("constants")])
    return any(True for _ in others) and "mask" not in kwargs and bool(args) and is_tensor(args[0])


def _names(value: Any) -> Iterator[str]:
    """The names of the layers whose results are in an argument."""
    if is_tensor(value):
        yield value["config"]["keras_history"][0]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


def _ancestors(argument: Any, sources: Mapping[str, Sequence[str]]) -> set[str]:
    waiting, found = list(_names(argument)), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(sources.get(name, ()))
    return found


def _unused(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    return name
