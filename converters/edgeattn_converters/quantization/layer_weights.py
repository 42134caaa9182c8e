"""The layer of the Keras model that a constant of a file comes from, identified by its values.

Names cannot identify it: converters merge, transpose and split constants, and Keras renumbers the
layers of a traced graph, so that its ``dense_1`` may be the model's ``dense``.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.lowering.rnn.recurrence import as_float32, is_recurrent
from edgeattn_converters.quantization.arithmetic import MIN_ELEMENTS

# Minimum share of a constant's nonzero values that are values of the layer.
MIN_SHARE = 0.99
TOLERANCE = 1e-5


@dataclass(frozen=True)
class LayerWeights:
    """A layer of the model by name, and its weights that are large enough to be quantized."""

    name: str
    values: tuple[Array, ...]
    recurrent: bool = False

    @property
    def size(self) -> int:
        """Number of weight values."""
        return sum(value.size for value in self.values)


def layer_weights(model: Any) -> tuple[LayerWeights, ...]:
    """The layers of a Keras model with large weights, in its order, including nested models.

    The inner layers of a layer (the projections of an attention, the cell of a recurrence) belong
    to it and have no entry of their own.
    """
    layers = []
    for layer in _outermost(model):
        values = [as_float32(variable) for variable in layer.weights]
        large = tuple(value for value in values if value.size >= MIN_ELEMENTS)
        if large:
            layers.append(LayerWeights(str(layer.name), large, _is_recurrence(layer)))
    return tuple(layers)


def recurrent_layers(model: Any) -> tuple[str, ...]:
    """The names of Keras' recurrent layers in ``model``."""
    return tuple(str(layer.name) for layer in all_layers(model) if is_recurrent(layer))


def _is_recurrence(layer: Any) -> bool:
    """Whether ``layer`` is recurrent, or a Bidirectional of recurrent layers."""
    inner = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
    return any(item is not None and is_recurrent(item) for item in (layer, *inner))


def _outermost(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        # A nested model has layers of its own; a wrapper has one, but is not a model.
        if derives_from(layer, "Model"):
            yield from _outermost(layer)
        else:
            yield layer


def key_of(value: Array) -> bytes:
    """A hash that identifies a constant."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def owns(layer: LayerWeights, value: Array) -> bool:
    """Whether a constant derives from weights of ``layer``: moved, split, joined or scaled."""
    nonzero = value[value != 0]
    if not nonzero.size:
        return False
    if value.size <= layer.size:
        weights = np.concatenate([weight.reshape(-1) for weight in layer.values])
        if float(np.isin(nonzero, weights).mean()) >= MIN_SHARE:
            return True
    return any(_is_scaled(value, weight) for weight in layer.values)


def _is_scaled(value: Array, weight: Array) -> bool:
    """Whether ``value`` holds all values of a weight, scaled as a whole or by channel."""
    if value.size != weight.size or value.ndim < 2:
        return False
    if _close(_scale_free(value.reshape(1, -1)), _scale_free(weight.reshape(1, -1))):
        return True
    # A normalisation after the layer scales its output channels, one before it the input channels.
    # In Keras these are the last two axes; in a file, the first or the last.
    return any(
        _close(_scale_free(_rows(value, file_axis)), _scale_free(_rows(weight, keras_axis)))
        for file_axis in (0, -1)
        for keras_axis in (-1, -2)
        if value.shape[file_axis] == weight.shape[keras_axis]
    )


def _rows(value: Array, axis: int) -> Array:
    """One row per index of ``axis``."""
    return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)


def _scale_free(rows: Array) -> Array:
    """The sorted magnitudes of each row relative to the largest, which scaling does not change."""
    magnitudes = np.sort(np.abs(rows.astype(np.float64)), axis=1)
    largest = magnitudes[:, -1:]
    return magnitudes / np.where(largest == 0, 1.0, largest)


def _close(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= TOLERANCE)
