"""Convolutions with several batch axes: ``Conv1D`` of ``(samples, sensors, steps, features)``.

``tf.keras`` accepts them since TensorFlow 2.3 and convolves each part on its own. Layers of Keras 3
accept such inputs too, but then fail.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

_MARK = "_accepts_batch_axes"


def accept() -> None:
    """Let ``Conv1D``, ``Conv2D`` and ``Conv3D`` with the channels last accept them.

    It lasts, because a model is called after it is loaded. Other inputs are computed as before.
    """
    import keras
    from keras.src.layers.convolutional.base_conv import BaseConv

    for cls in (BaseConv, keras.layers.Conv1D):
        for name, changed in (("call", _of_parts), ("compute_output_shape", _shape_of_parts)):
            method = vars(cls).get(name)
            if method is not None and not hasattr(method, _MARK):
                replaced = changed(method)
                setattr(replaced, _MARK, True)
                setattr(cls, name, replaced)


def _number(layer: Any, shape: Sequence[Any]) -> int:
    """Return how many of the first axes are the batch."""
    return max(len(shape) - layer.rank - 1, 1) if layer.data_format == "channels_last" else 1


def _of_parts(of_keras: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(of_keras)
    def call(layer: Any, inputs: Any) -> Any:
        from keras import ops

        count = _number(layer, inputs.shape)
        if count == 1:
            return of_keras(layer, inputs)
        sizes = ops.shape(inputs)
        outputs = of_keras(layer, ops.reshape(inputs, (-1, *sizes[count:])))
        first = sizes[:count]
        if all(isinstance(size, int) for size in first[1:]):
            first = (-1, *first[1:])
        return ops.reshape(outputs, (*first, *ops.shape(outputs)[1:]))

    return call


def _shape_of_parts(of_keras: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(of_keras)
    def compute_output_shape(layer: Any, input_shape: Any) -> Any:
        shape = tuple(input_shape)
        count = _number(layer, shape)
        if count == 1:
            return of_keras(layer, input_shape)
        return (*shape[:count], *of_keras(layer, (None, *shape[count:]))[1:])

    return compute_output_shape
