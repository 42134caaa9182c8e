"""Functions of the old backend for images, with the names and values of arguments of Keras 1.

Convolutions are not among them: their kernels have another layout in Keras 1.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from edgeattn_converters.loading.eras import bilinear_positions, image_order
from edgeattn_converters.loading.migrate.keras1 import DATA_FORMATS

_RENAMED = {"X": "x", "border_mode": "padding", "dim_ordering": "data_format"}
_PADDING = ("spatial_2d_padding", "spatial_3d_padding")
_POOLING = ("pool2d", "pool3d")
_NAMES = (*_POOLING, "resize_images", "resize_volumes", "temporal_padding", *_PADDING)


def functions(backend: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return the functions by name; ``backend`` are those of Keras 2, whose arguments they have."""
    found = {name: _with_old_arguments(backend[name], name) for name in _NAMES}
    pad_2d, pad_1d = found["spatial_2d_padding"], found["temporal_padding"]

    def asymmetric_spatial_2d_padding(
        x: Any,
        top_pad: int = 1,
        bottom_pad: int = 1,
        left_pad: int = 1,
        right_pad: int = 1,
        dim_ordering: str = "default",
    ) -> Any:
        return pad_2d(x, ((top_pad, bottom_pad), (left_pad, right_pad)), dim_ordering)

    def asymmetric_temporal_padding(x: Any, left_pad: int = 1, right_pad: int = 1) -> Any:
        return pad_1d(x, (left_pad, right_pad))

    return {
        **found,
        "asymmetric_spatial_2d_padding": asymmetric_spatial_2d_padding,
        "asymmetric_temporal_padding": asymmetric_temporal_padding,
    }


def _with_old_arguments(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    # provide() runs more than once.
    original: Callable[..., Any] = getattr(function, "_of_keras_2", function)

    @functools.wraps(original)
    def compute(*args: Any, **named: Any) -> Any:
        places = [_current(name, place, value) for place, value in enumerate(args)]
        renamed = {_RENAMED.get(key, key): value for key, value in named.items()}
        found = {key: _current(name, key, value) for key, value in renamed.items()}
        if name in _POOLING:
            return _pooled(original, *places, **found)
        if name == "resize_images":
            return _resized(original, *places, **found)
        return original(*places, **found)

    compute._of_keras_2 = original  # type: ignore[attr-defined]
    return compute


def _resized(
    resize: Callable[..., Any],
    x: Any,
    height_factor: int,
    width_factor: int,
    data_format: str,
    interpolation: str = "nearest",
) -> Any:
    if interpolation == "bilinear" and bilinear_positions.are_corners_in_code():
        factors = (height_factor, width_factor)
        return bilinear_positions.resized_from_corners(x, *factors, data_format)
    # Without the argument, Keras 1 has no other interpolation.
    others = () if interpolation == "nearest" else (interpolation,)
    return resize(x, height_factor, width_factor, data_format, *others)


def _pooled(
    pool: Callable[..., Any],
    x: Any,
    pool_size: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
) -> Any:
    """Pool with the channels last, because TensorFlow has no other kernels for CPUs."""
    import tensorflow as tf

    axes = len(x.shape) - 2
    strides = (strides,) * axes if isinstance(strides, int) else strides
    if (data_format or image_order.current()) == "channels_last":
        return pool(x, pool_size, strides, padding, "channels_last", pool_mode)
    x = tf.transpose(x, (0, *range(2, axes + 2), 1))
    y = pool(x, pool_size, strides, padding, "channels_last", pool_mode)
    return tf.transpose(y, (0, axes + 1, *range(1, axes + 1)))


def _current(name: str, key: int | str, value: Any) -> Any:
    """Return an argument, by its place or name, as Keras 2 accepts it."""
    if isinstance(value, str):
        return image_order.current() if value == "default" else DATA_FORMATS.get(value, value)
    if key in (1, "padding"):
        if name == "temporal_padding" and isinstance(value, int):
            return (value, value)
        if name in _PADDING and all(isinstance(size, int) for size in value):
            return tuple((size, size) for size in value)
    return value
