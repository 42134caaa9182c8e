"""The input layer of a Sequential model, which older Keras versions store in its first layer."""

from collections.abc import Sequence
from typing import Any

from edgeattn_converters.loading.config_inspection import Config, is_model, layer_name
from edgeattn_converters.loading.migrate import keras2
from edgeattn_converters.loading.migrate.context import Context, keras_layer, safe_name

# Number of axes of the inputs of a layer, batch included.
_AXES = {"LSTM": 3, "GRU": 3, "SimpleRNN": 3, "Bidirectional": 3, "Conv1D": 3, "Dense": 2,
         "CuDNNLSTM": 3, "CuDNNGRU": 3}  # fmt: skip
_SHAPE_PRESERVING = ("Dropout", "Masking", "Activation", "GaussianNoise")


def input_layer(first: Config) -> list[dict[str, Any]]:
    """Return the input layer that the first layer of a model describes, or ``[]``."""
    config = first.get("config")
    if is_model(first) or not isinstance(config, dict):
        return []
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None:
        shape = _keras1_shape(config)
    inner = config.get("layer")
    if shape is None and isinstance(inner, dict):
        return input_layer(inner)
    if shape is None:
        return []
    dtype = keras2.dtype_name(config.get("input_dtype") or config.get("dtype")) or "float32"
    # A mixed policy computes in half precision; its inputs and variables are float32.
    dtype = "float32" if not isinstance(dtype, str) or dtype.startswith("mixed_") else dtype
    name = f"{safe_name(layer_name(first))}_input"
    return [keras_layer("InputLayer", {"batch_shape": shape, "dtype": dtype, "name": name})]


def _keras1_shape(config: Config) -> list[int | None] | None:
    """Return the shape that Keras 1 stored as ``input_dim`` and ``input_length``."""
    features = config.get("input_dim")
    if features is None or "output_dim" not in config or "W_regularizer" not in config:
        return None
    if "inner_activation" in config:
        return [None, config.get("input_length"), features]
    return [None, features]


def inferred_input_layer(
    stored: Config, layers: Sequence[Config], ctx: Context
) -> list[dict[str, Any]]:
    """Return the input layer of a Sequential that was built from data, or ``[]``.

    Its shape is the one that Keras stored when the model was built, else that of the first weights.
    """
    config = stored["config"]
    build_config = stored.get("build_config") or {}
    shape = config.get("build_input_shape") if isinstance(config, dict) else None
    shape = shape or (build_config.get("input_shape") if isinstance(build_config, dict) else None)
    if not shape:
        shape = _shape_from_weights(layers, ctx)
    if not isinstance(shape, list | tuple) or is_model(layers[0]):
        return []
    inner = {"name": layer_name(layers[0]), "batch_input_shape": [None, *shape[1:]]}
    return input_layer({"class_name": "Dense", "config": inner})


def _shape_from_weights(layers: Sequence[Config], ctx: Context) -> list[int | None] | None:
    """Return features from the first kernel and the number of axes from the class of its layer."""
    for item in layers:
        class_name = item.get("class_name")
        if class_name == "Embedding":
            return [None, None]
        arrays = ctx.shapes(layer_name(item))
        if arrays:
            kernel = arrays[0][1]
            features = kernel[-2] if len(kernel) > 1 else None
            axes = _AXES.get(str(class_name))
            return None if axes is None or features is None else [None, None, features][-axes:]
        if class_name not in _SHAPE_PRESERVING:
            return None
    return None
