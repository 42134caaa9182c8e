"""Weights with which a model computes and which Keras does not save, because it does not find them.

Keras finds the layers in attributes of layers, and in lists and dictionaries there. A layer in a
global variable, a function or an object of another class is created again with random weights.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated

# Keras' name for the state of a random generator, one of which all calls without a seed share.
_SEED = "seed_generator_state"


@dataclass(frozen=True)
class UntrackedWeights:
    """Paths of weights with which a model computes and which are not the model's.

    Attributes:
        remaining: those of layers that Keras does not find.
        created: those of layers that every call creates.
    """

    remaining: list[str]
    created: list[str]


def untracked_weights(model: Any, call: Callable[[], Any]) -> UntrackedWeights:
    """Return the weights that ``call`` reads and that are not the model's.

    ``call`` calls the model.
    """
    known = {id(variable) for variable in model.variables}
    with _read_by_layers() as first:
        call()
    with _read_by_layers() as second:
        call()
    others = [(key in second, item.path) for key, item in first.items() if key not in known]
    return UntrackedWeights(
        *(
            list(dict.fromkeys(path for is_same, path in others if is_same is remains))
            for remains in (True, False)
        )
    )


def require_tracked(untracked: UntrackedWeights) -> None:
    """Raise :class:`UnsupportedModelError` if there are untracked weights."""
    if untracked.created:
        raise UnsupportedModelError(
            f"A class of yours creates layers with weights in call(): "
            f"{enumerated(list(map(repr, untracked.created)))}. Each call has new random ones, and "
            "no file contains them.",
            hint="Create the layer in __init__ of the class (self.dense = Dense(...)), train the "
            "model again and save it.",
        )
    paths = untracked.remaining
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
