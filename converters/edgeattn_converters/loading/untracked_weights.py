"""Weights with which a model computes and which Keras does not save, because it does not find them.

Keras finds the layers in attributes of layers, and in lists and dictionaries there. A layer in a
global variable, a function or an object of another class is created again with random weights.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated

# Keras' name for the state of a random generator, one of which all calls without a seed share.
_SEED = "seed_generator_state"


def untracked_weights(model: Any, call: Callable[[], Any]) -> list[str]:
    """Return the paths of weights that ``call`` reads and that are not the model's.

    ``call`` calls the model.
    """
    known = {id(variable) for variable in model.variables}
    with _read_by_layers() as first:
        call()
    with _read_by_layers() as second:
        call()
    # Layers that are created in each call have no trained weights.
    common = [variable for key, variable in first.items() if key in second and key not in known]
    return list(dict.fromkeys(variable.path for variable in common))


def require_tracked(paths: Sequence[str]) -> None:
    """Raise :class:`UnsupportedModelError` if there are untracked weights."""
    if not paths:
        return
    raise UnsupportedModelError(
        f"Keras does not list the weights {enumerated(list(map(repr, paths)))} of the model, "
        "because their layer is not in an attribute of a layer or model. Files lack their values, "
        "which are random ones in each process.",
        hint="Create the layer in __init__ of the class that calls it (self.dense = Dense(...)), "
        "train the model again and save it.",
    )


@contextlib.contextmanager
def _read_by_layers() -> Iterator[dict[int, Any]]:
    """Return the weights of layers whose values are read within the context, by id."""
    from keras.src.backend.common.variables import Variable

    read: dict[int, Any] = {}
    value = Variable.value.fget

    def recorded(variable: Any) -> Any:
        # A variable that no layer creates has no scope, such as a constant.
        if "/" in variable.path and variable.name != _SEED:
            read[id(variable)] = variable
        return value(variable)

    with mock.patch.object(Variable, "value", property(recorded)):
        yield read
