"""Modules and functions of Keras 1 and 2 that classes of the user import.

Keras 3 has most of them under other names: the functions of the old backend in ``tf.keras.backend``
and the layers in one module.
"""

import sys
from types import ModuleType
from typing import Any

# Modules of Keras 1 and 2 that only defined layers.
_OF_LAYERS = (
    "engine", "engine.topology", "engine.base_layer", "engine.input_spec", "layers.core",
    "layers.recurrent", "layers.merge", "layers.wrappers", "layers.embeddings",
    "layers.normalization", "layers.convolutional", "layers.convolutional_recurrent",
    "layers.pooling", "layers.noise", "layers.local", "layers.advanced_activations",
)  # fmt: skip
_OF_UTILS = ("utils.generic_utils", "utils.conv_utils", "utils.layer_utils")


def provide() -> None:
    """Add what Keras 3 lacks to ``keras.backend`` and to the modules that can be imported."""
    import keras
    import tensorflow as tf

    functions = {**vars(tf.keras.backend), **_other_functions()}
    for name, function in functions.items():
        if callable(function) and not name.startswith("_"):
            for module in (keras.backend, tf.keras.backend):
                if not hasattr(module, name):
                    setattr(module, name, function)
    for name in _OF_LAYERS:
        _register(f"keras.{name}", keras.layers)
    for name in _OF_UTILS:
        _register(f"keras.{name}", keras.utils)


def _register(name: str, module: ModuleType) -> None:
    if sys.modules.setdefault(name, module) is module:
        parent, _, attribute = name.rpartition(".")
        if not hasattr(sys.modules[parent], attribute):
            setattr(sys.modules[parent], attribute, module)


def _other_functions() -> dict[str, Any]:
    """The functions of Keras 2 that ``tf.keras`` of Keras 3 lacks, as they compute at inference."""
    import tensorflow as tf

    def value(x: Any) -> Any:
        return x() if callable(x) else x

    return {
        "learning_phase": lambda: 0,
        "in_train_phase": lambda x, alt, training=None: value(x if training is True else alt),
        "in_test_phase": lambda x, alt, training=None: value(alt if training is True else x),
        "identity": lambda x, name=None: tf.identity(x, name=name),
        "print_tensor": lambda x, message="", summarize=3: x,
        "slice": lambda x, start, size: tf.slice(x, start, size),
        "softmax_3d": lambda x: tf.nn.softmax(x, axis=-1),
        "logsumexp": lambda x, axis=None, keepdims=False: tf.reduce_logsumexp(
            x, axis=axis, keepdims=keepdims
        ),
    }
