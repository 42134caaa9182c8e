"""Stored configs from which tf_keras builds the model that was saved.

Files contain arrays and tensors among the arguments of a call as lists, and tf_keras passes these
on as lists.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn_converters.loading.migrate.tensorflow_layers import is_tensorflow_layer
from edgeattn_converters.loading.safety.allowed_classes import is_keras_module

# Begins a constant among the inputs of a stored call: [_CONSTANT, -1, value, arguments].
_CONSTANT = "_CONSTANT_VALUE"


def with_its_modules(config: Any) -> Any:
    """Return the config with the modules of tf_keras, which files name ``keras.layers``."""
    if isinstance(config, list):
        return [with_its_modules(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    renamed = {key: with_its_modules(value) for key, value in config.items()}
    module = config.get("module")
    if isinstance(module, str) and module.split(".")[0] == "keras":
        renamed["module"] = f"tf_{module}"
    return renamed


def has_only_its_modules(config: Any) -> bool:
    """Return whether no module that tf_keras would import is another than those of Keras."""
    if isinstance(config, list):
        return all(map(has_only_its_modules, config))
    if not isinstance(config, Mapping):
        return True
    module = config.get("module")
    if isinstance(module, str) and module != "builtins" and not is_keras_module(module):
        return False
    return all(map(has_only_its_modules, config.values()))


def with_arguments(config: Any) -> Any:
    """Return the config with the arguments of calls as the program passed them."""
    if isinstance(config, list):
        return [with_arguments(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    is_function = is_tensorflow_layer(str(config.get("class_name")))
    return {
        key: _calls(value, is_function) if key == "inbound_nodes" else with_arguments(value)
        for key, value in config.items()
    }


def _calls(value: Any, is_function: bool) -> Any:
    """Return stored calls, or a part of them, with their constants and arguments restored."""
    if isinstance(value, Mapping):
        return {key: _calls(part, is_function) for key, part in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) not in (3, 4) or not isinstance(value[0], str):
        return [_calls(part, is_function) for part in value]
    name, position, content, *arguments = value
    if name == _CONSTANT and isinstance(content, list):
        # Each number in a list of the program is a constant of its own: this was an array. To
        # functions such as tf.nn.embedding_lookup and tf.concat, a list is several tensors.
        content = _array(content)
    return [name, position, content, *(_argument(part, is_function) for part in arguments)]


def _argument(value: Any, is_function: bool) -> Any:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__ellipsis__":
            return ...
        return {key: _argument(part, is_function) for key, part in value.items()}
    if not isinstance(value, list):
        return value
    # Functions of TensorFlow accept lists; layers of Keras take tensors, such as a mask.
    if not is_function and value and all(isinstance(x, int | float) for x in _leaves(value)):
        return _array(value)
    return [_argument(part, is_function) for part in value]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _array(value: list[Any]) -> Any:
    import tensorflow as tf

    return tf.constant(value).numpy()
