"""Sequences of other lengths with what Keras computes for them, if the model leaves it free."""

import numpy as np

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
# Half of the length, one step more, and twice the length.
_CHANGES = (
    lambda steps: max(1, steps // 2),
    lambda steps: steps + 1,
    lambda steps: min(2 * steps, LONGEST),
)


def other_lengths(
    free: FreeModel, inputs: Tensors, *, attention: bool, row_bytes: int
) -> dict[str, Array]:
    """Arrays for the reference, of the first rows of ``inputs`` cut or continued.

    ``row_bytes`` are those of a row of inputs, outputs and maps; fewer rows of long ones are used,
    and none of a longer sequence that exceeds :data:`MAX_BYTES` alone. Lengths that Keras itself
    cannot compute are left out; empty if too few remain.
    """
    own = {
        spec.name: inputs[spec.name].shape[1] for spec in free.interface.inputs if _is_free(spec)
    }
    if not own:
        return {}
    # Arrays are named by the length of the first input; the others change as it does.
    first = next(iter(own))
    run = keras_function(free.model, free.interface, attention=attention)
    arrays: dict[str, Array] = {}
    lengths: list[int] = []
    for changed in _CHANGES:
        other = {name: changed(size) for name, size in own.items()}
        length = other[first]
        if length in (own[first], *lengths) or any(size == own[n] for n, size in other.items()):
            continue
        # Maps of sequences grow with the square of the length.
        longer = max(max(1, size // own[name]) for name, size in other.items()) ** 2
        count = min(ROWS, MAX_BYTES // (row_bytes * longer))
        if not count and longer > 1:
            continue
        count = max(1, count)
        rows = {
            spec.name: _with_steps(inputs[spec.name], other[spec.name])[:count]
            if spec.name in other
            else inputs[spec.name][:count]
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


def _is_free(spec: TensorSpec) -> bool:
    return len(spec.shape) > 1 and spec.shape[1] is None


def _with_steps(array: Array, steps: int) -> Array:
    """The first :data:`ROWS` rows with ``steps``: cut, or continued with the steps of the next."""
    parts, length, row = [array[:ROWS]], array.shape[1], 0
    while length < steps:
        row += 1
        parts.append(np.roll(array, -row, axis=0)[:ROWS])
        length += array.shape[1]
    return np.ascontiguousarray(np.concatenate(parts, axis=1)[:, :steps])
