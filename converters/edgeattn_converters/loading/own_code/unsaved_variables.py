"""Variables in code of the user that are not weights, which Keras 3 does not save."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading import training_mode
from edgeattn_converters.loading.config_inspection import PACKAGE
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.own_code.hidden_layers import in_attribute
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights import own_loading


def unsaved_notes(model: Any, build: Callable[[], Any], *, are_loaded: bool = False) -> list[str]:
    """Return a note on variables that the file lacks and the class creates again.

    ``build`` builds the model again. Layers that load their arrays themselves may set variables;
    ``are_loaded`` is whether they have, and only they are checked then. Raises
    :class:`UnsupportedModelError` if the values of the two differ, because the trained ones are
    lost.
    """
    unsaved = _variables(model, are_loaded=are_loaded)
    if not unsaved:
        return []
    others = _variables(build())
    for key, (name, value) in unsaved.items():
        _, other = others.get(key, (name, None))
        if other is None or not np.array_equal(value, other, equal_nan=True):
            raise Keras3ModelError(
                f"The file does not contain {name}: it is a tf.Variable, which Keras 3 does not "
                "save, and its values are other ones whenever it is created.",
                hint="Create it with self.add_weight(...), train the model again and save it. If "
                "the program still has the trained model, assign its values before saving.",
            )
    names = [name for name, _ in unsaved.values()]
    return [
        f"The file does not contain {enumerated(names)}: a tf.Variable, which Keras 3 does "
        "not save. Your class creates it again with the same values; changes by training are lost."
    ]


def outside_notes(model: Any, again: Callable[[], Any]) -> list[str]:
    """Return a note on variables that a call of the model reads and that no layer has.

    They are global ones, for example. ``again`` runs the program again and returns another model.
    Raises :class:`UnsupportedModelError` if the values of the two differ.
    """
    variables = _outside(model)
    if not variables:
        return []
    others = _outside(again())
    names = [_name(variable) for variable in variables]
    same = len(others) == len(variables) and all(
        # The same object if no code of the user has created it again.
        one is not other and np.array_equal(one, other, equal_nan=True)
        for one, other in zip(variables, others, strict=True)
    )
    if not same:
        raise UnsupportedModelError(
            f"The file does not contain {enumerated(names)}, which no layer of the model has, and "
            "the values are other ones whenever the program runs.",
            hint="Create it with self.add_weight(...) in the class that computes with it, train "
            "the model again and save it.",
        )
    return [
        f"The file does not contain {enumerated(names)}, which no layer of the model has. Your "
        "program creates it again with the same values; changes by training are lost."
    ]


def random_value_notes(model: Any, again: Callable[[], Any], program: Path) -> list[str]:
    """Return a note if it cannot be measured whether a program creates random values.

    Raises :class:`UnsupportedModelError` if a model has other outputs if its program runs again.
    Its weights are the same; arrays of random numbers, for example, are not.
    """
    if "rand" not in program.read_text("utf-8", errors="replace").lower():
        return []
    if not getattr(model, "inputs", None):
        return []
    try:
        models = (model, again())
    except Exception:  # the conversion reports why the model cannot be run
        return []
    for limits in training_mode.LIMITS:
        try:
            outputs = [training_mode.call_of(item, limits)() for item in models]
            are_numbers = all(map(training_mode.are_numbers, outputs))
        except Exception:  # the conversion reports why the model cannot be run
            return []
        for one, other in zip(*outputs, strict=True):
            values = np.asarray(one), np.asarray(other)
            if not np.allclose(*values, rtol=1e-3, atol=1e-5, equal_nan=True):
                raise UnsupportedModelError(
                    f"The model computes something else in each run of {program.name}, with the "
                    "same weights: it creates random values that are not weights, and the file "
                    "does not contain them.",
                    hint="Create them with self.add_weight(..., trainable=False), or from a fixed "
                    "seed, train the model again and save it.",
                )
        if are_numbers:
            return []
    return [
        f"Whether {program.name} creates random values that are not weights was not verified: "
        "outputs are NaN for all generated samples. The file would not contain them."
    ]


def _outside(model: Any) -> list[Any]:
    """The variables of TensorFlow that calls of a model read, without those of its layers."""
    import tensorflow as tf

    if not getattr(model, "inputs", None):
        return []
    call = training_mode.call_of(model)
    try:
        # A tf.function reports its variables if there is a tape.
        with tf.GradientTape(), _read() as first:
            call()
        with tf.GradientTape(), _read() as second:
            call()
    except Exception:  # the conversion reports why the model cannot be run
        return []
    known = {id(variable._value) for variable in model.variables}
    known |= {id(variable) for _, variable in _variables(model).values()}
    # Those that are created in each call have no trained values.
    return [value for key, value in first.items() if key in second and key not in known]


@contextlib.contextmanager
def _read() -> Iterator[dict[int, Any]]:
    """Return the variables of TensorFlow whose values are read within the context, by id."""
    from tensorflow.python.ops import resource_variable_ops

    read: dict[int, Any] = {}
    accessed = resource_variable_ops.variable_accessed

    def recorded(variable: Any) -> None:
        read[id(variable)] = variable
        accessed(variable)

    with mock.patch.object(resource_variable_ops, "variable_accessed", recorded):
        yield read


def _name(variable: Any) -> str:
    """The global name of a variable in a file of the user, or its own one."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(f"{PACKAGE}_"):
            for name, value in vars(module).items():
                parts = (getattr(item, "_value", item) for item in in_attribute(value))
                if any(part is variable for part in parts):
                    return f"the variable {name!r}"
    return f"the variable {variable.name!r}"


def _variables(
    model: Any, *, are_loaded: bool | None = None
) -> dict[tuple[int, str], tuple[str, Any]]:
    """Return what layers of the user keep in a ``tf.Variable``, by number of layer and attribute.

    Each has a name for messages.

    With ``are_loaded``, only what layers keep that have loaded their arrays themselves, without
    what they have loaded; if it is False, only what other layers keep.
    """
    import tensorflow as tf

    found = {}
    for index, layer in enumerate(model._flatten_layers()):
        loads = own_loading.loads_itself(type(layer))
        if not is_own_class(type(layer)) or are_loaded not in (None, loads):
            continue
        for name, value in vars(layer).items():
            if are_loaded and name in own_loading.loaded_attributes(layer):
                continue
            # TensorFlow keeps lists of its own of what an object contains.
            variables = () if name.startswith("_self_") else in_attribute(value)
            for number, variable in enumerate(variables):
                if isinstance(variable, tf.Variable):
                    place = f"{name}[{number}]" if variable is not value else name
                    where = f"layer {layer.name!r} (class {type(layer).__name__})"
                    found[index, place] = (f"{place!r} of {where}", variable)
    return found
