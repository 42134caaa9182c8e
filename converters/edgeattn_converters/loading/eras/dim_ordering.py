"""The order of the axes of layers of Keras 1 that do not store it.

``get_config`` of UpSampling, ZeroPadding and Cropping layers of Keras 0.3 to 1.2.2 leaves
``dim_ordering`` out; all other layers store it: ``"th"`` is (channels, rows, columns), ``"tf"`` is
(rows, columns, channels). It is ``image_dim_ordering`` of the program, which the other layers have.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.config_inspection import Config, is_model, layer_name
from edgeattn_converters.loading.loaded_model import LoadedModel

_TH, _TF = "th", "tf"
_WITHOUT_ORDER = re.compile(r"(UpSampling|ZeroPadding|Cropping)[23]D")
_OTHER = {_TH: _TF, _TF: _TH}
_DESCRIPTIONS = {
    _TH: "channels first (dim_ordering='th')",
    _TF: "channels last (dim_ordering='tf')",
}
_NOT_STORED = "Keras 1 does not store it for this kind of layer."
_BY_WEIGHTS = f"because the weights do not fit otherwise. {_NOT_STORED}"
# The most channels by which an axis of an image is recognized.
_MOST_CHANNELS = 4


def load_in_order(stored: Config, load: Callable[[Config], LoadedModel]) -> LoadedModel:
    """Return the model that ``load`` returns for a config of Keras 1 in which all layers have an
    order of the axes.

    A layer without one has that of the other layers of its model, or else of the whole file. If
    these have both or none, the weights decide, or else the shapes of the images. Raises
    :class:`UnsupportedModelError` if these do not show it either.
    """
    found = _orders(stored)
    inherited = _with_inherited(stored)
    unknown = _without_order(inherited)
    if unknown:
        return _load_that_fits(inherited, unknown, found, load)
    names = _without_order(stored)
    try:
        loaded = load(inherited)
    except UnsupportedModelError as error:
        if not names or len(found) > 1:
            raise
        # A program may set the order of some layers, and forget others.
        other = _OTHER[next(iter(found))]
        try:
            loaded = load(_with_order(stored, other, names))
        except UnsupportedModelError:
            raise error from None
        return _with_notes(loaded, names, f"{_DESCRIPTIONS[other]}, {_BY_WEIGHTS}")
    if _TH not in found:
        return loaded
    return _with_notes(
        loaded, names, f"the order of the axes is that of the other layers. {_NOT_STORED}"
    )


def _load_that_fits(
    stored: Config, names: Sequence[str], found: set[str], load: Callable[[Config], LoadedModel]
) -> LoadedModel:
    """Return the model in the order in which the weights fit, or else that of the images.

    ``names`` are the layers without an order, ``found`` are the orders of the others.
    """
    fitting: dict[str, LoadedModel] = {}
    errors = []
    for order in (_TF, _TH):
        try:
            fitting[order] = load(_with_order(stored, order, names))
        except UnsupportedModelError as error:
            errors.append(error)
    if not fitting:
        if errors[0].message == errors[1].message:
            raise errors[0]
        raise _unknown_order(names, found, f"do not fit: {errors[0].message}") from errors[0]
    if len(fitting) == 2:
        orders = set() if found else _orders_of_images(stored)
        if len(orders) != 1:
            raise _unknown_order(names, found)
        order = orders.pop()
        reason = f"as the shapes of the images show. {_NOT_STORED}"
        return _with_notes(fitting[order], names, f"{_DESCRIPTIONS[order]}, {reason}")
    order, loaded = next(iter(fitting.items()))
    if found:
        # The layers may have both orders, as the others have.
        free = [name for name in names if _fits(stored, name, order, names, load)]
        if free:
            raise _unknown_order(free, found)
    return _with_notes(loaded, names, f"{_DESCRIPTIONS[order]}, {_BY_WEIGHTS}")


def _fits(
    stored: Config,
    name: str,
    order: str,
    names: Sequence[str],
    load: Callable[[Config], LoadedModel],
) -> bool:
    """Whether the weights fit with one layer in the other order than those of ``names``."""
    try:
        load(_with_order(_with_order(stored, _OTHER[order], [name]), order, names))
    except UnsupportedModelError:
        return False
    return True


def _with_notes(loaded: LoadedModel, names: Sequence[str], text: str) -> LoadedModel:
    return replace(loaded, notes=(*loaded.notes, *(f"{name}: {text}" for name in names)))


def _unknown_order(
    names: Sequence[str], found: set[str], fit: str = "fit both ways."
) -> UnsupportedModelError:
    are = "have both orders" if found else "have none either"
    return UnsupportedModelError(
        f"Keras 1 does not store whether the channels of {enumerated([*map(repr, names)])} come "
        f"first or last. The other layers {are}, and the weights {fit}",
        hint='Add "dim_ordering": "th" (channels first) or "tf" (channels last) to the config of '
        "each of these layers: docs/loading.md#channels-of-keras-1",
    )


def _with_inherited(part: Any, order: str | None = None) -> Any:
    """Return a part of a config in which layers have the order of the others in their model.

    If these have none, it is ``order``, and if they have both, the config is unchanged.
    """
    if isinstance(part, list):
        return [_with_inherited(item, order) for item in part]
    if not isinstance(part, Mapping):
        return part
    if _is_layer(part) and is_model(part):
        found = _orders(part)
        order = found.pop() if len(found) == 1 else None if found else order
    return {key: _with_inherited(item, order) for key, item in _ordered(part, order).items()}


def _with_order(part: Any, order: str, names: Sequence[str]) -> Any:
    """Return a part of a config in which the layers of these ``names`` have an order."""
    if isinstance(part, list):
        return [_with_order(item, order, names) for item in part]
    if not isinstance(part, Mapping):
        return part
    part = _ordered(part, order, names)
    return {key: _with_order(item, order, names) for key, item in part.items()}


def _ordered(part: Config, order: str | None, names: Sequence[str] | None = None) -> Config:
    """Return a config with an order if it is that of a layer which lacks one."""
    if order is None or not _lacks_order(part):
        return part
    if names is not None and layer_name(part) not in names:
        return part
    return {**part, "config": {**part["config"], "dim_ordering": order}}


def _is_layer(part: Any) -> bool:
    return isinstance(part, Mapping) and "class_name" in part and "config" in part


def _lacks_order(part: Config) -> bool:
    if not _is_layer(part) or not _WITHOUT_ORDER.fullmatch(str(part["class_name"])):
        return False
    config = part["config"]
    is_config = isinstance(config, Mapping) and "data_format" not in config
    return is_config and config.get("dim_ordering") is None


def _layers(part: Any) -> Iterator[Config]:
    """Yield the layers and models in a part of a config, at any depth."""
    if isinstance(part, list | tuple):
        for item in part:
            yield from _layers(item)
    elif isinstance(part, Mapping):
        if _is_layer(part):
            yield part
        yield from _layers(list(part.values()))


def _values(stored: Config, argument: str) -> Iterator[Any]:
    """Yield the values of an argument of the layers of a model, at any depth."""
    for item in _layers(stored):
        if isinstance(item["config"], Mapping) and argument in item["config"]:
            yield item["config"][argument]


def _orders(stored: Config) -> set[str]:
    """Return the orders that the layers of a model store."""
    return {order for order in _values(stored, "dim_ordering") if order in (_TH, _TF)}


def _without_order(stored: Config) -> list[str]:
    return [layer_name(item) for item in _layers(stored) if _lacks_order(item)]


def _orders_of_images(stored: Config) -> set[str]:
    """Return the orders that the shapes of images show: (3, 32, 32) has the channels first."""
    inputs = [shape[1:] for shape in _values(stored, "batch_input_shape") if _is_shape(shape)]
    shapes = [*inputs, *filter(_is_shape, _values(stored, "target_shape"))]
    return {order for shape in shapes if (order := order_of_image(shape)) is not None}


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple)


def order_of_image(shape: Sequence[Any]) -> str | None:
    """Return the order that a shape without the batch axis shows; ``None`` if it shows none.

    An image or volume has at most four channels along its first or last axis, and all its other
    axes are longer, such as ``"tf"`` for (28, 28, 1).
    """
    if len(shape) not in (3, 4):
        return None
    few = [isinstance(size, int) and 0 < size <= _MOST_CHANNELS for size in shape]
    if sum(few) != 1 or not (few[0] or few[-1]):
        return None
    return _TH if few[0] else _TF
