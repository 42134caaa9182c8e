"""Masks of sequences for recurrent layers that are called with initial states.

Keras 2 passes the mask of the sequence, as in the decoder of a translation program. Keras 3 finds
masks for calls with one tensor only.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def passed(*, as_in_keras2: bool) -> Iterator[None]:
    """Build recurrent layers with the masks of their sequences as an argument, as in Keras 2."""
    if not as_in_keras2:
        yield
        return
    import keras
    from keras.src.backend import get_keras_mask

    def call(layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("initial_state") is not None and kwargs.get("mask") is None:
            kwargs["mask"] = get_keras_mask(sequences)
        return keras.layers.Layer.__call__(layer, sequences, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        for kind in (keras.layers.RNN, keras.layers.Bidirectional):
            stack.enter_context(mock.patch.object(kind, "__call__", call))
        yield
