"""``K.batch_dot`` and ``Dot`` of tensors of four axes and more, in a model that is loaded.

The layer calls the function, which was a product of the last two axes in Keras before 2.2.5 and in
tf.keras before TensorFlow 2.0 (``tf.matmul``; keras/backend/tensorflow_backend.py of Keras 2.2.4):
of two tensors (b, h, t, d) with axes [3, 3], it is (b, h, t, t). Since then, and in Theano, it is
(b, h, t, h, t). TensorFlow 1.13 to 2.1 call their Keras 2.2.4-tf, so a file of theirs does not show
which one it was.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any
from unittest import mock

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.eras import original_keras
from edgeattn_converters.loading.eras.original_keras import OriginalKeras

_FIRST_RANK = 4
_OF_SEVERAL_TENSORFLOWS = (2, 2, 4)
_IS_ANOTHER = (
    "of tensors with four axes is another product in TensorFlow 1.13 to 1.15 than in 2.0 and 2.1, "
    "which store the same version"
)


class _Product(Enum):
    FORMER = "that of the last two axes"
    PRESENT = "that of the current Keras"
    UNKNOWN = "either, depending on the TensorFlow"


def _of_saved(original: OriginalKeras) -> _Product:
    """The product of the Keras that saved a model."""
    if original.backend == "theano":
        return _Product.PRESENT
    if original.is_before((2, 2, 5), _OF_SEVERAL_TENSORFLOWS):
        return _Product.FORMER
    if original.of_tensorflow and original.version == _OF_SEVERAL_TENSORFLOWS:
        return _Product.UNKNOWN
    return _Product.PRESENT


def of_loaded_model(present: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``batch_dot`` of the loaded model; ``present`` is that of the current Keras."""
    # legacy_backend.provide() runs more than once.
    original: Callable[..., Any] = getattr(present, "_of_current_keras", present)

    @functools.wraps(original)
    def batch_dot(x: Any, y: Any, axes: Any = None) -> Any:
        product = former(x, y, axes)
        return original(x, y, axes) if product is None else product

    batch_dot._of_current_keras = original  # type: ignore[attr-defined]
    return batch_dot


def former(x: Any, y: Any, axes: Any) -> Any:
    """Return the product of the Keras that saved the loaded model; None if it is the current one.

    Raises ValueError if the file does not show which one it is.
    """
    product = _of_saved(original_keras.current())
    if not _may_differ([x, y], product):
        return None
    if product is _Product.UNKNOWN:
        raise ValueError(f"K.batch_dot {_IS_ANOTHER}; write tf.matmul or tf.einsum in place of it")
    return _of_last_axes(x, y, axes)


def _may_differ(tensors: Sequence[Any], product: _Product) -> bool:
    """Whether ``product`` may be another one than the current for two tensors."""
    ranks = [len(x.shape) for x in tensors]
    # With fewer axes of the second one, Keras had an error.
    return product is not _Product.PRESENT and ranks[0] <= ranks[1] >= _FIRST_RANK


def _of_last_axes(x: Any, y: Any, axes: Any) -> Any:
    from keras import ops

    ranks = len(x.shape), len(y.shape)
    rank, missing = max(ranks), ranks[1] - ranks[0]
    if axes is None:
        axes = (ranks[0] - 1, ranks[1] - 2)
    first, second = (axes, axes) if isinstance(axes, int) else axes
    for _ in range(missing):
        x = ops.expand_dims(x, -1)
    exchanged = (*range(rank - 2), rank - 1, rank - 2)
    if first != rank - 1:
        x = ops.transpose(x, exchanged)
    if second == rank - 1:
        y = ops.transpose(y, exchanged)
    product = ops.matmul(x, y)
    if missing:
        product = ops.squeeze(product, tuple(range(ranks[0] - 1, rank - 1)))
    return product


@contextlib.contextmanager
def in_layers(notes: list[str]) -> Iterator[None]:
    """Within the context, ``Dot`` layers that are built have the product of the loaded model.

    Adds to ``notes`` on those of the former product. Layers raise :class:`UnsupportedModelError` if
    the file does not show which one it is.
    """
    import keras

    product = _of_saved(original_keras.current())
    build = keras.layers.Dot.build

    def build_former(layer: Any, input_shape: Any) -> None:
        build(layer, input_shape)
        if not _may_differ([keras.KerasTensor(shape) for shape in input_shape], product):
            return
        if product is _Product.UNKNOWN:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} is a Dot {_IS_ANOTHER}.",
                hint="Load the model in the TensorFlow that trained it, and save it from the "
                "current Keras, with keras.ops.matmul or keras.ops.einsum in place of the layer.",
            )
        notes.append(
            f"{layer.name}: computes the product of the last two axes of both tensors, as in Keras "
            "before 2.2.5."
        )
        layer._merge_function = functools.partial(_dot, layer)
        layer.compute_output_shape = functools.partial(_dot_shape, layer)

    with mock.patch.object(keras.layers.Dot, "build", build_former):
        yield


def _dot(layer: Any, inputs: Sequence[Any]) -> Any:
    """Compute a Dot layer with the former product."""
    import keras

    axes = layer.axes if isinstance(layer.axes, list | tuple) else [layer.axes] * 2
    axes = [axis % len(x.shape) for axis, x in zip(axes, inputs, strict=True)]
    x, y = inputs
    if layer.normalize:
        x, y = (keras.utils.normalize(z, axis=axis) for z, axis in zip(inputs, axes, strict=True))
    return _of_last_axes(x, y, axes)


def _dot_shape(layer: Any, input_shape: Any) -> Any:
    import keras
    from keras.src.backend import compute_output_spec

    inputs = [keras.KerasTensor(shape) for shape in input_shape]
    return compute_output_spec(functools.partial(_dot, layer), inputs).shape
