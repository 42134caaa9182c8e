"""A new Keras model with the architecture of another one and other weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError, first_line
from edgeattn.tensors import Array
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.quantization_aware.weights import Kernel
from edgeattn_converters.tracing.keras_call import pack


def rebuilt(
    model: Any, values: Sequence[Array], kernels: Sequence[Kernel], sample: tuple[Array, ...]
) -> Any:
    """A copy of ``model`` with ``values`` for its trainable variables, on the grid of int8.

    Raises :class:`UnsupportedModelError` if a copy does not compute what ``model`` computes for
    the inputs ``sample``.
    """
    copy = _copy(model, sample)
    by_variable = {id(kernel.variable): kernel for kernel in kernels}
    for new, old, value in zip(
        copy.trainable_variables, model.trainable_variables, values, strict=True
    ):
        kernel = by_variable.get(id(old))
        new.assign(value if kernel is None else kernel.rounded(value))
    return copy


def _copy(model: Any, sample: tuple[Array, ...]) -> Any:
    import keras

    objects = {type(layer).__name__: type(layer) for layer in all_layers(model)}
    try:
        with keras.saving.custom_object_scope(objects):
            copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        for new, old in zip(all_layers(copy), all_layers(model), strict=True):
            # Bidirectional sets it, but not in models of older versions.
            if hasattr(old, "zero_output_for_mask"):
                new.zero_output_for_mask = old.zero_output_for_mask
    except Exception as error:  # get_config and from_config are the user's in custom layers
        raise UnsupportedModelError(
            f"The model cannot be copied: {first_line(error)}",
            hint="Build it with the functional API from layers that have get_config.",
        ) from error
    expected, actual = (_outputs(item, sample) for item in (model, copy))
    if not all(
        np.array_equal(*pair, equal_nan=True) for pair in zip(expected, actual, strict=True)
    ):
        raise UnsupportedModelError(
            "A copy of the model computes other results.",
            hint="Check get_config and from_config of its layers.",
        )
    if getattr(model, "compiled", False):
        copy.compile_from_config(model.get_compile_config())
    return copy


def _outputs(model: Any, sample: tuple[Array, ...]) -> list[Array]:
    import tensorflow as tf

    result = model(pack(model, tuple(map(tf.constant, sample))), training=False)
    return [np.asarray(value) for value in tf.nest.flatten(result)]
