"""``LocallyConnected1D`` and ``LocallyConnected2D``: convolutions with a kernel per position.

Keras 3 has no such layers. Keras 2 stores their kernels in three forms, one for each value of the
argument ``implementation``.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Array = np.ndarray[Any, Any]


@keras.saving.register_keras_serializable(package="edgeattn")
class LocallyConnected(keras.layers.Layer):
    """A convolution over the axes of ``kernel_size`` whose weights differ between positions.

    The kernel has the shape ``(positions, offsets * channels, filters)``. ``from_stored`` of its
    variable converts the array in a file to this form.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sequence[int],
        strides: Sequence[int],
        padding: str = "valid",
        data_format: str = "channels_last",
        activation: Any = None,
        use_bias: bool = True,
        implementation: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = tuple(kernel_size)
        self.strides = tuple(strides)
        self.padding = padding
        self.channels_first = data_format == "channels_first"
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.implementation = implementation

    def build(self, input_shape: Any) -> None:
        """Create the weights for fixed sizes of all axes but the batch."""
        self.channels = input_shape[1] if self.channels_first else input_shape[-1]
        self.sizes = self._sizes(input_shape)
        self.positions = self._positions(self.sizes)
        self.kernel = self.add_weight(
            shape=(
                math.prod(self.positions),
                math.prod(self.kernel_size) * self.channels,
                self.filters,
            ),
            name="kernel",
            initializer="zeros",
        )
        self.kernel.from_stored = self._from_stored
        if self.use_bias:
            shape = (*self.positions, self.filters)
            self.bias = self.add_weight(shape=shape, name="bias", initializer="zeros")
            self.bias.from_stored = self._bias_from_stored

    def _sizes(self, input_shape: Any) -> tuple[int, ...]:
        return tuple(input_shape[2:] if self.channels_first else input_shape[1:-1])

    def _positions(self, sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            -(-size // stride) if self.padding == "same" else (size - length) // stride + 1
            for size, length, stride in zip(sizes, self.kernel_size, self.strides, strict=True)
        )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape, which TimeDistributed needs."""
        positions = self._positions(self._sizes(input_shape))
        if self.channels_first:
            return (input_shape[0], self.filters, *positions)
        return (input_shape[0], *positions, self.filters)

    @property
    def _before(self) -> tuple[int, ...]:
        """The padding before each axis. Unlike that of convolutions, it ignores the strides."""
        same = self.padding == "same"
        return tuple(length // 2 if same else 0 for length in self.kernel_size)

    def call(self, inputs: Any) -> Any:
        """Multiply the patch at each position by the weights of the position."""
        rank = len(self.sizes)
        if self.channels_first:
            inputs = ops.transpose(inputs, (0, *range(2, rank + 2), 1))
        lengths = [
            (count - 1) * stride + length
            for count, stride, length in zip(
                self.positions, self.strides, self.kernel_size, strict=True
            )
        ]
        padding = [
            (before, max(0, length - before - size))
            for before, length, size in zip(self._before, lengths, self.sizes, strict=True)
        ]
        if any(map(any, padding)):
            inputs = ops.pad(inputs, [(0, 0), *padding, (0, 0)])
        parts = []
        for offsets in itertools.product(*map(range, self.kernel_size)):
            bounds = (
                slice(offset, offset + (count - 1) * stride + 1, stride)
                for offset, count, stride in zip(offsets, self.positions, self.strides, strict=True)
            )
            parts.append(inputs[(slice(None), *bounds)])
        patches = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        patches = ops.reshape(patches, (-1, *self.kernel.shape[:2]))
        outputs = ops.matmul(ops.transpose(patches, (1, 0, 2)), self.kernel)
        outputs = ops.reshape(
            ops.transpose(outputs, (1, 0, 2)), (-1, *self.positions, self.filters)
        )
        outputs = self.activation(outputs + self.bias if self.use_bias else outputs)
        if self.channels_first:
            outputs = ops.transpose(outputs, (0, rank + 1, *range(1, rank + 1)))
        return outputs

    def _connections(self) -> Iterator[tuple[tuple[int, ...], int, tuple[int, ...]]]:
        """Yield position, index of the offset and input position of each connection."""
        offsets = list(itertools.product(*map(range, self.kernel_size)))
        for position in itertools.product(*map(range, self.positions)):
            for index, offset in enumerate(offsets):
                source = tuple(
                    at * stride - before + shift
                    for at, stride, before, shift in zip(
                        position, self.strides, self._before, offset, strict=True
                    )
                )
                if all(0 <= at < size for at, size in zip(source, self.sizes, strict=True)):
                    yield position, index, source

    def _from_stored(self, stored: Array) -> Array:
        """Return the kernel for an array in the form of ``implementation``."""
        if self.implementation == 1:
            if self.channels_first:
                parts = stored.reshape(len(stored), self.channels, -1, self.filters)
                stored = parts.swapaxes(1, 2).reshape(stored.shape)
            return stored
        dense: Any = self._dense(stored)
        shape = (*self.positions, math.prod(self.kernel_size), self.channels, self.filters)
        kernel = np.zeros(shape, stored.dtype)
        for position, index, source in self._connections():
            kernel[(*position, index)] = dense[(*source, slice(None), *position)]
        return kernel.reshape(self.kernel.shape)

    def _bias_from_stored(self, stored: Array) -> Array:
        """Return the bias as Keras 2 adds it: with the channels first, it reshapes the array."""
        if not self.channels_first:
            return stored
        return np.moveaxis(stored.reshape(self.filters, *self.positions), 0, -1)

    def _dense(self, stored: Array) -> Array:
        """Return a weight for each input and output: ``(*sizes, channels, *positions, filters)``.

        Implementation 2 stores this array, implementation 3 the connected weights, ordered by
        output and then by input.
        """
        half = len(self.sizes) + 1
        if self.implementation == 3:
            connected = np.zeros((*self.positions, *self.sizes), bool)
            for position, _, source in self._connections():
                connected[(*position, *source)] = True
            if self.channels_first:
                mask = connected.reshape(1, *self.positions, 1, *self.sizes)
                shape = (self.filters, *self.positions, self.channels, *self.sizes)
            else:
                mask = connected.reshape(*self.positions, 1, *self.sizes, 1)
                shape = (*self.positions, self.filters, *self.sizes, self.channels)
            dense = np.zeros(shape, stored.dtype)
            dense[np.broadcast_to(mask, shape)] = stored
            stored = dense.transpose(*range(half, 2 * half), *range(half))
        if self.channels_first:
            stored = stored.transpose(*range(1, half), 0, *range(half + 1, 2 * half), half)
        return stored

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": "channels_first" if self.channels_first else "channels_last",
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "implementation": self.implementation,
        }
