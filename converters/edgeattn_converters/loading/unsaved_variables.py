"""Variables of TensorFlow in layers of the user, which Keras 3 does not save."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.custom_objects import in_attribute
from edgeattn_converters.loading.own_classes import is_own_class


def unsaved_notes(model: Any, build: Callable[[], Any]) -> list[str]:
    """Return a note on variables that the file lacks and the class creates again.

    ``build`` builds the model again. Raises :class:`UnsupportedModelError` if the values of the two
    differ, because the trained ones are lost.
    """
    unsaved = _variables(model)
    if not unsaved:
        return []
    for (name, value), other in zip(unsaved.items(), _variables(build()).values(), strict=True):
        if not np.array_equal(value, other, equal_nan=True):
            raise UnsupportedModelError(
                f"The file does not contain {name}: it is a tf.Variable, which Keras 3 does not "
                "save, and its values are other ones whenever it is created.",
                hint="Create it with self.add_weight(...), train the model again and save it. If "
                "the program still has the trained model, assign its values before saving.",
            )
    return [
        f"The file does not contain {enumerated(list(unsaved))}: a tf.Variable, which Keras 3 does "
        "not save. Your class creates it again with the same values; changes by training are lost."
    ]


def _variables(model: Any) -> dict[str, Any]:
    """Return what layers of the user keep in a ``tf.Variable``, by layer and attribute."""
    import tensorflow as tf

    found = {}
    for layer in model._flatten_layers():
        for name, value in vars(layer).items() if is_own_class(type(layer)) else ():
            # TensorFlow keeps lists of its own of what an object contains.
            variables = () if name.startswith("_self_") else in_attribute(value)
            for number, variable in enumerate(variables):
                if isinstance(variable, tf.Variable):
                    place = f"{name}[{number}]" if variable is not value else name
                    where = f"layer {layer.name!r} (class {type(layer).__name__})"
                    found[f"{place!r} of {where}"] = variable
    return found
