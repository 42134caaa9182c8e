"""The least epsilon of fused batch normalization in TensorFlow before 2.12.

``fused_batch_norm`` (tensorflow/python/ops/nn_impl.py of TensorFlow 1.12 to 2.11) computes with
1.001e-5 if epsilon is less. ``BatchNormalization`` of tensors with four axes calls it in Keras 2.2
to 2.3.1 (``batch_normalization`` of keras/backend/tensorflow_backend.py) and in tf.keras.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn_converters.loading.eras.original_keras import OriginalKeras

_LEAST = 1.001e-5
# The relative difference of outputs from which on it is computed.
_RELEVANT = 1e-4


def let_be_former(layers: Iterable[Any], original: OriginalKeras) -> list[str]:
    """Let built layers with their weights have that epsilon if ``original`` did, in place.

    Returns a note on each layer that it changes: those of which a variance is so small that results
    differ.
    """
    import keras

    notes = []
    for layer in layers if _is_fused(original) else ():
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.built:
            continue
        variance, epsilon = np.asarray(layer.moving_variance), layer.epsilon
        difference = (_LEAST - epsilon) / (2 * (np.maximum(variance, 0) + _LEAST))
        if _is_of_images(layer, original) and difference.max(initial=0) > _RELEVANT:
            notes.append(
                f"{layer.name}: computes with an epsilon of 1.001e-5, not {epsilon:g}, as "
                "TensorFlow before 2.12."
            )
            layer.epsilon = _LEAST
    return notes


def _is_fused(original: OriginalKeras) -> bool:
    first, after = ((2, 1, 6), (2, 12)) if original.of_tensorflow else ((2, 2), (2, 4))
    # That of several devices is not fused.
    is_one = "SyncBatchNormalization" not in repr(original.stored)
    return first <= original.version < after and original.backend != "theano" and is_one


def _is_of_images(layer: Any, original: OriginalKeras) -> bool:
    """Whether a layer normalizes the channels of images."""
    axis = layer.axis
    if not isinstance(axis, int) or len(layer.input_spec.axes or ()) != 1:
        return False
    is_first = not original.of_tensorflow and original.version < (2, 2, 1)
    return layer.input_spec.ndim == 4 and axis in ((1, 3) if is_first else (1, 3, -3, -1))
