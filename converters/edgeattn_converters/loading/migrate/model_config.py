"""A whole model's config of any era as today's Keras writes it to a ``.keras`` file.

Model in, model out: nothing given is changed. Layers are translated by ``keras1``, ``keras2`` and
their neighbours; here are models within models, wrappers, and who is called with what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading import custom_objects as custom
from edgeattn_converters.loading.lambdas import recognition as lambdas
from edgeattn_converters.loading.migrate import attention_package, keras1, keras2, merge
from edgeattn_converters.loading.migrate import flattened_attention as flattened
from edgeattn_converters.loading.migrate import functional_nodes as nodes
from edgeattn_converters.loading.migrate import tensorflow_operations as tensorflow_ops
from edgeattn_converters.loading.migrate.config_summary import (
    input_of,
    is_graph,
    is_model,
    is_sequential,
    layer_name,
    stored_layers,
)
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name, without_slashes

WRAPPERS = frozenset({"Bidirectional", "TimeDistributed", "Wrapper", "SpectralNormalization"})
_BASE = ("name", "trainable", "dtype")


def model(stored: Config, ctx: Context) -> dict[str, Any]:
    """Translate a model.

    Ensures a dict that ``keras.saving.deserialize_keras_object`` takes, with nothing in it to
    import but Keras, ourselves and the user's own classes.

    Raises:
        UnsupportedModelError: a model kept as code only, or layers that cannot be honoured.
    """
    if is_graph(stored):
        return _functional(stored, ctx)
    if is_sequential(stored):
        drawn = with_calls(stored)
        return _functional(drawn, ctx) if is_graph(drawn) else _sequential(drawn, ctx)
    return custom.layer(stored, ctx)


def with_calls(stored: Config) -> Config:
    """The model itself, or the graph of a chain that is none."""
    if merge.starts_chain(stored):
        return merge.as_graph(stored)
    return flattened.as_graph(stored) if flattened.holds_attention(stored) else stored


def _wrap(class_name: str, config: Config) -> dict[str, Any]:
    module = {"Functional": "keras.src.models.functional", "Sequential": "keras"}[class_name]
    return {"module": module, "class_name": class_name, "config": config,
            "registered_name": class_name}  # fmt: skip


def _sequential(stored: Config, ctx: Context) -> dict[str, Any]:
    items = stored_layers(stored)
    layers = [layer(item, ctx) for item in items]
    if items and items[0].get("class_name") != "InputLayer":
        layers = [*(input_of(items[0]) or _built_input(stored, items, ctx)), *layers]
    name = safe_name(layer_name(stored))
    return _wrap("Sequential", {"name": name, "trainable": True, "layers": layers})


def _built_input(stored: Config, items: Sequence[Config], ctx: Context) -> list[dict[str, Any]]:
    """The input of a chain that got its shape from data: as noted later, or as its weights say."""
    config = stored["config"]
    noted = stored.get("build_config") or {}
    shape = config.get("build_input_shape") if isinstance(config, dict) else None
    shape = shape or (noted.get("input_shape") if isinstance(noted, dict) else None)
    if not shape:
        shape = _shape_by_weights(items, ctx)
    if not isinstance(shape, list | tuple) or is_model(items[0]):
        return []
    inner = {"name": layer_name(items[0]), "batch_input_shape": [None, *shape[1:]]}
    return input_of({"class_name": "Dense", "config": inner})


def _shape_by_weights(items: Sequence[Config], ctx: Context) -> list[int | None] | None:
    """The features by the first kernel; how many axes there are, by the kind of layer."""
    kinds = {"LSTM": 3, "GRU": 3, "SimpleRNN": 3, "Bidirectional": 3, "Conv1D": 3, "Dense": 2,
             "CuDNNLSTM": 3, "CuDNNGRU": 3}  # fmt: skip
    for item in items:
        stored = ctx.shapes(layer_name(item))
        if item.get("class_name") == "Embedding":
            return [None, None]
        if stored:
            features = stored[0][1][-2] if len(stored[0][1]) > 1 else None
            axes = kinds.get(str(item.get("class_name")))
            return None if axes is None or features is None else [None, None, features][-axes:]
        if item.get("class_name") not in ("Dropout", "Masking", "Activation", "GaussianNoise"):
            return None
    return None


def _functional(stored: Config, ctx: Context) -> dict[str, Any]:
    config = stored["config"]
    names = _names(config)
    table = nodes.Table.of(config["layers"], names=names, models=_model_names(config), era=ctx.era)
    layers = []
    for item in config["layers"]:
        translated, calls = _graph_layer(item, table, ctx)
        layers.append({**translated, "name": names(layer_name(item)), "inbound_nodes": calls})
    return _wrap(
        "Functional",
        {
            "name": safe_name(str(config.get("name") or "model")),
            "trainable": True,
            "layers": layers,
            "input_layers": table.ends(config["input_layers"]),
            "output_layers": table.ends(config["output_layers"]),
        },
    )


def _names(config: Config) -> Callable[[str], str]:
    """What the layers are called here. Inputs have no scope, and their names are the user's."""
    inputs = {layer_name(item) for item in config["layers"] if item["class_name"] == "InputLayer"}
    return lambda name: without_slashes(name) if name in inputs else safe_name(name)


def _model_names(config: Config) -> Mapping[str, str]:
    """The models among the layers: "graph" or "chain", whose calls are counted differently."""
    return {
        layer_name(item): "graph" if is_graph(item) else "chain"
        for item in config["layers"]
        if is_model(item)
    }


def _graph_layer(
    item: Config, table: nodes.Table, ctx: Context
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A layer with its calls. Some layers become others, which are called otherwise."""
    class_name = str(item.get("class_name"))
    calls = table.calls(item.get("inbound_nodes") or [])
    if tensorflow_ops.is_operation_layer(class_name):
        return tensorflow_ops.layer(item, calls, ctx)
    if merge.is_merge(item):
        return layer(merge.layer(item, ctx), ctx), calls
    if nodes.is_operation_call(item, calls):
        return nodes.operation(item), calls
    translated = layer(item, ctx)
    if ctx.era < 3 or class_name == "Lambda":
        calls = [nodes.keras3_call(class_name, item.get("config") or {}, call) for call in calls]
    return translated, calls


def layer(item: Config, ctx: Context) -> dict[str, Any]:
    """Translate one layer, with what it wraps, without its calls."""
    if is_model(item):
        return model(item, dataclasses.replace(ctx, shapes=_within(ctx, layer_name(item))))
    class_name = str(item.get("class_name"))
    config = {**(item.get("config") or {})}
    name = layer_name({"config": config, **item})
    config["name"] = without_slashes(name) if class_name == "InputLayer" else safe_name(name)
    registered = item.get("registered_name")
    known = custom.is_ours(class_name, registered)
    if known:
        return _ours(known, config, item)
    if custom.wins(item, ctx):
        return custom.layer(item, ctx)
    if attention_package.recognises(class_name, config) and not custom.from_keras(item):
        ctx.note(
            f"{config['name']}: the Attention of the package 'attention' became edgeattn's, "
            "told to ignore masks as the package did."
        )
        return _ours(attention_package.REGISTERED, attention_package.layer(config), item)
    if class_name == "Lambda":
        return lambdas.layer(item, ctx)
    if custom.is_missing(item, ctx):
        raise custom.missing(item)
    if ctx.era == 1:
        class_name, renamed = keras1.layer(class_name, config)
        config = dict(renamed)
    inside = dataclasses.replace(ctx, shapes=_within(ctx, config["name"]))
    for key in ("layer", "backward_layer", "forward_layer", "cell"):
        if isinstance(config.get(key), dict) and "class_name" in config[key]:
            config[key] = layer(config[key], inside)
    if isinstance(config.get("cells"), list):
        config["cells"] = [layer(cell, inside) for cell in config["cells"]]
    class_name, config = keras2.layer(class_name, config, ctx)
    own = keras2.of_ours(class_name, config, ctx)
    if own is not None:
        return _ours(own[0], own[1], item)
    # Older ones say it in words of their own, and all inputs are known by then.
    built = item.get("build_config") if ctx.era == 3 else None
    extra = {"build_config": built} if built else {}
    return {"module": "keras.layers", "class_name": class_name, "config": config,
            "registered_name": None, **extra}  # fmt: skip


def _within(ctx: Context, name: str) -> Any:
    """Arrays of a layer inside another one are stored under the outer one's name."""
    outer = ctx.shapes(name)
    return ctx.shapes if not outer else lambda _inner: outer


def _ours(registered: str, config: Config, item: Config) -> dict[str, Any]:
    """A layer of edgeattn's own, which only its registered name finds."""
    config = {key: value for key, value in config.items() if key != "batch_input_shape"}
    if "dtype" in config:
        config["dtype"] = keras2.dtype(config["dtype"])
    config = {key: value for key, value in config.items() if key != "dtype" or value}
    built = item.get("build_config") if item.get("registered_name") == registered else None
    extra = {"build_config": built} if built else {}
    return {"module": None, "class_name": registered.rsplit(">", 1)[-1], "config": config,
            "registered_name": registered, **extra}  # fmt: skip


def has_masks(stored: Config) -> bool:
    """Whether some layer makes a mask, at any depth; a custom class might."""
    for item in stored_layers(stored):
        config = item.get("config")
        if is_model(item) and has_masks(item):
            return True
        if item.get("class_name") == "Masking":
            return True
        if isinstance(config, dict) and config.get("mask_zero"):
            return True
    return False


def require_layers(stored: Config) -> None:
    """Refuse an empty model early. Requires a config with a class name."""
    if is_model(stored) and not stored_layers(stored):
        raise UnsupportedModelError(
            "expected a model with layers, got one without any",
            hint="Save the model after it has been built.",
        )
