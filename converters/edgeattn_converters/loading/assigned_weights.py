"""Weights that layers assign in inference mode, whenever they are called.

A file computes the same for every sample, so it has the value that such a weight keeps: that of a
kernel that ``call`` multiplies by a mask, as in PixelCNN, is the masked kernel. A value that each
call changes, or that depends on the inputs, has no place in a file.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading import training_mode
from edgeattn_converters.loading.weights.assignment import recorded_assignments

# Iterations towards a fixed point, such as that of the norm of a kernel, are done by calls.
_MAX_CALLS = 50
_TOLERANCE = 1e-6
_KEEPS_VALUE = "_edgeattn_keeps_value"


def keep_values(model: Any) -> tuple[str, ...]:
    """Call a model until the weights that its layers assign keep their values; return a note.

    Raises :class:`UnsupportedModelError` if they do not.
    """
    if not training_mode.layers_with_user_code(model) or not getattr(model, "inputs", None):
        return ()
    calls = [training_mode.call_of(model, limits) for limits in training_mode.LIMITS[:2]]
    try:
        with recorded_assignments() as assigned:
            calls[0]()
    except Exception:  # the conversion reports why the model cannot be run
        return ()
    weights = set(map(id, model.weights))
    changing = {id(item): item for item in assigned if id(item) in weights}.values()
    if not changing:
        return ()
    paths = enumerated([repr(item.path) for item in changing])
    values = _values(changing)
    for number in range(1, _MAX_CALLS + 1):
        # In turn with other inputs, on which the values must not depend.
        calls[number % 2]()
        before, values = values, _values(changing)
        if all(map(_are_equal, before, values)):
            break
    else:
        raise UnsupportedModelError(
            f"Each call of the model in inference mode changes its weights {paths}, so that its "
            "outputs depend on the calls before. No artifact can reproduce that.",
            hint="Let the layer assign them in training only, if training: in call(self, inputs, "
            "training=False), and pass the program: --custom-objects FILE.py",
        )
    for variable in changing:
        setattr(variable, _KEEPS_VALUE, True)
    after = "the first call" if number == 1 else f"{number} calls"
    return (
        f"The layers assign {paths} whenever they are called. The artifacts contain the values "
        f"after {after}, which other calls do not change.",
    )


def keeps_value(variable: Any) -> bool:
    """Return whether a weight that calls assign keeps its value."""
    return getattr(variable, _KEEPS_VALUE, False)


def _values(variables: Iterable[Any]) -> list[Any]:
    return [np.array(variable, "float64") for variable in variables]


def _are_equal(first: Any, second: Any) -> bool:
    largest = float(np.abs(first).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) <= _TOLERANCE * largest)
