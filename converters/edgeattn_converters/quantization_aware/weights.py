"""The weights of a Keras model that quantized files store as int8, and their scales."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.lowering.rnn.recurrence import CELLS
from edgeattn_converters.quantization.arithmetic import MIN_ELEMENTS, quantize_symmetric

LARGEST = 127
_KERNELS = ("kernel", "recurrent_kernel", "pointwise_kernel")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A weight of ``layer`` that becomes int8; each scale is shared along the axes ``shared``."""

    layer: Any
    variable: Any
    shared: tuple[int, ...]

    def rounded(self, value: Array) -> Array:
        """``value`` on the grid of int8, which rounding to int8 does not change again."""
        channels = [k for k in range(value.ndim) if k not in self.shared]
        if not channels:
            integers, scale = quantize_symmetric(value, None)
            return integers * scale
        moved = value.transpose([*self.shared, *channels])
        rows = moved.reshape(-1, math.prod(moved.shape[len(self.shared) :]))
        integers, scale = quantize_symmetric(rows, 1)
        order = np.argsort([*self.shared, *channels])
        return (integers * scale).reshape(moved.shape).transpose(order)

    def simulated(self, value: Any) -> Any:
        """A tensor rounded to int8, with the gradient of a tensor that is not rounded."""
        import tensorflow as tf

        largest = tf.reduce_max(tf.abs(value), axis=self.shared, keepdims=True)
        scale = tf.where(largest > 0, largest / LARGEST, tf.ones_like(largest))
        rounded = tf.round(value / scale) * scale
        return value + tf.stop_gradient(rounded - value)


def kernels(model: Any, *, static: bool) -> list[Kernel]:
    """The kernels of ``model`` that become int8, each once.

    In files whose activations have fixed ranges (``static``), all of them do, otherwise those that
    are large enough to save space.
    """
    found = {}
    for layer in all_layers(model):
        for variable in layer.weights:
            shared = _shared_axes(layer, variable)
            if shared is not None and (static or _size(variable) >= MIN_ELEMENTS):
                found[id(variable)] = Kernel(layer, variable, shared)
    return list(found.values())


def float_layers(model: Any, rounded: Iterable[Kernel]) -> list[str]:
    """Layers with large weights that are not simulated: ``name (class)``."""
    known = {id(kernel.variable) for kernel in rounded}
    names: dict[str, None] = {}
    for layer in all_layers(model):
        inner = {id(v) for part in all_layers(layer) for v in part.weights}
        for variable in layer.weights:
            is_large = _size(variable) >= MIN_ELEMENTS and len(variable.shape) > 1
            if is_large and id(variable) not in known | inner:
                names[f"{layer.name} ({type(layer).__name__})"] = None
    return list(names)


def _size(variable: Any) -> int:
    return math.prod(int(axis) for axis in variable.shape)


def _shared_axes(layer: Any, variable: Any) -> tuple[int, ...] | None:
    """The axes along which a kernel has one scale; None if the weight is no kernel of this layer.

    A scale belongs to an output channel. A table of embeddings has one scale.
    """
    import keras

    rank, name = len(variable.shape), str(variable.name)
    if isinstance(layer, keras.layers.Embedding):
        return tuple(range(rank)) if name == "embeddings" else None
    if isinstance(layer, keras.layers.EinsumDense):
        return _contracted(layer.equation) if name == "kernel" else None
    depthwise = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    separable = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
    if name == "depthwise_kernel" or (isinstance(layer, depthwise) and name == "kernel"):
        return tuple(range(rank - 2)) if isinstance(layer, (*depthwise, *separable)) else None
    dense = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    known = isinstance(layer, (*dense, *separable)) or is_keras_class(layer, *CELLS)
    return tuple(range(rank - 1)) if known and name in _KERNELS else None


def _contracted(equation: str) -> tuple[int, ...]:
    """The axes of the second operand that are summed over: (0,) of ``abc,cde->abde``."""
    operands, result = equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    return tuple(k for k, axis in enumerate(kernel) if axis not in result)
