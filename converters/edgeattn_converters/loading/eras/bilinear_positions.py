"""Where bilinear interpolation of ``UpSampling2D`` and ``K.resize_images`` takes its values.

Row ``i`` of an image that is enlarged by a factor ``f`` lies at ``(i + 0.5) / f - 0.5`` of the
given rows in the current Keras, and at ``i / f`` in ``tf.image.resize_bilinear`` of TensorFlow 1.
That is what Keras 2.2.3 to 2.3.1 call (keras/backend/tensorflow_backend.py, ``resize_images``), and
TensorFlow 1.13 and 1.14 (tensorflow/python/keras/backend.py). TensorFlow 1.15 to 2.1, whose Keras
has the same version 2.2.4-tf, call ``resize_images_v2``, as all later ones do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.eras import original_keras
from edgeattn_converters.loading.eras.original_keras import OriginalKeras

# The first Keras of its own that is part of TensorFlow.
_OF_TENSORFLOW = (2, 4)
# TensorFlow 1.13 to 2.1 call their Keras 2.2.4-tf.
_OF_FIVE_TENSORFLOWS = (2, 2, 4)
_FROM_CORNERS = "bilinear interpolation takes its values from row i / size, as in"
_FROM_CENTERS = "bilinear interpolation takes its values from row (i + 0.5) / size - 0.5, as in"


@dataclass(frozen=True)
class Positions:
    """How the Keras that saved a model interpolates, if the current one may do it otherwise.

    Attributes:
        are_corners: whether the positions are ``i / f``, not those of the current Keras.
        note: a clause for the user, without the name of a layer.
        is_theano: whether Theano computed the model, whose borders are others.
    """

    are_corners: bool
    note: str
    is_theano: bool = False


def of_saved(original: OriginalKeras) -> Positions | None:
    """Return the positions of the Keras that saved a model; None for the current ones.

    A version of several TensorFlows that differ has a note that says so.
    """
    version = original.version
    if not version or version >= _OF_TENSORFLOW:
        return None
    if original.backend == "theano":
        return Positions(are_corners=False, note="", is_theano=True)
    if not original.of_tensorflow:
        return Positions(True, f"{_FROM_CORNERS} Keras 2.2.3 to 2.3.1.")
    if version < _OF_FIVE_TENSORFLOWS:
        return Positions(True, f"{_FROM_CORNERS} TensorFlow before 1.15.")
    if version > _OF_FIVE_TENSORFLOWS or "'ragged'" in repr(original.stored):
        # Inputs have this argument in the files of TensorFlow 1.15 and 2.1.
        return None
    if _has_initializers_of_1(original.stored):
        return Positions(
            True,
            f"{_FROM_CORNERS} TensorFlow 1.13 and 1.14, whose initializers the file has. If "
            "TensorFlow 1.15 or later saved it, the outputs are wrong: load it in TensorFlow 2.2 "
            "or later, save it there, and convert that file.",
        )
    return Positions(
        False,
        f"{_FROM_CENTERS} TensorFlow 1.15 to 2.1. The file does not show whether TensorFlow 1.13 "
        "or 1.14 saved it; then the outputs are wrong: build the model with Lambda(lambda x: "
        "tf.compat.v1.image.resize_bilinear(x, (HEIGHT, WIDTH))) in place of the layer, and pass "
        "it with --architecture.",
    )


def _has_initializers_of_1(part: Any) -> bool:
    """Whether initializers of a config have a dtype, as those of TensorFlow 1."""
    if isinstance(part, list | tuple):
        return any(map(_has_initializers_of_1, part))
    if not isinstance(part, Mapping):
        return False
    for key, value in part.items():
        if str(key).endswith("_initializer") and isinstance(value, Mapping):
            if "dtype" in (value.get("config") or {}):
                return True
        elif _has_initializers_of_1(value):
            return True
    return False


def notes() -> tuple[str, ...]:
    """Return notes on the positions that code of the loaded model has used.

    Raises :class:`UnsupportedModelError` if Theano computed the model. Keras would hide an error
    that occurs in a call.
    """
    used = tuple(original_keras.current().used)
    original_keras.current().used.clear()
    if any(item.is_theano for item in used):
        raise theano_error("K.resize_images is called")
    return tuple(dict.fromkeys(f"K.resize_images: {item.note}" for item in used))


def theano_error(subject: str) -> UnsupportedModelError:
    """Return the error about bilinear interpolation in a model that Theano computed."""
    return UnsupportedModelError(
        f"{subject} with interpolation='bilinear', for which Theano, which trained the model, "
        "computes other values than TensorFlow.",
        hint="Train the model with TensorFlow, or with another interpolation.",
    )


def are_corners_in_code() -> bool:
    """Return whether code of the loaded model takes values at ``i / f``, and record its use."""
    original = original_keras.current()
    positions = of_saved(original)
    if positions is None:
        return False
    original.used.append(positions)
    return positions.are_corners


def resized_from_corners(x: Any, rows: int, columns: int, data_format: str) -> Any:
    """Enlarge images by the factors ``rows`` and ``columns``, with values from ``i / factor``.

    ``x`` has the shape ``(batch, height, width, channels)``, or ``(batch, channels, height,
    width)`` if ``data_format`` is ``"channels_first"``; the result has the same order.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    if data_format == "channels_first":
        x = tf.transpose(x, (0, 2, 3, 1))
    known, dynamic = x.shape, tf.shape(x)
    sizes = [
        (dynamic[axis] if known[axis] is None else known[axis]) * factor
        for axis, factor in ((1, rows), (2, columns))
    ]
    y = tf.cast(tf.raw_ops.ResizeBilinear(images=x, size=sizes), x.dtype)
    return tf.transpose(y, (0, 3, 1, 2)) if data_format == "channels_first" else y
