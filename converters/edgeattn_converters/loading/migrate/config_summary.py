"""What a stored model's config says of itself, before anything of it is translated.

Chains and graphs, their layers and names, and the input that older chains keep in their first
layer. Nothing given is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeattn_converters.loading.migrate import keras2
from edgeattn_converters.loading.migrate.context import Config, safe_name


def is_sequential(stored: Config) -> bool:
    """Whether it is a chain of layers: a list, or a dict with layers and no graph."""
    config = stored.get("config")
    if stored.get("class_name") == "Sequential":
        return True
    return isinstance(config, dict) and "layers" in config and "input_layers" not in config and (
        str(stored.get("class_name")).rsplit(">", 1)[-1] == "Sequential"
    )  # fmt: skip


def is_graph(stored: Config) -> bool:
    """Whether it is a functional model, whatever its class is called."""
    config = stored.get("config")
    return isinstance(config, dict) and "layers" in config and "input_layers" in config


def is_model(stored: Config) -> bool:
    """Whether this layer is itself a model."""
    return is_sequential(stored) or is_graph(stored)


def stored_layers(stored: Config) -> Sequence[Config]:
    """The layers of a model's config, of any era."""
    config = stored["config"]
    return list(config if isinstance(config, list) else config.get("layers", ()))


def layer_name(stored: Config) -> str:
    """The name of a stored layer or model."""
    config = stored.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    name = stored.get("name") or inner
    if not name and isinstance(config, list) and config:
        return f"{layer_name(config[0])}_sequential"
    return str(name or stored.get("class_name"))


def input_of(first: Config) -> list[dict[str, Any]]:
    """The input that older chains keep in their first layer, as a layer of its own."""
    config = first.get("config")
    if is_model(first):
        return []
    if not isinstance(config, dict):
        return []
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None:
        shape = _keras1_shape(config)
    inner = config.get("layer")
    if shape is None and isinstance(inner, dict):
        return input_of(inner)
    if shape is None:
        return []
    kind = keras2.dtype(config.get("input_dtype") or config.get("dtype")) or "float32"
    # A mixed policy computes in half precision; what comes in is what the variables are made of.
    kind = "float32" if not isinstance(kind, str) or kind.startswith("mixed_") else kind
    name = f"{safe_name(layer_name(first))}_input"
    return [
        {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
         "config": {"batch_shape": shape, "dtype": kind, "name": name}}
    ]  # fmt: skip


def _keras1_shape(config: Config) -> list[int | None] | None:
    """Keras 1 also said it as ``input_dim`` and ``input_length``."""
    dim = config.get("input_dim")
    if dim is None or "output_dim" not in config or "W_regularizer" not in config:
        return None
    if "inner_activation" in config:
        return [None, config.get("input_length"), dim]
    return [None, dim]
