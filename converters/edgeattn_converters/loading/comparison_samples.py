"""Samples with which a loaded model is compared with the same model in another framework.

They have padding, of other lengths in each input: what masks do differs between versions of Keras.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.own_code.own_classes import is_of_library, is_own_class

SEED = 20150817
SAMPLES = 4
# Values that classes of the user may mask, each of which needs samples of its own.
_MOST_GUESSED = 6
# Layers that take integers from 0, and the argument that is their number.
_SIZES = {"Embedding": "input_dim", "CategoryEncoding": "num_tokens"}


@dataclass(frozen=True)
class Kind:
    """The kind of the samples for a model.

    Attributes:
        vocabulary: Inputs of two axes are word indices below it, unless it is 0.
        are_words_of_steps: Whether inputs of three axes are words, too, those of each step.
        paddings: What layers mask in sequences of vectors.
        is_between_0_and_1: Whether numbers are uniform between 0 and 1. Otherwise they are normal,
            and functions such as logarithms are NaN for some of them.
    """

    vocabulary: int
    are_words_of_steps: bool
    paddings: Sequence[float]
    is_between_0_and_1: bool = False


def stored_kind(model: Any, stored: Config) -> Kind:
    """Return the kind of the samples for a model that was built from a stored configuration."""
    return Kind(
        min(_vocabulary_sizes(stored), default=0),
        _are_words_of_steps(stored),
        paddings_of(list(model._flatten_layers())),
    )


def paddings_of(layers: Sequence[Any]) -> list[float]:
    """Return the values that layers mask, or classes of the user that compute masks may mask."""
    masked: dict[float, None] = {}
    for layer in layers:
        if derives_from(layer, "Masking"):
            masked[float(layer.mask_value)] = None
    others: dict[float, None] = {}
    for layer in layers:
        cls = type(layer)
        if not is_own_class(cls) or is_of_library(cls.compute_mask.__module__ or ""):
            continue
        constants = getattr(getattr(cls.compute_mask, "__code__", None), "co_consts", ())
        for value in (0.0, *vars(layer).values(), *constants):
            if isinstance(value, int | float) and not isinstance(value, bool):
                others[float(value)] = None
    guessed = [value for value in others if value not in masked]
    return [*masked, *guessed[:_MOST_GUESSED]] or [0.0]


def padded_groups(tensors: Sequence[Any], kind: Kind) -> list[list[Array]]:
    """Return groups of seeded arrays for the inputs ``tensors``.

    Each input has each padding in some group, and in others another padding than the input next to
    it, if there are several.
    """
    count, paddings = len(tensors), list(kind.paddings)
    choices = [[padding] * count for padding in paddings]
    if len(paddings) > 1 and count > 1:
        turns = (paddings, paddings[1:] + paddings[:1])
        choices += [[turn[k % len(turn)] for k in range(count)] for turn in turns]
    return [padded_arrays(tensors, kind, padding) for padding in choices]


def padded_arrays(tensors: Sequence[Any], kind: Kind, paddings: Sequence[float]) -> list[Array]:
    """Return seeded arrays for the inputs ``tensors``, each with padding at the end of its rows.

    ``paddings`` are those of sequences of vectors, one for each input.
    """
    generator = np.random.default_rng(SEED)
    samples = []
    for index, (tensor, padding) in enumerate(zip(tensors, paddings, strict=True)):
        shape = (SAMPLES, *tensor.shape[1:])
        axes = (2, 3) if kind.are_words_of_steps else (2,)
        are_words = kind.vocabulary > 0 and len(shape) in axes
        if are_words:
            x = generator.integers(1, max(kind.vocabulary, 2), shape).astype("float64")
        elif kind.is_between_0_and_1:
            x = generator.uniform(size=shape)
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
