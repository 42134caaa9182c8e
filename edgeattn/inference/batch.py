"""A model on a batch of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.inference.model import Model


def predict(model: Model, samples: Array | Mapping[str, Array]) -> Tensors:
    """The outputs of ``model`` by name for a batch, see :meth:`Model.predict`.

    A file with a fixed batch size above 1 gets as many samples at once. The last samples are
    repeated to fill it, and the outputs for the repeated ones are left out.
    """
    batch = {name: np.asarray(array) for name, array in _by_name(model, samples).items()}
    counts = {name: len(array) if array.ndim else 0 for name, array in batch.items()}
    count = next(iter(counts.values()), 0)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {number}" for name, number in counts.items())
        raise SampleError(f"The inputs have different numbers of samples ({listed}).")
    if not count:
        raise SampleError("There is no sample.", hint="Pass arrays with the sample axis first.")
    size = model.inputs[0].shape[0] or 1
    parts: list[Tensors] = []
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)
        outputs = model({name: array[rows] for name, array in batch.items()})
        kept = min(size, count - first)
        parts.append({name: array[:kept].copy() for name, array in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _by_name(model: Model, samples: Array | Mapping[str, Array]) -> Mapping[str, Array]:
    if isinstance(samples, Mapping):
        return samples
    names = [spec.name for spec in model.inputs if spec.state is None]
    if len(names) > 1:
        raise SampleError(f"The model has several inputs. Pass a mapping with: {', '.join(names)}.")
    return {names[0]: samples}
