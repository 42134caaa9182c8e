"""``image_data_format`` of Keras, the order of the axes that layers and code of the user get.

It stays as the user's program sets it, because classes of the user ask for it in ``call``.
"""

import functools
from collections.abc import Mapping
from typing import Any

from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.migrate.keras1 import DATA_FORMATS

# In every version, these have the channels last by default.
_OF_SEQUENCES = ("Conv1D", "MaxPooling1D", "AveragePooling1D", "GlobalAveragePooling1D",
                 "GlobalMaxPooling1D", "ZeroPadding1D")  # fmt: skip
# The first Keras in which the order that is set has an effect on a layer without its argument.
_WITHOUT_EFFECT = {
    **dict.fromkeys((*_OF_SEQUENCES, "CenterCrop", "Resizing"), (3,)),
    "Flatten": (2, 2),
}


@functools.cache
def initial() -> str:
    """Return the order that the user's ``keras.json`` sets, ``"channels_last"`` by default."""
    return current()


def reset() -> None:
    """Set the order as it was before other models were loaded in this process."""
    import keras

    keras.config.set_image_data_format(initial())


def current() -> str:
    """Return the order that is set, which layers without the argument have."""
    import keras

    return str(keras.config.image_data_format())


def is_channels_last() -> bool:
    """Return whether the channels of images are the last axis unless a layer says otherwise."""
    return current() == "channels_last"


def set_channels_first() -> None:
    """Set the order that ``keras.json`` had by default in Keras 1.0."""
    import keras

    keras.config.set_image_data_format("channels_first")


def use_stored(stored: Config, objects: Mapping[str, Any]) -> None:
    """Set the order for a stored model, of which no layer of Keras depends on ``keras.json``.

    Code of a Lambda or of the user's ``objects`` gets the order that all layers of the file store,
    which was that of the program, unless the user's file has set another one.
    """
    import keras

    own_code = bool(objects) or "'Lambda'" in repr(stored)
    if own_code and keras.config.image_data_format() != initial():
        return
    orders = _orders(stored) if own_code else set()
    order = orders.pop() if len(orders) == 1 else "channels_last"
    keras.config.set_image_data_format(order)


def _orders(part: Any) -> set[str]:
    """Return the orders of layers of images in a part of a config."""
    if isinstance(part, list | tuple):
        return set().union(*map(_orders, part))
    if not isinstance(part, Mapping):
        return set()
    found = _orders(list(part.values()))
    config = part.get("config")
    if isinstance(config, Mapping) and part.get("class_name") not in (*_OF_SEQUENCES, "Flatten"):
        order = str(config.get("data_format") or config.get("dim_ordering"))
        found |= {DATA_FORMATS.get(order, order)} & set(DATA_FORMATS.values())
    return found


def other_default(class_name: str, version: tuple[int, ...], of_tensorflow: bool) -> str | None:
    """Return the order that a layer of images or sequences has by default in another Keras.

    None if that is the one set, as in the current Keras.

    Args:
        class_name: name of the class in Keras 3.
        version: version of that Keras.
        of_tensorflow: whether it was part of TensorFlow.
    """
    since: tuple[int, ...] = (0,)
    until: tuple[int, ...] = _WITHOUT_EFFECT.get(class_name, (0,))
    if class_name == "SeparableConv1D" and not of_tensorflow:
        since, until = (2, 2, 3), (2, 4)
    if class_name == "Conv2DTranspose":
        since, until = (2,), (2, 0, 3)
    if class_name == "Flatten" and of_tensorflow:
        until = (2, 1, 6)
    if is_channels_last() or not since <= version < until:
        return None
    return "channels_last"
