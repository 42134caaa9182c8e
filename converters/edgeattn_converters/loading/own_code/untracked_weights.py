"""Weights with which a model computes and which Keras does not save, because it does not find them.

Keras finds the layers in attributes of layers, and in lists and dictionaries there. A layer in a
global variable, a function or an object of another class is created again with random weights.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.own_code.hidden_layers import hidden_layers
from edgeattn_converters.loading.weights import own_loading

# Keras' name for the state of a random generator, one of which all calls without a seed share.
_SEED = "seed_generator_state"


@dataclass(frozen=True)
class UntrackedWeights:
    """Weights with which a model computes and which are not the model's.

    Attributes:
        remaining: those of layers that Keras does not find.
        created: the paths of those of layers that every call creates.
        are_constant: whether all of these have 0 or 1 as their only value in each call.
        without_value: the paths of those of the model that an attribute had until it was loaded.
    """

    remaining: list[Any]
    created: list[str]
    are_constant: bool
    without_value: list[str]


def untracked_weights(model: Any, call: Callable[[], Any]) -> UntrackedWeights:
    """Return the weights that ``call`` reads and that are not the model's.

    ``call`` calls the model.
    """
    known = {id(variable) for variable in model.variables}
    with _read_by_layers() as first:
        call()
    with _read_by_layers() as second:
        call()
    others = {key: item for key, item in first.items() if key not in known}
    created = [item for key, item in others.items() if key not in second]
    again = [item for key, item in second.items() if key not in known | first.keys()]
    return UntrackedWeights(
        [item for key, item in others.items() if key in second],
        list(dict.fromkeys(item.path for item in created)),
        all(map(_is_constant, (*created, *again))),
        [item.path for item in first.values() if own_loading.is_replaced(item)],
    )


def _is_constant(variable: Any) -> bool:
    """Whether the only value of a variable is 0 or 1, which no random initializer draws."""
    try:
        values = np.unique(np.asarray(variable))
    except Exception:  # one of a graph, whose value is unknown
        return False
    return len(values) == 1 and values[0] in (0, 1)


def require_tracked(model: Any, untracked: UntrackedWeights) -> None:
    """Raise :class:`UnsupportedModelError` if there are untracked weights of a model."""
    if untracked.created:
        created = (
            "A class of yours creates layers with weights in call(): "
            f"{enumerated(list(map(repr, untracked.created)))}."
        )
        if untracked.are_constant:
            raise UnsupportedModelError(
                f"{created} Each call has new ones, which always have their initial values, 0 or "
                "1: the model computes the same each time, but only outside of graphs.",
                hint="Replace the layer by one without weights and pass the same file; no training "
                "is needed. LayerNormalization(center=False, scale=False) computes the same. For "
                "BatchNormalization(), write x / (1 + epsilon) ** 0.5, for others what they "
                "compute with these values.",
            )
        raise UnsupportedModelError(
            f"{created} Each call has new ones, and no file contains them.",
            hint="Create the layer in __init__ of the class (self.dense = Dense(...)), train the "
            "model again and save it.",
        )
    if untracked.without_value:
        raise UnsupportedModelError(
            "load_own_variables of a class of yours sets an attribute in place of the weights "
            f"{enumerated(list(map(repr, untracked.without_value)))}, with which the class still "
            "computes: they have no values.",
            hint="Let it assign the values: self.NAME.assign(store[...])",
        )
    if not untracked.remaining:
        return
    paths = list(dict.fromkeys(variable.path for variable in untracked.remaining))
    hidden = {id(item) for _, layer in hidden_layers(model) for item in layer.variables}
    if all(id(variable) in hidden for variable in untracked.remaining):
        raise UnsupportedModelError(
            f"The file does not contain the weights {enumerated(list(map(repr, paths)))}: Keras "
            "does not list them, because the attribute with their layer was set otherwise than "
            "by self.NAME = layer. Only .keras and .weights.h5 files contain such weights.",
            hint="If the program still has the trained model, save it as .keras: "
            "model.save('model.keras'). Otherwise train it again.",
        )
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
