"""Channels-first convolutions and pooling, computed with the channels last.

Neither TensorFlow on a CPU nor the runtimes have kernels for the channels first. Layers of a stored
model are wrapped; what operations and classes of the user compute is changed in Keras' functions.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.migrate.context import keras_layer, registered_layer

REGISTERED = "edgeattn>ChannelsFirst"
# The other layers with a data_format compute with operators that have no channel axis.
_CLASSES = re.compile(r"(\w*Conv(LSTM)?|Max|Average)(Pool(ing)?)?\dD(Transpose)?")
_FUNCTIONS = ("conv", "depthwise_conv", "separable_conv", "conv_transpose")
_ELEMENTWISE = frozenset(
    {"relu", "relu6", "tanh", "sigmoid", "hard_sigmoid", "linear", "elu", "selu", "gelu", "silu",
     "swish", "softplus", "softsign", "exponential", "leaky_relu", "mish"}
)  # fmt: skip


def applies(class_name: str, config: Config) -> bool:
    """Return whether the layer has no kernel for the order of the axes in its config."""
    return config.get("data_format") == "channels_first" and bool(_CLASSES.fullmatch(class_name))


@functools.cache
def compute_with_channels_last() -> None:
    """Let Keras' functions move the channels last, in this process, if they come first.

    Those for pooling do so anyway.
    """
    from keras.src.backend.tensorflow import nn, numpy

    for name in _FUNCTIONS:
        setattr(nn, name, _with_channels_last(getattr(nn, name)))
    numpy.add = _broadcasting(numpy.add)


def _with_channels_last(function: Callable[..., Any]) -> Callable[..., Any]:
    import keras
    import tensorflow as tf

    signature = inspect.signature(function)

    @functools.wraps(function)
    def compute(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments.get("data_format")
        if (given or keras.config.image_data_format()) != "channels_first":
            return function(*args, **kwargs)
        inputs = tf.convert_to_tensor(bound.arguments["inputs"])
        rank = len(inputs.shape)
        bound.arguments["inputs"] = tf.transpose(inputs, (0, *range(2, rank), 1))
        bound.arguments["data_format"] = "channels_last"
        outputs = function(*bound.args, **bound.kwargs)
        return tf.transpose(outputs, (0, rank - 1, *range(1, rank - 1)))

    return compute


def _broadcasting(add: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``add``, also for a bias along another axis than the last one that has its size.

    With TensorFlow, Keras adds a bias (1, C, 1, 1) to (batch, C, rows, C) along the columns.
    """
    import keras
    import tensorflow as tf

    @functools.wraps(add)
    def compute(x1: Any, x2: Any) -> Any:
        shape, bias = (tuple(getattr(value, "shape", ())) for value in (x1, x2))
        sizes = [size for size in bias if size != 1]
        if len(bias) != len(shape) or len(sizes) != 1 or bias[-1] != 1 or sizes[0] != shape[-1]:
            return add(x1, x2)
        dtype = keras.backend.result_type(x1.dtype, x2.dtype)
        return tf.add(*(keras.ops.convert_to_tensor(value, dtype) for value in (x1, x2)))

    return compute


def is_used(stored: Config) -> bool:
    """Return whether a stored model has such a layer, at any depth."""
    return any(
        is_used(item) if is_model(item) else _is_used_by(item) for item in stored_layers(stored)
    )


def _is_used_by(item: Config) -> bool:
    config = item.get("config") or {}
    inner = config.get("layer")
    if isinstance(inner, Mapping):
        return is_used(inner) if is_model(inner) else _is_used_by(inner)
    return applies(str(item.get("class_name")), config)


def migrate(class_name: str, config: Config) -> dict[str, Any]:
    """Return the layer that wraps the counterpart with the channels last.

    Raises :class:`UnsupportedModelError` for a recurrent layer whose activation runs along an axis.
    """
    inner = {**config, "data_format": "channels_last"}
    outer: dict[str, Any] = {"name": config["name"]}
    if isinstance(config.get("dtype"), str):
        outer["dtype"] = config["dtype"]
    activation = config.get("activation")
    if "ConvLSTM" not in class_name:
        # Activations such as softmax run along the last axis of the outputs.
        if activation is not None:
            outer["activation"], inner["activation"] = activation, "linear"
    elif isinstance(activation, str) and activation not in _ELEMENTWISE:
        raise UnsupportedModelError(
            f"Layer {config['name']!r} is a {class_name} with the channels first and the "
            f"activation {activation!r}, which runs along the last axis.",
            hint="Rebuild the model with data_format='channels_last'; its weights fit.",
        )
    return registered_layer(REGISTERED, {**outer, "layer": keras_layer(class_name, inner)})
