"""``UpSampling2D`` with the positions of bilinear interpolation in Keras 2.2.3 to 2.3.1."""

from collections.abc import Iterable
from typing import Any

import keras

from edgeattn_converters.loading.eras.bilinear_positions import (
    Positions,
    resized_from_corners,
    theano_error,
)


@keras.saving.register_keras_serializable(package="edgeattn")
class LegacyUpSampling2D(keras.layers.UpSampling2D):
    """``UpSampling2D`` whose row ``i`` is bilinear interpolation at row ``i / size`` of the inputs.

    Inputs have the shape ``(batch, height, width, channels)``, outputs ``(batch, size[0] * height,
    size[1] * width, channels)``; with ``data_format="channels_first"``, the channels are the second
    axis of both.
    """

    def _resize_images(self, *args: Any, **kwargs: Any) -> Any:
        return _resized(*args, **kwargs)


def _resized(
    x: Any, height_factor: int, width_factor: int, data_format: str, interpolation: str = "bilinear"
) -> Any:
    assert interpolation == "bilinear"
    return resized_from_corners(x, height_factor, width_factor, data_format)


def let_be_former(layers: Iterable[Any], positions: Positions | None) -> list[str]:
    """Let built layers interpolate at ``positions``, in place; return notes on each of them.

    Raises :class:`UnsupportedModelError` if Theano computed the model.
    """
    notes = []
    for layer in layers:
        is_one = isinstance(layer, keras.layers.UpSampling2D)
        if positions is None or not is_one or layer.interpolation != "bilinear":
            continue
        if positions.is_theano:
            raise theano_error(f"Layer {layer.name!r} is an UpSampling2D")
        if type(layer) is keras.layers.UpSampling2D and positions.are_corners:
            layer.__class__ = LegacyUpSampling2D
        elif positions.are_corners:
            layer._resize_images = _resized  # of a class of the user
        notes.append(f"{layer.name}: {positions.note}")
    return notes
