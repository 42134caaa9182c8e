"""Layers in the wrappers with which tensorflow-model-optimization prunes weights.

``PruneLowMagnitude`` (tensorflow_model_optimization/python/core/sparsity/keras/pruning_wrapper.py)
has a mask for each weight that it prunes. Its call assigns the product of both to the weight, and
calls the layer inside, so the layer itself computes the same with that product. The masks of steps
end at the wrapper, unless the layer inside attaches one to its output, as Masking does.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    stored_layers,
    unqualified,
)
from edgeattn_converters.loading.migrate.context import Context, safe_name
from edgeattn_converters.loading.migrate.explicit_masks import without_mask
from edgeattn_converters.loading.migrate.functional_nodes import tensor
from edgeattn_converters.loading.migrate.graph_edits import (
    Output,
    redirected,
    redirected_endpoints,
    unused_name,
)

WRAPPER = "PruneLowMagnitude"
# The key, in the config of a layer without its wrapper, of the name of the layer.
INSIDE = "edgeattn_name_inside"
_PACKAGE = "tensorflow_model_optimization"
# Since version 0.6.0, of June 2021, the wrapper passes masks of steps to the layer inside. Keras
# 2.5 is of May 2021.
_PASSES_MASKS = (2, 5)
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN"})
_WITH_MASKS = _RECURRENT | {"GlobalAveragePooling1D", "Softmax"}

_Layer = dict[str, Any]


def without_wrappers(stored: Config, objects: Mapping[str, Any]) -> Config:
    """Return a stored model with each wrapped layer under the name of its wrapper.

    Layers of nested models are included. ``objects`` are the user's own: a class of theirs with
    the name of the wrapper is another one.
    """
    own = objects.get(WRAPPER)
    if inspect.isclass(own) and not str(own.__module__).startswith(_PACKAGE):
        return stored
    return _without_wrapper(stored)


def _without_wrapper(item: Config) -> Config:
    config = item.get("config")
    if not isinstance(config, Mapping):
        return item
    if is_model(item):
        layers = [_without_wrapper(layer) for layer in stored_layers(item)]
        if all(new is old for new, old in zip(layers, stored_layers(item), strict=True)):
            return item
        return {**item, "config": {**config, "layers": layers}}
    inner = config.get("layer")
    is_wrapper = (
        unqualified(str(item.get("class_name"))) == WRAPPER and "pruning_schedule" in config
    )
    if not is_wrapper or not isinstance(inner, Mapping) or is_model(inner):
        return item
    of_wrapper = {
        key: config[key] for key in ("batch_input_shape", "batch_shape") if config.get(key)
    }
    of_calls = {key: item[key] for key in ("name", "inbound_nodes") if key in item}
    of_layer = {**of_wrapper, **(inner.get("config") or {}), "name": layer_name(item)}
    if inner.get("class_name") == "Embedding":
        of_layer["mask_zero"] = False  # the wrapper does not ask the layer for its mask
    return {**inner, **of_calls, "config": of_layer, INSIDE: layer_name(inner)}


def wrapped_layers(stored: Config) -> Iterator[Config]:
    """Yield the layers of a model without their wrappers, see :func:`without_wrappers`."""
    if not is_model(stored):
        return
    for item in stored_layers(stored):
        if INSIDE in item:
            yield item
        elif is_model(item):
            yield from wrapped_layers(item)


def with_ending_masks(config: _Layer, stored: Config, ctx: Context) -> _Layer:
    """Return the migrated config of a model in which masks end at the layers that were wrapped."""
    items = list(wrapped_layers(stored))
    if not items or not ctx.masked:
        return config
    names = [layer_name(item) for item in items if item.get("class_name") in _WITH_MASKS]
    if names:
        ctx.notes.append(_note_on_masks(names, ctx))
    ends = {safe_name(layer_name(item)) for item in items if _returns_steps(item)}
    return _with_ending_masks(config, ends, is_nested=False)


def _returns_steps(item: Config) -> bool:
    """Whether the output of a layer may have a mask that ends at its wrapper."""
    config = item["config"]
    if item.get("class_name") in _RECURRENT:
        return bool(config.get("return_sequences"))
    return item.get("class_name") not in ("Masking", "Flatten", "InputLayer")


def _note_on_masks(names: Sequence[str], ctx: Context) -> str:
    if () < ctx.version < _PASSES_MASKS:
        raise UnsupportedModelError(
            f"{enumerated(names)} may get a mask of steps. The pruning wrappers of "
            "tensorflow-model-optimization pass it to the layer inside since version 0.6.0, and a "
            "file of this age does not show whether those that saved it did.",
            hint="Load the model with the versions that saved it, remove the wrappers with "
            "tfmot.sparsity.keras.strip_pruning(model), compare the outputs before and after that, "
            "and save it: model.save('model.h5')",
        )
    return (
        f"{enumerated(names)}: a mask of steps has an effect inside the pruning wrapper, as since "
        "tensorflow-model-optimization 0.6.0."
    )


def _with_ending_masks(item: _Layer, ends: Collection[str], *, is_nested: bool) -> _Layer:
    if item.get("class_name") not in ("Functional", "Sequential"):
        return item
    config = item["config"]
    layers = [_with_ending_masks(layer, ends, is_nested=True) for layer in config["layers"]]
    config = {**config, "layers": layers}
    if item["class_name"] == "Functional":
        return {**item, "config": _functional(config, ends, is_nested=is_nested)}
    names = {layer["config"]["name"] for layer in layers}
    result = []
    for position, layer in enumerate(layers):
        result.append(layer)
        name = layer["config"]["name"]
        if name in ends and (is_nested or position + 1 < len(layers)):
            result.append(without_mask(unused_name(f"{name}_without_mask", names)))
    return {**item, "config": {**config, "layers": result}}


def _functional(config: _Layer, ends: Collection[str], *, is_nested: bool) -> _Layer:
    names = {layer["name"] for layer in config["layers"]}
    copies: dict[str, _Layer] = {}
    outputs: dict[Output, Output] = {}
    for layer in config["layers"]:
        if layer["name"] not in ends:
            continue
        name, calls = layer["name"], range(len(layer["inbound_nodes"]))
        copy = unused_name(f"{name}_without_mask", names)
        nodes = [{"args": [tensor(name, call, 0)], "kwargs": {}} for call in calls]
        copies[name] = {**without_mask(copy), "name": copy, "inbound_nodes": nodes}
        outputs |= {(name, call): (copy, call) for call in calls}
    layers = []
    for layer in config["layers"]:
        layers.append({**layer, "inbound_nodes": redirected(layer["inbound_nodes"], outputs)})
        if layer["name"] in copies:
            layers.append(copies[layer["name"]])
    config = {**config, "layers": layers}
    if is_nested:
        ends_of_model = redirected_endpoints(config["output_layers"], outputs)
        config = {**config, "output_layers": ends_of_model}
    return config
