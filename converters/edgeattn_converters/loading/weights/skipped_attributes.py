"""Layers in attributes of a class that Keras 3 does not save, since its own have the same name."""

from collections.abc import Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.own_code.hidden_layers import in_attribute, saved_layers
from edgeattn_converters.loading.own_code.own_classes import is_own_class


class SkippedAttributeError(UnsupportedModelError):
    """A class has layers in an attribute that Keras does not save."""


def skipped_error(model: Any, missing: Sequence[Any]) -> SkippedAttributeError | None:
    """Return the error for ``missing`` variables of layers in such an attribute, if some are.

    ``_layers`` is the attribute of every layer of Keras that lists the layers inside.
    """
    import keras

    wanted = {id(variable) for variable in missing}
    for layer in model._flatten_layers():
        if not is_own_class(type(layer)):
            continue
        saved = {id(item) for item in saved_layers(layer)}
        # The list of all layers is the last one.
        for name, value in sorted(vars(layer).items(), key=lambda item: item[0] == "_layers"):
            inside = [item for item in in_attribute(value) if isinstance(item, keras.layers.Layer)]
            lost = [
                variable
                for item in inside
                if id(item) not in saved
                for variable in item.weights
                if id(variable) in wanted
            ]
            if lost:
                return _error(layer, name, lost)
    return None


def _error(layer: Any, attribute: str, lost: Sequence[Any]) -> SkippedAttributeError:
    class_name = type(layer).__name__
    return SkippedAttributeError(
        f"The file lacks {counted(len(lost), 'weight array')} of layer {layer.name!r}, such as "
        f"{lost[0].path!r}: Keras 3 saves no layers in an attribute named {attribute!r}, which is "
        f"one of its own, and your class {class_name} has its layers there.",
        hint="If you have the trained model in memory, save it with model.save('model.h5'), which "
        f"contains all weights. Otherwise, rename {attribute!r} in {class_name}, such as "
        "'blocks', and train the model again.",
    )
