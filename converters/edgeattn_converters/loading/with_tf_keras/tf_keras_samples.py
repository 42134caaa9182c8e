"""Samples and outputs of a built model, for the comparison with tf_keras."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn_converters.keras_classes import derives_from, is_stateful
from edgeattn_converters.loading.comparison_samples import (
    SAMPLES,
    Kind,
    padded_groups,
    paddings_of,
)
from edgeattn_converters.loading.fixed_time_axis import TimeSteps, length_of, with_sizes
from edgeattn_converters.loading.output_differences import unknown_outputs
from edgeattn_converters.loading.training_mode import FREE_AXIS

# A vocabulary for classes of the user that look up words.
_FEW_WORDS = 3


def sample_groups(
    model: Any, samples: Mapping[str, Any], time_steps: TimeSteps | None
) -> list[tuple[list[Any], list[Any]]]:
    """Return groups of samples for which a model computes outputs, with these.

    The groups are single samples if it computes no others, as one that reshapes to a batch of one.
    """
    number = model.inputs[0].shape[0] or SAMPLES
    groups = _groups(model, samples, time_steps, [np.arange(number) % SAMPLES])
    return groups or _groups(model, samples, time_steps, np.arange(SAMPLES)[:, None])


def _groups(
    model: Any, samples: Mapping[str, Any], time_steps: TimeSteps | None, batches: Iterable[Any]
) -> list[tuple[list[Any], list[Any]]]:
    """Return groups as :func:`sample_groups` does; ``batches`` are the rows of each one."""
    tensors = [Sized.of(tensor, time_steps) for tensor in model.inputs]
    kinds = kinds_of(list(model._flatten_layers()))

    def computed(candidates: Iterable[list[Any]]) -> list[tuple[list[Any], list[Any]]]:
        # The user may have fewer samples.
        chosen = (
            [array[rows % len(array)] for array in inputs]
            for inputs in candidates
            for rows in batches
        )
        return _computed(model, chosen)

    def generated(kinds: Iterable[Kind]) -> Iterable[list[Any]]:
        return (group for kind in kinds for group in padded_groups(tensors, kind))

    groups = computed(generated(kinds))
    if unknown_outputs([outputs for _, outputs in groups]):
        groups += computed(generated(replace(kind, is_between_0_and_1=True) for kind in kinds))
    return groups + computed(_own_samples(model, samples))


def kinds_of(layers: Sequence[Any]) -> list[Kind]:
    """Return the kinds of samples for a model with these layers, of Keras 3 or of tf_keras."""
    words = [int(layer.input_dim) for layer in layers if derives_from(layer, "Embedding")]
    # A class of the user may look up words.
    vocabularies = (min(words),) if words else (0, _FEW_WORDS)
    of_steps, paddings = any(map(_looks_up_words_of_steps, layers)), paddings_of(layers)
    return [Kind(vocabulary, of_steps, paddings) for vocabulary in vocabularies]


def _computed(model: Any, candidates: Iterable[list[Any]]) -> list[tuple[list[Any], list[Any]]]:
    groups = []
    for inputs in candidates:
        try:
            groups.append((inputs, predict(model, inputs)))
        except Exception:  # such as a word that the model does not have
            continue
    return groups


@dataclass(frozen=True)
class Sized:
    """Shape and dtype of an input of the model that is converted."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, tensor: Any, time_steps: TimeSteps | None) -> "Sized":
        shape = with_sizes(tensor.shape, length_of(time_steps, tensor.name))
        return cls((1, *(axis or FREE_AXIS for axis in shape[1:])), tensor.dtype)


def _looks_up_words_of_steps(layer: Any) -> bool:
    inner = layer.layer._flatten_layers() if derives_from(layer, "TimeDistributed") else ()
    return any(derives_from(item, "Embedding") for item in inner)


def _own_samples(model: Any, samples: Mapping[str, Any]) -> list[list[Any]]:
    """Return a group of a few samples of the user; none if they are not those of the inputs."""
    names = [tensor.name for tensor in model.inputs]
    if len(names) == len(samples) == 1:
        arrays = list(samples.values())
    elif names and set(names) <= set(samples):
        arrays = [samples[name] for name in names]
    else:
        return []
    if not all(map(len, arrays)):
        return []
    rows = [np.asarray(array[:SAMPLES]) for array in arrays]
    return [[row.astype(tensor.dtype) for row, tensor in zip(rows, model.inputs, strict=True)]]


def predict(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a model, which is in its initial state, for a list of inputs."""
    import keras

    for layer in model._flatten_layers():
        if is_stateful(layer) and hasattr(layer, "reset_state"):
            layer.reset_state()
    packed = keras.tree.pack_sequence_as(structure_of(model), list(inputs))
    return [np.asarray(x, "float64") for x in keras.tree.flatten(model(packed, training=False))]


def structure_of(model: Any) -> Any:
    """Return the inputs in the structure in which the model takes them; a Sequential has one."""
    return model._inputs_struct if hasattr(model, "_inputs_struct") else model.inputs[0]
