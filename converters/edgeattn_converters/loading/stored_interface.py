"""The inputs and layers of a model, read from its stored configuration without building it.

They serve to report mistakes before TensorFlow is imported, so only what is certain is returned.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import DTYPES, TensorSpec
from edgeattn_converters.loading import fixed_time_axis
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_functional,
    is_model,
    is_sequential,
    layer_name,
    stored_layers,
)
from edgeattn_converters.loading.migrate import keras2, model_config, preprocessing
from edgeattn_converters.loading.migrate.context import keras_layer, safe_input_name, safe_name
from edgeattn_converters.loading.migrate.input_layers import input_layer

# Classes that the recurrent layers of all Keras versions are made of.
RECURRENT = ("RNN", "LSTM", "GRU")
_INNER = ("layer", "forward_layer", "backward_layer", "cell")


def input_specs(
    stored: Config, time_steps: fixed_time_axis.TimeSteps | None
) -> tuple[TensorSpec, ...] | None:
    """The inputs of the converted model; ``None`` if the configuration does not determine them.

    Raises :class:`UsageError` if an axis is free and ``time_steps`` does not determine it.
    """
    layers = _input_layers(stored)
    if layers is None:
        return None
    fixed = fixed_time_axis.fix_time_axis({"config": {"layers": layers}}, time_steps)
    specs = []
    for layer in fixed["config"]["layers"]:
        shape, dtype = layer["config"]["batch_shape"], _input_dtype(layer["config"])
        if dtype is None or not all(isinstance(axis, int) and axis > 0 for axis in shape[1:]):
            return None
        specs.append(TensorSpec(layer["config"]["name"], (None, *shape[1:]), dtype))
    names = {spec.name for spec in specs}
    return tuple(specs) if specs and len(names) == len(specs) else None


def output_names(stored: Config) -> tuple[str, ...] | None:
    """The names of the outputs; ``None`` if the configuration does not determine them."""
    if not is_model(stored) or not stored_layers(stored):
        return None
    stored = model_config.with_connections(stored) if is_sequential(stored) else stored
    layers = list(stored_layers(stored))
    by_name = {layer_name(item): item for item in layers}
    endpoints = [layer_name(layers[-1])]
    if is_functional(stored):
        if isinstance(stored["config"]["output_layers"], dict):
            return None  # outputs have the names of the keys
        endpoints = list(_endpoints(stored["config"]["output_layers"]))
    kinds = [by_name.get(name, {"class_name": "InputLayer"}) for name in endpoints]
    if any(is_model(item) or item["class_name"] == "InputLayer" for item in kinds):
        return None
    names = tuple(map(safe_name, endpoints))
    return names if len(set(names)) == len(names) else None


_CONVOLUTIONS = ("Conv1D", "Convolution1D", "SeparableConv1D", "DepthwiseConv1D")
# Layers that do not shorten a sequence as a spectrogram of a waveform does.
_SAME_LENGTH = frozenset({
    "InputLayer", "Functional", "Model", "Sequential", "Dense", "Embedding", "Masking", "Dropout",
    "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "Activation", "ReLU", "LeakyReLU",
    "ELU", "PReLU", "Softmax", "BatchNormalization", "LayerNormalization", "Bidirectional",
    "TimeDistributed", "LSTM", "GRU", "SimpleRNN", "RNN", "LSTMCell", "GRUCell", "SimpleRNNCell",
    "StackedRNNCells", "CuDNNLSTM", "CuDNNGRU", "Attention", "AdditiveAttention",
    "MultiHeadAttention", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
    "Concatenate", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "Flatten",
})  # fmt: skip


@dataclass(frozen=True)
class LayerList:
    """Names and classes of all layers with a configuration of their own.

    ``may_shorten`` is whether one of them may make sequences shorter, or have another axis of time.
    """

    names: tuple[str, ...]
    classes: frozenset[str]
    may_shorten: bool

    @property
    def recurrent(self) -> bool:
        return any(kind in name for name in self.classes for kind in RECURRENT)


def layer_list(stored: Config) -> LayerList | None:
    """The layers of a model at any depth; ``None`` if the configuration does not list them."""
    if not is_model(stored):
        return None
    stored = model_config.with_connections(stored) if is_sequential(stored) else stored
    layers = list(_all_layers(stored))
    names = [name for item in layers for name in (layer_name(item), safe_name(layer_name(item)))]
    classes = frozenset(str(item.get("class_name")).rsplit(">", 1)[-1] for item in layers)
    return LayerList(tuple(dict.fromkeys(names)), classes, any(map(_may_shorten, layers)))


def _may_shorten(item: Config) -> bool:
    name = str(item.get("class_name")).rsplit(">", 1)[-1]
    config = item.get("config")
    if name in _CONVOLUTIONS and isinstance(config, dict):
        strides = config.get("strides", config.get("subsample_length", 1))
        return strides not in (1, [1], (1,))
    return name not in _SAME_LENGTH


def _all_layers(item: Config) -> Iterator[Config]:
    config = item.get("config")
    inner: list[Any] = list(stored_layers(item)) if is_model(item) else []
    if isinstance(config, dict):
        cells = config.get("cells")
        inner += [config.get(key) for key in _INNER]
        inner += cells if isinstance(cells, list) else []
    for layer in inner:
        if isinstance(layer, dict) and "class_name" in layer:
            yield layer
            yield from _all_layers(layer)


def _input_layers(stored: Config) -> list[dict[str, Any]] | None:
    """The input layers in the form of Keras 3."""
    if not is_model(stored) or not stored_layers(stored):
        return None
    stored = model_config.with_connections(stored) if is_sequential(stored) else stored
    layers = list(stored_layers(stored))
    if any(map(preprocessing.is_lookup, _all_layers(stored))):
        return None
    if not is_functional(stored):
        return _as_input(layers[0])
    by_name = {layer_name(item): item for item in layers}
    inputs: list[dict[str, Any]] = []
    for name in _endpoints(stored["config"]["input_layers"]):
        item = by_name.get(name)
        migrated = _as_input(item) if item is not None else None
        if migrated is None or item is None or item["class_name"] != "InputLayer":
            return None
        inputs += migrated
    return inputs


def _as_input(first: Config) -> list[dict[str, Any]] | None:
    layers = input_layer(first)
    if not layers:
        return None
    config = {**layers[0]["config"]}
    if first.get("class_name") == "InputLayer":
        config["name"] = safe_input_name(layer_name(first))
    return [keras_layer("InputLayer", config)]


def _endpoints(value: Any) -> Iterator[str]:
    """The names of layers in ``input_layers``: ``[name, node, tensor]``, in lists or a dict."""
    if isinstance(value, dict):
        value = list(value.values())
    if len(value) == 3 and isinstance(value[0], str):
        yield value[0]
        return
    for item in value:
        yield from _endpoints(item)


def _input_dtype(config: Config) -> str | None:
    dtype = keras2.dtype_name(config.get("dtype")) or "float32"
    if not isinstance(dtype, str):
        return None
    if dtype not in DTYPES:
        return "float32" if dtype in ("bfloat16", "mixed_float16", "mixed_bfloat16") else None
    # Models of half precision are computed in float32.
    return "float32" if np.dtype(dtype).kind == "f" else dtype
