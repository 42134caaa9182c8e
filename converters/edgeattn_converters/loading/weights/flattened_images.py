"""Images of Keras 1 with the channels first, which an architecture flattens in another order.

``Flatten`` of Keras 1 leaves the axes as they are, so that the dense layer behind it has its
weights in the order of (channels, rows, columns).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.keras_classes import derives_from, is_keras_class
from edgeattn_converters.loading.config_inspection import Config, layer_name
from edgeattn_converters.loading.weights.layouts import (
    has_channels_first,
    kernels_with_channels_first,
)


class FlattenedOtherwiseError(UnsupportedModelError):
    """An architecture whose Flatten arranges the values in another order than the saved model."""


def require_order(model: Any, layers: Iterable[tuple[Config, Sequence[Any]]]) -> None:
    """Require that a model flattens images in the order of the Keras 1 that saved its weights.

    ``layers`` are the configs of its layers and their arrays in the file. Their kernels show that
    the channels came first. Raises :class:`FlattenedOtherwiseError`, but not if the architecture
    has a Permute, which may move them.
    """
    convolutions = kernels_with_channels_first(layers)
    if not convolutions:
        return
    parts = list(model._flatten_layers())
    if any(derives_from(part, "Permute") for part in parts):
        return
    moved = [item for item in convolutions if not has_channels_first(item.get("config") or {})]
    for part in parts:
        if not _flattens_image(part):
            continue
        if moved or getattr(part, "data_format", None) == "channels_first":
            raise FlattenedOtherwiseError(
                f"The kernel of layer {layer_name(convolutions[0])!r} shows that the model was "
                "saved by Keras 1 with the channels first (dim_ordering='th'). Layer "
                f"{part.name!r} of the architecture flattens images with the channels last, so "
                "that the weights behind it belong to other values.",
                hint="Build the model with the channels first: call "
                "keras.backend.set_image_data_format('channels_first') ahead of its layers, with "
                "input shapes such as (3, 32, 32), or pass the JSON that Keras 1 wrote.",
            )


def _flattens_image(layer: Any) -> bool:
    """Whether a layer joins the channels and the positions of images, both of several values."""
    if not is_keras_class(layer, "Flatten") and not derives_from(layer, "Reshape"):
        return False
    for node in layer._inbound_nodes:
        (before, *_), (after, *_) = node.input_tensors, node.output_tensors
        sizes = before.shape[1:]
        if len(sizes) > 2 and len(after.shape) == 2 and sum(size != 1 for size in sizes) > 1:
            return True
    return False
