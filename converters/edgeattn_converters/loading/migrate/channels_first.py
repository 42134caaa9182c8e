"""Channels-first convolutions and pooling, computed with the channels last.

Neither TensorFlow on a CPU nor the runtimes have kernels for the channels first.
"""

import re
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.migrate.context import keras_layer, registered_layer

REGISTERED = "edgeattn>ChannelsFirst"
# The other layers with a data_format compute with operators that have no channel axis.
_CLASSES = re.compile(r"(\w*Conv(LSTM)?|Max|Average)(Pool(ing)?)?\dD(Transpose)?")
_ELEMENTWISE = frozenset(
    {"relu", "relu6", "tanh", "sigmoid", "hard_sigmoid", "linear", "elu", "selu", "gelu", "silu",
     "swish", "softplus", "softsign", "exponential", "leaky_relu", "mish"}
)  # fmt: skip


def applies(class_name: str, config: Config) -> bool:
    """Return whether the layer has no kernel for the order of the axes in its config."""
    return config.get("data_format") == "channels_first" and bool(_CLASSES.fullmatch(class_name))


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
