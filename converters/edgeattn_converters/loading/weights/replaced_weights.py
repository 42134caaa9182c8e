"""Layers to whose weights a class of the user assigns tensors, as weight normalization does.

If the class assigns the variable again afterwards, it is the last weight of its layer in tf.keras,
also in files. Keras 3 keeps its place.
"""

from collections import Counter
from typing import Any

from edgeattn.errors import UnsupportedModelError

_REPLACED = "_edgeattn_replaced"


def record(layer: Any) -> None:
    """Record that a class assigns a tensor to a weight of a layer."""
    vars(layer)[_REPLACED] = True


def unclear_order(model: Any) -> UnsupportedModelError | None:
    """Return the error for a model that was not compared, if shapes do not show the order.

    None if all weights of each such layer have different shapes.
    """
    for layer in model._flatten_layers():
        shapes = Counter(tuple(variable.shape) for variable in layer._trainable_variables)
        shape, count = next(iter(shapes.most_common(1)), ((), 0))
        if _REPLACED in vars(layer) and count > 1:
            return UnsupportedModelError(
                f"A class of yours assigns a tensor to a weight of layer {layer.name!r}, which "
                "changes the order of its weights in files of Keras 2. Several have the shape "
                f"{shape}, and tf_keras could not show which is which.",
                hint="Load the weights into the program with the Keras that saved them, and "
                "convert the folder that model.export('folder') writes.",
            )
    return None
