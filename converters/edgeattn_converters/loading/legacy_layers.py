"""Layers and arguments of Keras 2 that programs use to build a model, which Keras 3 rejects.

Only what leaves the values of the layer unchanged is accepted; Keras rejects the rest.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# They chose between implementations of the same values.
_WITHOUT_EFFECT = ("implementation", "fused", "batch_size")
# Arguments with the only value that Keras 3 has.
_FIXED = {"time_major": False, "renorm": False, "dynamic": False, "causal": False}

_SHAPES = frozenset({"input_shape", "batch_input_shape", "batch_shape"})


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Let programs create ``CuDNNLSTM`` and ``CuDNNGRU``, and use arguments of Keras 2."""
    import keras
    import tensorflow as tf

    layer, embedding = keras.layers.Layer, keras.layers.Embedding
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(layer, "__init__", _changed(layer, _current)))
        stack.enter_context(
            mock.patch.object(embedding, "__init__", _changed(embedding, _of_words))
        )
        for module in (keras.layers, tf.keras.layers):
            for name, function in (("CuDNNLSTM", _cudnn_lstm), ("CuDNNGRU", _cudnn_gru)):
                stack.enter_context(mock.patch.object(module, name, function, create=True))
        yield


def _changed(cls: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The constructor of a class, called with changed arguments."""
    create = cls.__init__

    # Without functools.wraps: Keras reads both the signature and the names of the arguments.
    def with_arguments(layer: Any, *args: Any, **kwargs: Any) -> None:
        create(layer, *args, **change(kwargs))

    return with_arguments


def _of_words(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of Embedding, which in Keras 2 had an input shape as the first layer of a model."""
    length = arguments.get("input_length")
    shape = tuple(length) if isinstance(length, list | tuple) else (length,)
    given = {key: value for key, value in arguments.items() if key != "input_length"}
    return given if given.keys() & _SHAPES else {**given, "input_shape": shape}


def _current(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of every layer of Keras 2 as those of Keras 3."""
    current = {
        key: value
        for key, value in arguments.items()
        if key not in _WITHOUT_EFFECT and (key not in _FIXED or value != _FIXED[key])
    }
    if "batch_input_shape" in current:
        current["input_shape"] = tuple(current.pop("batch_input_shape")[1:])
    if "input_length" in current and "input_dim" in current:
        current["input_shape"] = (current.pop("input_length"), current.pop("input_dim"))
    return current


def _cudnn_lstm(units: int, *args: Any, **kwargs: Any) -> Any:
    import keras

    return keras.layers.LSTM(units, *args, **{"name": _name("cu_dnnlstm"), **kwargs})


def _cudnn_gru(units: int, *args: Any, **kwargs: Any) -> Any:
    import keras

    arguments = {"name": _name("cu_dnngru"), **kwargs, "reset_after": True}
    return keras.layers.GRU(units, *args, **arguments)


def _name(name: str) -> str:
    from keras.src.utils.naming import auto_name

    return str(auto_name(name))
