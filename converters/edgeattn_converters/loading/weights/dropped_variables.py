"""Weights that a class adds to a layer of Keras 3 whose own weights are all that Keras saves."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.own_code.own_classes import is_of_library, is_own_class

Shape = tuple[int, ...]


def dropped_error(
    layer: Any, variables: Sequence[Any], stored: Sequence[Shape]
) -> UnsupportedModelError | None:
    """Return the error for a layer of which Keras 3 did not save all ``variables``, if it is one.

    ``save_own_variables`` of Dense, Embedding, EinsumDense and the convolutions writes kernel and
    bias only. ``stored`` are the shapes that the file contains.
    """
    import keras

    cls = type(layer)
    method = cls.save_own_variables
    if method is keras.layers.Layer.save_own_variables or not is_own_class(cls):
        return None
    left = Counter(stored)
    dropped = []
    for variable in variables:
        if left[shape := tuple(variable.shape)]:
            left[shape] -= 1
        else:
            dropped.append(variable.name)
    if not is_of_library(method.__module__ or "") or not dropped or any(left.values()):
        return None
    base = next(parent for parent in cls.__mro__ if is_of_library(parent.__module__)).__name__
    return UnsupportedModelError(
        f"The file lacks {enumerated(list(map(repr, dropped)))} of layer {layer.name!r}: Keras 3 "
        f"saves only the weights of {base} itself, from which your class {cls.__name__} is "
        "derived, and loads none that the class adds.",
        hint="If you have the trained model in memory, save it with model.save('model.h5'), which "
        f"contains all weights. Otherwise, define save_own_variables and load_own_variables in "
        f"{cls.__name__}, or derive it from keras.layers.Layer with a {base} inside, and train "
        "it again.",
    )
