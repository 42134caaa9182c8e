"""Sequences of other lengths with what Keras computes for them, if the model leaves it free."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn.validation.lengths import with_length
from edgeattn_converters.reference.keras_outputs import keras_function
from edgeattn_converters.tracing.free_time import FreeModel

ROWS = 4
# Bytes of all arrays of one length before they are compressed.
MAX_BYTES = 4 * 2**20
# A file is one of any length only if this many others give the results of Keras.
FEWEST = 2
# No longer sequences are computed than this one, or one step more than the model's.
LONGEST = 2_000
# Half of the length, one step more, and twice the length, or two more of a single step: the step
# form of a decoder has other lengths too.
_CHANGES = (
    lambda steps: max(1, steps // 2),
    lambda steps: steps + 1,
    lambda steps: min(max(2 * steps, steps + 2), LONGEST),
)


def other_lengths(
    free: FreeModel, inputs: Tensors, *, attention: bool, row_bytes: int, alone: bool = False
) -> dict[str, Array]:
    """Arrays for the reference, of the first rows of ``inputs`` cut or continued.

    ``row_bytes`` are those of a row of inputs, outputs and maps; fewer rows of long ones are used,
    and none of a longer sequence that exceeds :data:`MAX_BYTES` alone. Lengths that Keras itself
    cannot compute are left out; empty if too few remain. If ``alone``, no sample is in a batch with
    others.
    """
    own = {
        spec.name: {axis: inputs[spec.name].shape[axis] for axis in _free_axes(spec)}
        for spec in free.interface.inputs
        if _free_axes(spec)
    }
    if not own:
        return {}
    # Arrays are named by the length of the first input; the others change as it does.
    first = next(iter(own))
    named_axis = next(iter(own[first]))
    try:
        run = replace(keras_function(free.model, free.interface, attention=attention), alone=alone)
    except UnsupportedModelError:
        return {}  # layers that need the sizes of their inputs, as UpSampling2D of Keras 3 does
    arrays: dict[str, Array] = {}
    lengths: list[int] = []
    for number in range(len(_CHANGES)):
        other = {name: _changed(sizes, number) for name, sizes in own.items()}
        length = other[first][named_axis]
        same = any(
            size == own[n][axis] for n, sizes in other.items() for axis, size in sizes.items()
        )
        if same or length in lengths:
            continue
        # Maps of sequences grow with the square of the length.
        growth = (
            math.prod(sizes.values()) // math.prod(own[n].values()) for n, sizes in other.items()
        )
        longer = max(1, *growth) ** 2
        count = min(ROWS, MAX_BYTES // (row_bytes * longer))
        if not count and longer > 1:
            continue
        count = max(1, count)
        rows = {
            spec.name: _with_sizes(inputs[spec.name], other.get(spec.name, {}))[:count]
            for spec in free.interface.inputs
        }
        try:
            values = run(rows)
        except Exception:  # Keras raises errors of many classes if a length does not fit
            continue
        if not all(np.isfinite(value).all() for value in values.all.values()):
            continue
        lengths.append(length)
        arrays |= with_length(
            {
                **{f"input/{name}": value for name, value in rows.items()},
                **{f"output/{name}": value for name, value in values.outputs.items()},
                **values.maps,
            },
            length,
        )
    return arrays if len(lengths) >= FEWEST else {}


def _free_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if axis and size is None]


def _changed(sizes: Mapping[int, int], number: int) -> dict[int, int]:
    """The sizes of free axes after a change; the first axis changes in another way than the rest.

    So the height and the width of images differ, which a file may mix up.
    """
    first = next(iter(sizes))
    return {
        axis: _CHANGES[number if axis == first else -1 - number](size)
        for axis, size in sizes.items()
    }


def _with_sizes(array: Array, sizes: Mapping[int, int]) -> Array:
    """The first :data:`ROWS` rows with other sizes of axes, each cut or continued."""
    for axis, size in sizes.items():
        array = _with_size(array, axis, size)
    return array[:ROWS]


def _with_size(array: Array, axis: int, size: int) -> Array:
    """The first :data:`ROWS` rows with one axis cut, or continued with that of the next rows."""
    parts, length, row = [array[:ROWS]], array.shape[axis], 0
    while length < size:
        row += 1
        parts.append(np.roll(array, -row, axis=0)[:ROWS])
        length += array.shape[axis]
    return np.concatenate(parts, axis=axis).take(np.arange(size), axis=axis)
