"""Samples with which a loaded model is compared with the same model in another framework.

They have padding, of other lengths in each input: what masks do differs between versions of Keras.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers

SEED = 20150817
SAMPLES = 4
# Layers that take integers from 0, and the argument that is their number.
_SIZES = {"Embedding": "input_dim", "CategoryEncoding": "num_tokens"}


def padded_samples(model: Any, stored: Config) -> list[Any]:
    """Return seeded inputs: random numbers, or word indices if the model has an Embedding.

    The padding is what the first Masking layer of ``stored`` masks, else zeros.
    """
    return padded_arrays(
        model.inputs,
        min(_vocabulary_sizes(stored), default=0),
        are_words_of_steps=_are_words_of_steps(stored),
        padding=next(_mask_values(stored), 0.0),
    )


def padded_arrays(
    tensors: Sequence[Any], vocabulary: int, *, are_words_of_steps: bool, padding: float
) -> list[Any]:
    """Return seeded arrays for the inputs ``tensors``, each with padding at the end of its rows.

    Inputs of two axes are word indices below ``vocabulary`` unless that is 0; inputs of three too
    if the words are those of steps. ``padding`` is that of sequences of vectors.
    """
    generator = np.random.default_rng(SEED)
    samples = []
    for index, tensor in enumerate(tensors):
        shape = (SAMPLES, *tensor.shape[1:])
        are_words = vocabulary > 0 and (len(shape) == 2 or (are_words_of_steps and len(shape) == 3))
        if are_words:
            x = generator.integers(1, max(vocabulary, 2), shape).astype("float64")
        else:
            x = generator.normal(size=shape)
        fill = padding if len(shape) > 2 and not are_words else 0.0
        for row in range(SAMPLES):
            # In each row, other inputs have another length; one row of each has no padding.
            part = (row + index) % SAMPLES
            for axis in range(1, len(shape) if are_words else 2) if part else ():
                start = -part * shape[axis] // (2 * SAMPLES) or shape[axis]
                np.moveaxis(x[row], axis - 1, 0)[start:] = fill
        samples.append(x.astype(tensor.dtype))
    return samples


def _mask_values(stored: Config) -> Iterator[float]:
    """Yield what the Masking layers mask."""
    for item in _flat(stored):
        if item.get("class_name") == "Masking":
            value = item["config"].get("mask_value", 0.0)
            if isinstance(value, int | float):
                yield float(value)


def _vocabulary_sizes(stored: Config) -> list[int]:
    """Return how many integers each layer accepts that takes only some."""
    return [
        int(item["config"].get(_SIZES[item["class_name"]]) or 2)
        for item in _flat(stored)
        if item.get("class_name") in _SIZES
    ]


def _are_words_of_steps(stored: Config) -> bool:
    """Return whether a layer looks up the words of every step."""
    return any(
        item.get("class_name") == "TimeDistributed"
        and any(inner.get("class_name") == "Embedding" for inner in _inside(item))
        for item in _flat(stored)
    )


def _flat(stored: Config) -> Iterator[Config]:
    """Yield the layers of a model, also those inside models and other layers."""
    for item in stored_layers(stored):
        yield item
        yield from _inside(item)


def _inside(item: Config) -> Iterator[Config]:
    if is_model(item):
        yield from _flat(item)
        return
    config = item.get("config")
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if isinstance(inner, Mapping):
        yield inner
        yield from _inside(inner)
