"""Symbolic tensors of Keras, with which models are built, and the masks of tensors."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any


def is_keras_tensor(value: Any) -> bool:
    """Return whether a value is a symbolic tensor of Keras."""
    import keras

    return isinstance(value, keras.KerasTensor)


def keras_tensors(values: Any) -> list[Any]:
    """Return the symbolic tensors of Keras in a structure."""
    import keras

    return [value for value in keras.tree.flatten(values) if is_keras_tensor(value)]


@contextlib.contextmanager
def kept_masks(tensors: Sequence[Any]) -> Iterator[None]:
    """Leave tensors their masks, which a MultiHeadAttention of Keras 3 deletes from its inputs.

    Other layers may have the same inputs, such as the sum of a residual connection.
    """
    from keras.src.backend import get_keras_mask, set_keras_mask

    masks = [get_keras_mask(tensor) for tensor in tensors]
    yield
    for tensor, mask in zip(tensors, masks, strict=True):
        if mask is not None:
            set_keras_mask(tensor, mask)


def without_mask(tensor: Any) -> Any:
    """A tensor with the same values and no mask, if this one has a mask."""
    import tensorflow as tf
    from keras.src.backend import get_keras_mask

    return tensor if get_keras_mask(tensor) is None else tf.identity(tensor)
