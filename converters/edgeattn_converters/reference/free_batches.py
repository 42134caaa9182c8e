"""Whether a model computes something else if the number of samples is free.

The code of a layer may read the shape of its input. While Keras traces a model for any number of
samples, the size of the first axis is None, and a layer may take another branch then, as it does to
infer shapes. ``model.predict`` traces once for the size of its batches, and for any number of
samples if the last batch is smaller.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Tensors
from edgeattn_converters.loading.training_mode import layers_with_user_code
from edgeattn_converters.reference.edge_cases import SEED
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.reference.traced_values import largest_change, traced_values
from edgeattn_converters.tracing.trace import Interface, trace

_ROWS = 4


def with_known_batch(model: Any, interface: Interface) -> tuple[Interface, tuple[str, ...]]:
    """Return the interface for one sample if a free number of samples changes values; and a note.

    Only code of the user can read the shape.
    """
    if interface.batch is not None or not layers_with_user_code(model):
        return interface, ()
    single = replace(interface, batch=1)
    inputs = plausible_inputs(model, interface, np.random.default_rng(SEED))
    inputs = {name: array[:_ROWS] for name, array in inputs.items()}
    free, fixed = (_values(model, item, inputs) for item in (interface, single))
    if free is None or fixed is None:
        return interface, ()
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


def _changes(first: Tensors, second: Tensors) -> dict[str, float]:
    changes = {name: largest_change(value, second[name]) for name, value in first.items()}
    return {name: change for name, change in changes.items() if change}


def _values(model: Any, interface: Interface, inputs: Tensors) -> list[Tensors] | None:
    """The values of single samples, computed twice; None if TensorFlow cannot compute them."""
    import tensorflow as tf

    try:
        # Not frozen, because dropout layers keep the state of their random numbers in variables.
        traced = trace(model, interface, batch=None, attention=False, freeze=False)
        return [traced_values(traced, inputs, 1) for _ in range(2)]
    except (UnsupportedModelError, tf.errors.OpError):
        return None  # which is reported where the reference is computed
