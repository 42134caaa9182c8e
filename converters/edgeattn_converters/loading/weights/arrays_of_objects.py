"""The arrays of one object in ``.keras`` and ``.weights.h5`` files, in order or loaded by Keras."""

from typing import Any

from edgeattn.printable import enumerated
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.quantized_layers import check_complete, quantize_as_stored
from edgeattn_converters.loading.weights.assignment import (
    MISMATCH,
    Assignment,
    recorded_assignments,
)
from edgeattn_converters.loading.weights.dropped_variables import dropped_error


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer without those of layers inside, in the order of files."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def assign(group: Any, layer: Any, assignment: Assignment) -> None:
    """Assign the arrays of a group in a file to the variables of a layer."""
    values = {key: hdf5.array(group[key]) for key in group}
    are_numbered = all(key.isdigit() for key in values)
    if are_numbered and len(values) != len(own_variables(layer)):
        quantize_as_stored(layer, [values[key] for key in sorted(values, key=int)])
    variables = own_variables(layer)
    check_complete(layer, len(values), len(variables))
    if _has_own_order(layer, len(values)):
        assignment.load(layer, variables, lambda: _load_own(layer, values))
        return
    if not are_numbered:
        name = type(layer).__name__
        raise Keras3ModelError(
            f"The file has names for the arrays of layer {layer.name!r}: "
            f"{enumerated(sorted(values))}. The class {name} has no load_own_variables for them.",
            hint=f"Pass {name} as it was when the model was saved: --custom-objects FILE.py",
        )
    ordered = [values[key] for key in sorted(values, key=int)]
    assignment.assign_all(layer, variables, ordered)


def _has_own_order(layer: Any, count: int) -> bool:
    """Return whether a class of Keras loads its ``count`` variables by a method of its own.

    It reads the variables of that layer only, and none that a class of the user has added. They are
    stored in order.
    """
    import keras

    if type(layer).load_own_variables is keras.layers.Layer.load_own_variables:
        return False
    return not (is_own_class(type(layer)) and count == len(own_variables(layer)))


def _load_own(layer: Any, values: dict[str, Any]) -> list[Any]:
    """Let a layer of Keras load its variables, and return those that got values.

    Raises :class:`UnsupportedModelError` if shapes differ.
    """
    import keras

    variables = own_variables(layer)
    shapes = [tuple(variable.shape) for variable in variables]
    stored = [values[key].shape for key in sorted(values)]
    try:
        with recorded_assignments() as assigned:
            layer.load_own_variables(values)
    except ValueError as error:
        raise dropped_error(layer, variables, stored) or Keras3ModelError(
            f"Layer {layer.name!r} has weights of the shapes {shapes}, the file contains {stored}.",
            hint=MISMATCH,
        ) from error
    others = [item for item in own_variables(layer) if not isinstance(item, keras.Variable)]
    return [*assigned, *others]
