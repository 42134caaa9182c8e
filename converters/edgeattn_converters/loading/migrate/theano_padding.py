"""The layer that pads as Theano does before a convolution or pooling without padding."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="edgeattn")
class TheanoPadding(keras.layers.Layer):
    """Pads, calls ``layer`` and returns one value for every stride of the input.

    Args:
        layer: convolution or pooling with the padding "valid".
        before: number of values before each axis with a position.
        kind: ``"Conv"``, ``"MaxPooling"`` or ``"AveragePooling"``; the maximum and the average
            exclude the padding.
        channels_first: whether the channels follow the batch axis.
    """

    def __init__(
        self,
        layer: Any,
        before: Sequence[int],
        kind: str,
        channels_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self.before = tuple(before)
        self.kind = kind
        self.channels_first = channels_first

    @property
    def _first_axis(self) -> int:
        return 2 if self.channels_first else 1

    def _paddings(self, shape: Sequence[int | None]) -> list[tuple[int, int]]:
        """The numbers of values before and after each axis, so that every stride has a window."""
        paddings = [(0, 0)] * len(shape)
        for number, before in enumerate(self.before):
            axis = self._first_axis + number
            size, stride, span = shape[axis], self._strides[number], self._spans[number]
            after = span - 1
            if size is not None:
                after = max((-(-size // stride) - 1) * stride + span - size - before, 0)
            paddings[axis] = (before, after)
        return paddings

    @property
    def _inner(self) -> Any:
        return getattr(self.layer, "channels_last", self.layer)

    @property
    def _strides(self) -> tuple[int, ...]:
        return tuple(self._inner.strides)

    @property
    def _spans(self) -> tuple[int, ...]:
        """The sizes of the window, with the gaps of a dilated kernel."""
        if self.kind != "Conv":
            return tuple(self._inner.pool_size)
        sizes, rates = self._inner.kernel_size, self._inner.dilation_rate
        return tuple((k - 1) * d + 1 for k, d in zip(sizes, rates, strict=True))

    def build(self, input_shape: Any) -> None:
        """Build the layer for the padded shape."""
        self.layer.build(self._padded_shape(input_shape))

    def _padded_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(
            None if size is None else size + sum(padding)
            for size, padding in zip(shape, self._paddings(shape), strict=True)
        )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the input shape divided by the strides, with the channels of the layer."""
        shape = list(self.layer.compute_output_shape(self._padded_shape(input_shape)))
        for number, stride in enumerate(self._strides):
            size = input_shape[self._first_axis + number]
            shape[self._first_axis + number] = None if size is None else -(-size // stride)
        return tuple(shape)

    def call(self, inputs: Any) -> Any:
        """Pad and call the layer."""
        paddings = self._paddings(inputs.shape)
        if self.kind == "MaxPooling":
            return self._cropped(self.layer(_with_repeated_ends(inputs, paddings)), inputs)
        outputs = self._cropped(self.layer(ops.pad(inputs, paddings)), inputs)
        if self.kind == "Conv":
            return outputs
        if None not in inputs.shape[1:]:
            return outputs * self._excluding_padding(inputs.shape)
        ones = ops.pad(ops.ones_like(inputs), paddings)
        return outputs / self._cropped(self.layer(ones), inputs)

    def _excluding_padding(self, shape: Sequence[int]) -> Any:
        """What averages with zeros for the padding are multiplied with, (1, *positions, 1)."""
        factors = np.ones([1] * len(shape), "float32")
        for number, before in enumerate(self.before):
            axis = self._first_axis + number
            size, stride, span = shape[axis], self._strides[number], self._spans[number]
            starts = np.arange(-(-size // stride)) * stride - before
            counts = np.minimum(starts + span, size) - np.maximum(starts, 0)
            factors = factors * np.expand_dims(
                span / counts, [k for k in range(len(shape)) if k != axis]
            ).astype("float32")
        return factors

    def _cropped(self, outputs: Any, inputs: Any) -> Any:
        """Remove windows that begin after the input, if its size was unknown."""
        for number, stride in enumerate(self._strides):
            axis = self._first_axis + number
            if inputs.shape[axis] is None:
                size = ops.shape(inputs)[axis]
                outputs = ops.take(outputs, ops.arange((size + stride - 1) // stride), axis=axis)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Return the config with the arguments of the constructor."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "before": self.before,
            "kind": self.kind,
            "channels_first": self.channels_first,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TheanoPadding":
        """Return the layer with its inner layer."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def _with_repeated_ends(inputs: Any, paddings: Sequence[tuple[int, int]]) -> Any:
    """``inputs`` with the first and last values of each axis as padding.

    Every window contains the end that it exceeds, so that its maximum excludes the padding. Minus
    infinity would make the range of an integer file infinite.
    """
    for axis, (before, after) in enumerate(paddings):
        if not before and not after:
            continue
        parts = [inputs]
        if before:
            parts.insert(0, ops.take(inputs, [0] * before, axis=axis))
        if after:
            parts.append(ops.take(inputs, [-1] * after, axis=axis))
        inputs = ops.concatenate(parts, axis=axis)
    return inputs
