"""Assignment of arrays to the variables of a model, with checks of shape and completeness."""

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.config_inspection import Config, layer_name
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.migrate.context import safe_name
from edgeattn_converters.loading.weights.pruned_weights import apply_masks
from edgeattn_converters.loading.weights.skipped_attributes import skipped_error

Array = np.ndarray[Any, Any]
MISMATCH = "Save the model again: weights and architecture in the file do not match."
# For weights in a file of their own.
OTHER_ARCHITECTURE = (
    "Check that --architecture builds the layers whose weights were saved, with the same sizes. If "
    "it does, the Keras that saved them has another order of weights: load them into the program "
    "there, and convert the folder that model.export('folder') writes."
)


@contextlib.contextmanager
def recorded_assignments() -> Iterator[list[Any]]:
    """Within the context, record the variables of Keras that get a value."""
    from keras.src.backend import Variable

    assigned: list[Any] = []
    assign = Variable.assign

    def recording(variable: Any, value: Any) -> Any:
        assigned.append(variable)
        return assign(variable, value)

    with mock.patch.object(Variable, "assign", recording):
        yield assigned


class Assignment:
    """Assigns arrays to the variables of one model, and records which ones have a value.

    Raises :class:`UnsupportedModelError` if numbers or shapes of variables and arrays differ.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._assigned: set[int] = set()
        # By a layer that contains theirs; a file may have other values for them, which count.
        self._assigned_from_outside: set[int] = set()
        self._masks: list[tuple[Any, Sequence[Array]]] = []

    def assign(self, variable: Any, value: Array, layer: str) -> None:
        """Assign a value to a variable of a layer."""
        if (convert := getattr(variable, "from_stored", None)) is not None:
            value = convert(value)
        if tuple(variable.shape) != tuple(value.shape):
            raise Keras3ModelError(
                f"Layer {layer!r} has weights of shape {tuple(variable.shape)}, the file contains "
                f"{tuple(value.shape)}.",
                hint=MISMATCH,
            )
        before = self._assigned_values([variable])
        variable.assign(value)
        _require_same(before, layer)
        self._assigned.add(id(variable))

    def assign_all(self, layer: Any, variables: Sequence[Any], values: Sequence[Array]) -> None:
        """Assign values to the variables of a layer in order."""
        if len(variables) != len(values):
            raise Keras3ModelError(
                f"Layer {layer.name!r} has {counted(len(variables), 'weight array')}: "
                f"{[tuple(variable.shape) for variable in variables]}, the file contains "
                f"{len(values)}: {[value.shape for value in values]}.",
                hint=MISMATCH,
            )
        for variable, value in zip(variables, values, strict=True):
            self.assign(variable, value, layer.name)

    def load(self, layer: Any, variables: Sequence[Any], load: Callable[[], list[Any]]) -> None:
        """Let a layer load its variables itself, and record those that ``load`` returns."""
        before = self._assigned_values(variables)
        loaded = {id(variable) for variable in load()}
        own = {id(variable) for variable in variables}
        self._assigned |= loaded & own
        self._assigned_from_outside |= loaded - own
        _require_same(before, layer.name)

    def prune(self, layer: Any, masks: Sequence[Array]) -> None:
        """Multiply the pruned weights of a layer by masks, when all weights have values."""
        self._masks.append((layer, masks))

    def _assigned_values(self, variables: Sequence[Any]) -> list[tuple[Any, Array]]:
        """Return the variables that have a value, with a copy of it."""
        return [(item, np.asarray(item).copy()) for item in variables if id(item) in self._assigned]

    def lacks(self, variables: Sequence[Any]) -> bool:
        """Return whether a variable has no value yet."""
        with_values = self._assigned | self._assigned_from_outside
        return any(id(variable) not in with_values for variable in variables)

    def require_complete(self) -> None:
        """Raise :class:`UnsupportedModelError` if a variable of the model has no value."""
        require_values(self.model, self._assigned | self._assigned_from_outside)
        for layer, masks in self._masks:
            apply_masks(own_layer(layer), masks)
        finalize_normalization(self.model)


def _require_same(before: Sequence[tuple[Any, Array]], layer: str) -> None:
    """Raise :class:`UnsupportedModelError` if variables of a layer have other values than before.

    The file then has several layers in place of one of the model.
    """
    if any(value.tobytes() != np.asarray(variable).tobytes() for variable, value in before):
        raise UnsupportedModelError(
            f"Layer {layer!r} is one layer in the model that was built from the file, in which it "
            "is stored several times, with different weights.",
            hint="Let your class create as many layers as it had when the model was saved.",
        )


def require_values(model: Any, from_file: Container[int]) -> None:
    """Raise :class:`UnsupportedModelError` if a variable of the model is not from the file.

    ``from_file`` are the ids of those that are.
    """
    missing = [variable for variable in model.weights if id(variable) not in from_file]
    if missing:
        name = getattr(missing[0], "path", missing[0].name)
        raise skipped_error(model, missing) or Keras3ModelError(
            f"The file has no weights for {len(missing)} of "
            f"{counted(len(model.weights), 'variable')}, such as {name!r}.",
            hint="Save the whole trained model: model.save('model.keras')",
        )


def finalize_normalization(model: Any) -> None:
    """Let Normalization layers compute with the mean and variance in their variables.

    They use copies, which Keras creates when it loads such a layer itself.
    """
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def find_layer(model: Any, item: Config) -> Any:
    """Return the layer of a built model for its stored config, None if there is none."""
    name = safe_name(layer_name(item))
    return next((layer for layer in model.layers if layer.name == name), None)


def is_input(layer: Any) -> bool:
    """Return whether a layer is an input, which may be in place of a preprocessing layer."""
    import keras

    return isinstance(layer, keras.layers.InputLayer)


def own_layer(layer: Any) -> Any:
    """Return the layer that a file stores, for a layer that wraps its channels-last counterpart."""
    of_edgeattn = type(layer).__module__.startswith("edgeattn_converters.")
    return getattr(layer, "channels_last", layer) if of_edgeattn else layer
