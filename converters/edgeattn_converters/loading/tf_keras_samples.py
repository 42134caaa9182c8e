"""Samples and outputs of a built model, for the comparison with tf_keras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn_converters.loading.comparison_samples import SAMPLES, padded_arrays
from edgeattn_converters.loading.fixed_time_axis import TimeSteps, length_of, with_sizes
from edgeattn_converters.loading.own_classes import is_of_library, is_own_class
from edgeattn_converters.loading.training_mode import FREE_AXIS

# A vocabulary for classes of the user that look up words.
_FEW_WORDS = 3
# Values of padding, each of which a comparison needs samples with.
_MOST_PADDINGS = 6


def sample_groups(
    model: Any, samples: Mapping[str, Any], time_steps: TimeSteps | None
) -> list[tuple[list[Any], list[Any]]]:
    """Return groups of samples for which a model computes outputs, with these."""
    layers = list(model._flatten_layers())
    tensors = [_Sized.of(tensor, time_steps) for tensor in model.inputs]
    words = [int(layer.input_dim) for layer in layers if _is_a(layer, "Embedding")]
    # A class of the user may look up words.
    candidates = [
        padded_arrays(
            tensors,
            vocabulary,
            are_words_of_steps=any(map(_looks_up_words_of_steps, layers)),
            padding=padding,
        )
        for vocabulary in ((min(words),) if words else (0, _FEW_WORDS))
        for padding in _paddings(layers)
    ]
    groups = []
    rows = np.arange(model.inputs[0].shape[0] or SAMPLES) % SAMPLES
    candidates = [[array[rows] for array in inputs] for inputs in candidates]
    for inputs in (*candidates, *_own_samples(model, samples)):
        try:
            groups.append((inputs, predict(model, inputs)))
        except Exception:  # such as a word that the model does not have
            continue
    return groups


@dataclass(frozen=True)
class _Sized:
    """Shape and dtype of an input of the model that is converted."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, tensor: Any, time_steps: TimeSteps | None) -> "_Sized":
        shape = with_sizes(tensor.shape, length_of(time_steps, tensor.name))
        return cls((1, *(axis or FREE_AXIS for axis in shape[1:])), tensor.dtype)


def _is_a(layer: Any, name: str) -> bool:
    return type(layer).__name__ == name


def _paddings(layers: Sequence[Any]) -> list[float]:
    """Return the values that layers mask, or classes of the user that compute masks may mask."""
    values: dict[float, None] = {}
    for layer in layers:
        if _is_a(layer, "Masking"):
            values[float(layer.mask_value)] = None
    for layer in layers:
        cls = type(layer)
        if not is_own_class(cls) or is_of_library(cls.compute_mask.__module__ or ""):
            continue
        constants = getattr(getattr(cls.compute_mask, "__code__", None), "co_consts", ())
        for value in (0.0, *vars(layer).values(), *constants):
            if isinstance(value, int | float) and not isinstance(value, bool):
                values[float(value)] = None
    return list(values)[:_MOST_PADDINGS] or [0.0]


def _looks_up_words_of_steps(layer: Any) -> bool:
    inner = layer.layer._flatten_layers() if _is_a(layer, "TimeDistributed") else ()
    return any(_is_a(item, "Embedding") for item in inner)


def _own_samples(model: Any, samples: Mapping[str, Any]) -> list[list[Any]]:
    """Return a group of a few samples of the user; none if they are not those of the inputs."""
    names = [tensor.name for tensor in model.inputs]
    if len(names) == len(samples) == 1:
        arrays = list(samples.values())
    elif names and set(names) <= set(samples):
        arrays = [samples[name] for name in names]
    else:
        return []
    rows = [np.asarray(array[:SAMPLES]) for array in arrays]
    return [[row.astype(tensor.dtype) for row, tensor in zip(rows, model.inputs, strict=True)]]


def predict(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a model, which is in its initial state, for a list of inputs."""
    import keras

    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()
    packed = keras.tree.pack_sequence_as(structure_of(model), list(inputs))
    return [np.asarray(x, "float64") for x in keras.tree.flatten(model(packed, training=False))]


def structure_of(model: Any) -> Any:
    """Return the inputs in the structure in which the model takes them; a Sequential has one."""
    return model._inputs_struct if hasattr(model, "_inputs_struct") else model.inputs[0]
