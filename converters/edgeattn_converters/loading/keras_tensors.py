"""Symbolic tensors of Keras, with which models are built."""

from typing import Any


def is_keras_tensor(value: Any) -> bool:
    """Return whether a value is a symbolic tensor of Keras."""
    import keras

    return isinstance(value, keras.KerasTensor)


def keras_tensors(values: Any) -> list[Any]:
    """Return the symbolic tensors of Keras in a structure."""
    import keras

    return [value for value in keras.tree.flatten(values) if is_keras_tensor(value)]
