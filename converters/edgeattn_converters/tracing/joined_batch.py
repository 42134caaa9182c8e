"""Outputs whose first axis joins the samples with another axis, such as that of a set.

Layers that compute each element of a set, ``reshape(x, (-1, height, width, channels))``, and no
reshape behind them give ``(samples * elements, classes)``.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn.tensors import Array, Specs, Tensors
from edgeattn_converters.loading.fixed_time_axis import single_numbers
from edgeattn_converters.tracing.batch_axis import NotOfSamplesError, saving_code
from edgeattn_converters.tracing.keras_call import call, named_outputs

_SAMPLES = 3
_SEED = 0
# The largest difference between rows together and alone, as a part of that between samples.
_ROUNDING = 0.01


@contextlib.contextmanager
def explained(model: Any, inputs: Specs) -> Iterator[None]:
    """Let errors about the first axis of an output contain the code that changes the model.

    ``inputs`` have a free batch axis only. The code is in the error if, for random inputs, the rows
    of an output for several samples are those of each sample, one after the other.
    """
    try:
        yield
    except NotOfSamplesError as error:
        hint = single_numbers(inputs) or _step(model, inputs)
        if hint is None:
            raise
        raise NotOfSamplesError(error.message, hint=hint) from error


def _step(model: Any, inputs: Specs) -> str | None:
    """How to give joined outputs an axis of samples; None if an output is something else."""
    arrays = _random(inputs)
    try:
        result, together = _computed(model, inputs, arrays)
        alone = [
            _computed(model, inputs, {name: x[k : k + 1] for name, x in arrays.items()})[1]
            for k in range(_SAMPLES)
        ]
    except UnsupportedModelError:
        return None  # random values may not be valid inputs
    shapes, counts = {}, {}
    for place, (name, value) in enumerate(together.items()):
        parts = [values[name] for values in alone]
        if not _is_joined(value, parts):
            return None
        if len(parts[0]) > 1:
            counts[name] = len(parts[0])
            shapes[place] = (-1, *parts[0].shape)
    if not shapes:
        return None
    name, count = next(iter(counts.items()))
    code = saving_code(model, result, dict(enumerate(together)), inputs, shapes)
    return (
        f"The first axis of {name!r} has {counted(count, 'row')} for each sample, one sample after "
        "the other. Load the model, give it an axis of samples, and convert model2.keras: "
        f"{code}"
    )


def _is_joined(together: Array, alone: list[Array]) -> bool:
    """Whether the rows of several samples are those of each one, in the order of the samples."""
    if not all(part.ndim and part.shape == alone[0].shape for part in alone):
        return False
    joined = np.concatenate(alone)
    if joined.shape != together.shape or not np.isfinite(joined).all():
        return False
    error = np.abs(joined - together).max()
    # Rows of equal samples do not show the order, nor whether a sample depends on others.
    spread = min(np.abs(alone[k] - alone[k - 1]).max() for k in range(len(alone)))
    return bool(error <= _ROUNDING * spread and np.allclose(joined, together, rtol=1e-3, atol=1e-5))


def _computed(model: Any, inputs: Specs, arrays: Tensors) -> tuple[Any, dict[str, Array]]:
    """What a model returns, and its outputs by name."""
    import tensorflow as tf

    result = call(model, tuple(tf.constant(arrays[spec.name]) for spec in inputs))
    named = named_outputs(model, result, [spec.name for spec in inputs])
    return result, {name: np.asarray(value) for name, value in named}


def _random(inputs: Specs) -> dict[str, Array]:
    """Random samples; integers are 0 or 1, which are tokens of every vocabulary."""
    generator = np.random.default_rng(_SEED)
    arrays = {}
    for spec in inputs:
        shape = (_SAMPLES, *(axis or 1 for axis in spec.shape[1:]))
        dtype = np.dtype(spec.dtype)
        values = generator.normal(size=shape)
        arrays[spec.name] = (values if dtype.kind == "f" else values > 0).astype(dtype)
    return arrays
