"""The configuration of a whole model, rewritten as the current Keras stores it.

This module handles nested models, wrappers and connections; single layers are migrated by
``keras1``, ``keras2``, ``replaced_layers``, ``custom_layers``, ``lambda_layers``, ``merge_layer``,
``tensorflow_layers`` and ``attention_package``.
"""

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_functional,
    is_model,
    is_sequential,
    layer_name,
    stored_layers,
)
from edgeattn_converters.loading.lambdas import expressions
from edgeattn_converters.loading.migrate import (
    attention_package,
    channels_first,
    custom_layers,
    explicit_masks,
    functional_nodes,
    keras1,
    keras2,
    lambda_layers,
    merge_layer,
    replaced_layers,
    state_masks,
    tensorflow_layers,
    theano,
)
from edgeattn_converters.loading.migrate.bidirectional import with_both_directions
from edgeattn_converters.loading.migrate.context import (
    Context,
    keras_layer,
    placeholder,
    registered_layer,
    safe_input_name,
    safe_name,
)
from edgeattn_converters.loading.migrate.input_layers import inferred_input_layer, input_layer
from edgeattn_converters.loading.safety.allowed_classes import EDGEATTN_LAYERS

_Call = dict[str, Any]


def require_layers(stored: Config) -> None:
    """Raise :class:`UnsupportedModelError` if a model has no layers."""
    if is_model(stored) and not stored_layers(stored):
        raise UnsupportedModelError(
            "The model has no layers.", hint="Build the model before you save it."
        )


def with_connections(stored: Config) -> Config:
    """Return a Sequential that is really a graph as a functional model; others unchanged."""
    if merge_layer.starts_sequential(stored):
        found: Config = merge_layer.as_functional(stored)
    elif attention_package.is_expanded_in_sequential(stored):
        found = attention_package.as_functional(stored)
    else:
        return stored
    # Of an architecture in a file of its own.
    kept = {"keras_version": stored["keras_version"]} if "keras_version" in stored else {}
    return {**found, **kept}


def migrate_model(stored: Config, ctx: Context) -> dict[str, Any]:
    """Return a model config for ``keras.saving.deserialize_keras_object``.

    It names classes of Keras, edgeattn and the user's own file only. ``stored`` is not changed.

    Raises :class:`UnsupportedModelError` if a layer has no equivalent in the current Keras.
    """
    stored = with_connections(stored) if is_sequential(stored) else stored
    if is_functional(stored):
        return _functional(stored, ctx)
    return _sequential(stored, ctx) if is_sequential(stored) else custom_layers.migrate(stored, ctx)


def _sequential(stored: Config, ctx: Context) -> dict[str, Any]:
    items = stored_layers(stored)
    layers = [migrate_layer(item, ctx) for item in items]
    if items and items[0].get("class_name") != "InputLayer":
        inputs = input_layer(items[0]) or inferred_input_layer(stored, items, ctx)
        layers = [*inputs, *layers]
    config = {"name": safe_name(layer_name(stored)), "trainable": True, "layers": layers}
    return {"module": "keras", "class_name": "Sequential", "config": config,
            "registered_name": "Sequential"}  # fmt: skip


def _functional(stored: Config, ctx: Context) -> dict[str, Any]:
    config = stored["config"]
    rename = _renaming(config)
    models = {
        layer_name(item): "functional" if is_functional(item) else "sequential"
        for item in config["layers"]
        if is_model(item)
    }
    table = functional_nodes.LayerTable.of(
        config["layers"], rename=rename, models=models, major=ctx.major
    )
    stored_calls = [(item, table.calls(item)) for item in config["layers"]]
    names = [rename(layer_name(item)) for item in config["layers"]]
    outputs = table.endpoints(config["output_layers"])
    stored_calls = tensorflow_layers.without_losses(stored_calls, names, outputs)
    shapes = tensorflow_layers.shape_calls(stored_calls)
    layers = []
    for item, calls in stored_calls:
        migrated, calls = _called_layer(item, calls, shapes, ctx)
        layers.append({**migrated, "name": rename(layer_name(item)), "inbound_nodes": calls})
    if ctx.major < 3 and ctx.masked and not ctx.of_program:
        layers = explicit_masks.with_copies(layers, [calls for _, calls in stored_calls])
    if shapes:
        layers = _without_unused(layers, shapes, outputs)
    if ctx.major < 3 and ctx.masked and stored.get("inbound_nodes"):
        layers = state_masks.with_masks(layers)
    migrated_config = {
        "name": safe_name(str(config.get("name") or "model")),
        "trainable": True,
        "layers": layers,
        "input_layers": table.endpoints(config["input_layers"]),
        "output_layers": outputs,
    }
    return {"module": "keras.src.models.functional", "class_name": "Functional",
            "config": migrated_config, "registered_name": "Functional"}  # fmt: skip


def _without_unused(
    layers: list[dict[str, Any]], names: Container[str], outputs: Any
) -> list[dict[str, Any]]:
    """Return ``layers`` without those of ``names`` whose results nothing uses any more."""
    while True:
        calls = [call for layer in layers for call in layer["inbound_nodes"]]
        used = tensorflow_layers.used_layers(calls, outputs)
        kept = [layer for layer in layers if layer["name"] in used or layer["name"] not in names]
        if len(kept) == len(layers):
            return kept
        layers = kept


def _renaming(config: Config) -> Callable[[str], str]:
    """Return the function that renames layers. Inputs have no scope and keep their names."""
    inputs = {layer_name(item) for item in config["layers"] if item["class_name"] == "InputLayer"}
    return lambda name: safe_input_name(name) if name in inputs else safe_name(name)


def _called_layer(
    item: Config, calls: list[_Call], shapes: tensorflow_layers.ShapeCalls, ctx: Context
) -> tuple[dict[str, Any], list[_Call]]:
    """Return a layer of a functional model and its calls."""
    class_name = str(item.get("class_name"))
    if tensorflow_layers.is_tensorflow_layer(class_name):
        return tensorflow_layers.migrate(item, calls, shapes)
    if merge_layer.is_merge(item):
        merged = migrate_layer(merge_layer.migrate(item, ctx), ctx)
        return merged, [functional_nodes.keras3_call(class_name, {}, call) for call in calls]
    is_own = custom_layers.may_be_custom(item, ctx)
    if not is_own and functional_nodes.is_operation(item, calls):
        return functional_nodes.operation(item), calls
    migrated = migrate_layer(item, ctx)
    if not is_own:
        migrated = functional_nodes.with_several_inputs(migrated, layer_name(item), calls)
    if ctx.major < 3 or class_name == "Lambda":
        config = item.get("config") or {}
        calls = [functional_nodes.keras3_call(class_name, config, call) for call in calls]
    return migrated, calls


def migrate_layer(item: Config, ctx: Context) -> dict[str, Any]:
    """Return one layer with the layers it wraps, without its calls."""
    if is_model(item):
        return migrate_model(item, _inside(ctx, layer_name(item)))
    class_name = str(item.get("class_name"))
    config = {**(item.get("config") or {})}
    name = layer_name({"config": config, **item})
    config["name"] = safe_input_name(name) if class_name == "InputLayer" else safe_name(name)
    for registered in (item.get("registered_name"), class_name):
        if isinstance(registered, str) and registered in EDGEATTN_LAYERS:
            return _edgeattn_layer(registered, config, item)
    registered = item.get("registered_name")
    if ctx.of_program and registered in (expressions.REGISTERED, state_masks.STEP_MASK):
        return _edgeattn_layer(registered, config, item)
    if custom_layers.is_custom(item, ctx):
        if ctx.major < 3:
            item = {**item, "config": _with_inner_layers(item.get("config") or {}, ctx)}
        return custom_layers.migrate(item, ctx)
    of_keras = custom_layers.is_from_keras(item)
    if attention_package.is_package_layer(class_name, config) and not of_keras:
        ctx.notes.append(
            f"{config['name']}: replaced the Attention of the package 'attention' with that of "
            "edgeattn and use_mask=False, because the package ignores masks."
        )
        config = attention_package.edgeattn_config(config)
        return _edgeattn_layer(attention_package.REGISTERED, config, item)
    if class_name == "Lambda":
        return lambda_layers.migrate(item, ctx)
    if custom_layers.is_unknown(item):
        ctx.missing.append(custom_layers.missing_class(item, script=ctx.script))
        return placeholder(str(config["name"]))
    return _built_in(class_name, config, item, ctx)


def _built_in(
    class_name: str, config: dict[str, Any], item: Config, ctx: Context
) -> dict[str, Any]:
    if ctx.major == 1:
        class_name, renamed = keras1.migrate(class_name, config)
        config = dict(renamed)
    config = _with_inner_layers(config, ctx)
    if class_name == "Bidirectional":
        config = with_both_directions(config)
    class_name, config = keras2.migrate(class_name, config, ctx)
    takes_mask = _names_mask(item.get("inbound_nodes"))
    replaced = replaced_layers.replacement(class_name, config, ctx, takes_mask=takes_mask)
    if replaced is not None:
        return _edgeattn_layer(*replaced, item)
    before = theano.padding_of(class_name, config, ctx)
    inner = {**config, "padding": "valid"} if before else config
    if channels_first.applies(class_name, config):
        ctx.notes.append(f"{config['name']}: computed with the channels last.")
        layer = channels_first.migrate(class_name, inner)
    else:
        # Older versions store it in another form; by now the shapes of all inputs are known.
        build_config = item.get("build_config") if ctx.major == 3 else None
        layer = _with_build_config(keras_layer(class_name, inner), build_config)
    return theano.with_padding(layer, class_name, config, before) if before else layer


def _with_inner_layers(config: Config, ctx: Context) -> dict[str, Any]:
    """Return the config of a layer with the layers that it wraps migrated."""
    inside = _inside(ctx, str(config.get("name")))
    inner: dict[str, Any] = {
        key: migrate_layer(config[key], inside)
        for key in ("layer", "backward_layer", "forward_layer", "cell")
        if custom_layers.is_layer(config.get(key))
    }
    for key in ("cells", "layers"):
        items = config.get(key)
        if isinstance(items, list) and all(map(custom_layers.is_layer, items)):
            inner[key] = [migrate_layer(item, inside) for item in items]
    return {**config, **inner}


def _inside(ctx: Context, name: str) -> Context:
    """Return the context inside a layer: its inner layers are stored under its name."""
    arrays = ctx.shapes(name)
    return dataclasses.replace(ctx, shapes=lambda _inner: arrays) if arrays else ctx


def _names_mask(calls: Any) -> bool:
    """Whether the stored calls of a layer name a mask."""
    if isinstance(calls, Mapping):
        named = any(calls.get(key) is not None for key in ("mask", "attention_mask"))
        return named or any(map(_names_mask, calls.values()))
    return isinstance(calls, list | tuple) and any(map(_names_mask, calls))


def _edgeattn_layer(registered: str, config: Config, item: Config) -> dict[str, Any]:
    """Return a layer of edgeattn."""
    config = {key: value for key, value in config.items() if key != "batch_input_shape"}
    if "dtype" in config:
        config["dtype"] = keras2.dtype_name(config["dtype"])
    config = {key: value for key, value in config.items() if key != "dtype" or value}
    build_config = item.get("build_config") if item.get("registered_name") == registered else None
    return _with_build_config(registered_layer(registered, config), build_config)


def _with_build_config(layer: dict[str, Any], build_config: Any) -> dict[str, Any]:
    return {**layer, "build_config": build_config} if build_config else layer
