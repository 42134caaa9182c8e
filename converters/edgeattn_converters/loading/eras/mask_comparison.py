"""Layers with other masks in Keras 2 than in Keras 3, found by calling a model in both ways.

The outputs of a layer of the user keep the mask that an inner layer has set, but Keras 3 deletes
the masks of the inputs of an attention, and has other masks for sums: so the next layer may lack
its mask.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.keras_classes import creates_mask
from edgeattn_converters.loading.eras import implicit_masks
from edgeattn_converters.loading.own_code.masks_of_classes import may_create_masks
from edgeattn_converters.loading.own_code.subclassed import as_functional

# A length for axes that are free.
_STEPS = 4
_Masks = dict[str, list[tuple[bool, ...]]]


def has_masks(model: Any) -> bool:
    """Return whether a layer of a model may create a mask."""
    return any(
        creates_mask(layer) or may_create_masks(type(layer)) for layer in model._flatten_layers()
    )


def differing(current: Any, older: Any, samples: Mapping[str, Any]) -> list[str]:
    """Return the names of layers with a mask in one of two models only.

    ``current`` computes as in Keras 3, ``older`` is built by the same program as in Keras 2.
    ``samples`` are inputs by name. Raises :class:`UnsupportedModelError` if the shapes of the
    inputs are unknown or a model fails.
    """
    masks = _masks(current, samples)
    with implicit_masks.passed():
        of_keras_2 = _masks(older, samples)
    return [name for name, value in of_keras_2.items() if masks.get(name) != value]


def _masks(model: Any, samples: Mapping[str, Any]) -> _Masks:
    import keras

    functional = as_functional(model, samples, None, allow_free_time=True)
    with _recorded() as masks:
        try:
            functional(keras.tree.map_structure(_example, functional._inputs_struct))
        except Exception as error:  # such as a kernel that is longer than the sequence
            raise UnsupportedModelError(f"The model fails for zeros: {error}") from error
    return masks


def _example(tensor: Any) -> Any:
    """Zeros, or empty texts, for an input: masks do not exist for some values only."""
    import tensorflow as tf

    _, *shape = tensor.shape
    return tf.zeros((1, *(size or _STEPS for size in shape)), tensor.dtype)


@contextlib.contextmanager
def _recorded() -> Iterator[_Masks]:
    """Record which inputs of each call of a layer have a mask, for layers that use masks."""
    import keras
    from keras.src.backend import get_keras_mask

    of_keras = keras.layers.Layer.__call__
    masks: _Masks = {}

    @functools.wraps(of_keras)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _uses_masks(layer):
            named = {key: value for key, value in kwargs.items() if key.endswith("mask")}
            tensors = {key: value for key, value in kwargs.items() if key not in named}
            of_inputs = [get_keras_mask(x) is not None for x in keras.tree.flatten((args, tensors))]
            first = any(value is not None for value in keras.tree.flatten(named.get("mask")))
            of_inputs[:1] = [any((*of_inputs[:1], first))]
            masks.setdefault(layer.name, []).append(tuple(of_inputs))
        return of_keras(layer, *args, **kwargs)

    with mock.patch.object(keras.layers.Layer, "__call__", call):
        yield masks


def _uses_masks(layer: Any) -> bool:
    import keras

    # The masks of these have no effect on outputs: they are those of training, or passed on.
    if isinstance(layer, keras.Model | keras.layers.BatchNormalization):
        return False
    names = inspect.signature(layer.call).parameters
    return any(name == "mask" or name.endswith("_mask") for name in names)


def with_empty_rows(older: Any) -> list[str]:
    """Return the names of attention layers whose queries without any key differ in Keras 3.

    Those with dropout: Keras 2 weights all keys equally, Keras 3.10 and later none.
    """
    from edgeattn_converters.loading.migrate.legacy_mask_layers import LegacyMultiHeadAttention

    layers = older._flatten_layers()
    return [x.name for x in layers if isinstance(x, LegacyMultiHeadAttention) and x._dropout]
