"""Attention weights of the attention layers in a Keras model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.layers.attention import Attention
from edgeattn.tensors import Array

# Attention layers, and the argument with which they also return their weights.
WEIGHT_ARGUMENTS: tuple[tuple[Any, str], ...] = (
    (Attention, "return_attention_weights"),
    (keras.layers.MultiHeadAttention, "return_attention_scores"),
    (keras.layers.Attention, "return_attention_scores"),  # and its subclass AdditiveAttention
)


def attention_maps(
    model: keras.Model, x: Any, layer: str | None = None, *, batch_size: int = 32
) -> Array:
    """Return the attention weights of ``model`` on the inputs ``x``. The model is not changed.

    Supports :class:`edgeattn.layers.Attention` and the Keras layers ``Attention``,
    ``AdditiveAttention`` and ``MultiHeadAttention``, also in nested models. Masks are applied and
    dropout is off, as in ``predict``.

    Args:
        model: a built model, on any backend.
        x: an array of inputs, samples first, or a list of arrays if the model has several inputs.
        layer: name of the attention layer; may be omitted if there is only one.
        batch_size: samples per call.

    Returns float32 of shape ``(samples, time)`` for the layer of this package, and of shape
    ``(samples, queries, keys)`` or ``(samples, heads, queries, keys)`` for those of Keras. Raises
    :class:`UsageError` if the model has no such layer, has several and ``layer`` is missing, or
    calls the layer more than once, and :class:`SampleError` if there are no samples or the inputs
    have different numbers of them.
    """
    is_list = isinstance(x, list | tuple)
    inputs = [np.asarray(array) for array in (x if is_list else [x])]
    counts = {len(array) if array.ndim else 0 for array in inputs}
    if len(counts) != 1 or 0 in counts:
        raise SampleError(f"x should hold samples, as many in each input. Received: {counts}.")
    batches = []
    with _recorded_weights(_find_layer(model, layer)) as recorded:
        for start in range(0, counts.pop(), batch_size):
            batch = [array[start : start + batch_size] for array in inputs]
            recorded.clear()
            model(batch if is_list else batch[0], training=False)
            if len(recorded) != 1:
                raise UsageError(
                    "The model should call the attention layer once. "
                    f"It is called {len(recorded)} times."
                )
            weights = keras.ops.convert_to_numpy(keras.ops.cast(recorded[0], "float32"))
            batches.append(np.asarray(weights))
    return np.concatenate(batches)


def _find_layer(model: keras.Model, name: str | None) -> Any:
    """The attention layer called ``name``, or the only one if ``name`` is None."""
    kinds = tuple(kind for kind, _ in WEIGHT_ARGUMENTS)
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]
    names = ", ".join(layer.name for layer in layers) or "none"
    matches = [layer for layer in layers if name is None or layer.name == name]
    if len(matches) == 1:
        return matches[0]
    expected = "one attention layer" if name is None else f"one attention layer {name!r}"
    raise UsageError(
        f"The model should have {expected}. Its attention layers: {names}.",
        hint="Pass the name of one of them: layer=NAME" if layers else None,
    )


@contextmanager
def _recorded_weights(layer: Any) -> Iterator[list[Any]]:
    """While the context is open, every call of ``layer`` appends its weights to the list.

    The call itself is replaced, so that masks and all inputs are those of the model.
    """
    argument = next(name for kind, name in WEIGHT_ARGUMENTS if isinstance(layer, kind))
    recorded: list[Any] = []
    call = layer.call

    def recording_call(*arguments: Any, **options: Any) -> Any:
        requested = options.get(argument)
        if requested is None:
            requested = getattr(layer, argument, False)
        options[argument] = True
        output, weights = call(*arguments, **options)
        recorded.append(weights)
        return (output, weights) if requested else output

    layer.call = recording_call
    try:
        yield recorded
    finally:
        del layer.call
