"""Whether a model computes something else if the number of samples is free.

The code of a layer may read the shape of its input. While Keras traces a model for any number of
samples, the size of the first axis is None, and a layer may take another branch then, as it does to
infer shapes. ``model.predict`` traces once for the size of its batches, and for any number of
samples if the last batch is smaller.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn.tensors import Tensors
from edgeattn_converters.loading.training_mode import layers_with_user_code
from edgeattn_converters.reference.edge_cases import SEED
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.reference.traced_values import largest_change, traced_values
from edgeattn_converters.tracing import known_batch
from edgeattn_converters.tracing.batch_axis import CombinedSamplesError
from edgeattn_converters.tracing.trace import PROBE_BATCH, Interface, trace

_ROWS = 4
# Samples of a batch that are computed alone, too.
_ALONE = 8
# Samples of which a batch contains copies.
_COPIED = 2


def with_known_batch(model: Any, interface: Interface) -> tuple[Interface, tuple[str, ...]]:
    """Return the interface for one sample if a free number of samples changes values; and a note.

    Only code of the user can read the shape. Raises :class:`UnsupportedModelError` if a model that
    needs the number of samples computes something else for another number.
    """
    if interface.any_batch:
        inputs = plausible_inputs(model, interface, np.random.default_rng(SEED))
        return interface, (require_equal_alone(model, interface, inputs),)
    if interface.batch is not None or not layers_with_user_code(model):
        return interface, ()
    single = replace(interface, batch=1)
    inputs = plausible_inputs(model, interface, np.random.default_rng(SEED))
    inputs = {name: array[:_ROWS] for name, array in inputs.items()}
    free, fixed = (_values(model, item, inputs) for item in (interface, single))
    if free is None or fixed is None:
        return interface, ()
    if not _computes_several(model, interface, inputs, fixed):
        return single, (
            "Keras computes single samples only, because a layer reshapes to one or reads their "
            "number; the files compute one sample at a time, and are compared with Keras for "
            "single samples",
        )
    changes = _changes(fixed[0], free[0])
    # Random numbers at inference are another reason.
    if not changes or _changes(fixed[0], fixed[1]):
        return interface, ()
    name = max(changes, key=lambda item: changes[item])
    return single, (
        f"in Keras, {name!r} has other values (by up to {changes[name]:.2g}) if the model is "
        "traced for any number of samples, because a layer reads the shape of its input; the "
        "files compute one sample at a time, and are compared with Keras for single samples",
    )


def require_equal_alone(model: Any, interface: Interface, inputs: Tensors) -> str:
    """Return a note that samples in a batch have the outputs that they have alone.

    ``model`` needs the number of samples while it is traced. Raises
    :class:`UnsupportedModelError` if outputs of a sample depend on that number, or on the others.
    """
    count = known_batch.declared(model) or PROBE_BATCH
    rows = np.arange(count) % len(next(iter(inputs.values())))
    batch = {name: array[rows] for name, array in inputs.items()}
    alone = trace(model, interface, batch=1, attention=False, freeze=False)
    together = trace(model, interface, batch=count, attention=False, freeze=False)
    expected = traced_values(together, batch)
    for row in range(min(count, _ALONE)):
        one = {name: array[row : row + 1] for name, array in batch.items()}
        for name, value in traced_values(alone, one).items():
            beside = expected[name][row : row + 1]
            change = largest_change(value, beside)
            if change or not np.array_equal(np.isfinite(value), np.isfinite(beside)):
                raise _dependent(name, change, count)
    return (
        "a layer needs the number of samples of a batch: Keras was run with one at a time, and "
        f"computes the same for samples in batches of {count}"
    )


def _computes_several(
    model: Any, interface: Interface, inputs: Tensors, alone: Sequence[Tensors]
) -> bool:
    """Return whether Keras computes several of the samples together, each as it does alone.

    ``alone`` are the values of samples that are the only ones of their batches, computed twice.
    Each sample is compared with copies of itself, so it does not matter if samples are combined.
    Raises :class:`UnsupportedModelError` if outputs depend on a number of samples that is read
    while tracing. A number that the graph computes is the same for a free batch, and so is no such
    number.
    """
    rows = np.repeat(range(_COPIED), PROBE_BATCH)
    copies = {name: array[rows] for name, array in inputs.items()}
    known = _values(model, replace(interface, batch=PROBE_BATCH), copies, PROBE_BATCH)
    # Random numbers at inference are another reason.
    if known is not None and not _changes(*alone):
        changes = _changes(
            {name: value[:_COPIED] for name, value in alone[0].items()},
            {name: value[::PROBE_BATCH] for name, value in known[0].items()},
        )
        free = _values(model, interface, copies, PROBE_BATCH) if changes else None
        if changes and (free is None or _changes(known[0], free[0])):
            name = max(changes, key=lambda item: changes[item])
            raise _dependent(name, changes[name], PROBE_BATCH)
    return known is not None or _values(model, interface, copies, PROBE_BATCH) is not None


def _dependent(name: str, change: float, count: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Output {name!r} of a sample depends on the samples beside it or on their number: it "
        f"differs by up to {change:.2g} between a batch of {counted(count, 'sample')} and a sample "
        "alone, and files for devices compute one sample at a time.",
        hint="Compute each sample by itself: without a mean or sum over the first axis, or a "
        "factor that depends on its size.",
    )


def _changes(first: Tensors, second: Tensors) -> dict[str, float]:
    changes = {name: largest_change(value, second[name]) for name, value in first.items()}
    return {name: change for name, change in changes.items() if change}


def _values(
    model: Any, interface: Interface, inputs: Tensors, batch_size: int = 1
) -> list[Tensors] | None:
    """The values in batches, computed twice; None if TensorFlow cannot compute them."""
    import tensorflow as tf

    try:
        # Not frozen, because dropout layers keep the state of their random numbers in variables.
        traced = trace(model, interface, batch=None, attention=False, freeze=False)
        return [traced_values(traced, inputs, batch_size) for _ in range(2)]
    except CombinedSamplesError:
        raise
    except (UnsupportedModelError, tf.errors.OpError):
        return None  # which is reported where the reference is computed
