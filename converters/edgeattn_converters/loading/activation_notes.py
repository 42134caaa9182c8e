"""Notes on activations that may be other functions than those that the file names.

A file stores the name of an activation only, which may be that of a function of the program.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.loading.own_code import own_functions
from edgeattn_converters.loading.own_code.own_classes import is_own_class

_OWN_SOFTMAX = (
    "If your program has its own softmax, pass its file with a line "
    'custom_objects = {"softmax": softmax}: --custom-objects FILE.py'
)


def softmax_notes(model: Any) -> tuple[str, ...]:
    """Return a note on each layer whose softmax may be another one than that of Keras.

    Attention of many programs has a function ``softmax`` along the steps, and the file stores the
    name only. The softmax of Keras is 1 over an axis of one value, and its weights do not add up
    to 1 along another axis, along which a ``Dot`` layer sums.
    """
    notes = []
    for layer in model._flatten_layers(include_self=False):
        if not _has_softmax_of_keras(layer):
            continue
        size = _last_axis(layer)
        if size == 1:
            notes.append(
                f"{layer.name}: Keras' softmax over an axis of one value is 1 for every input. "
                f"{_OWN_SOFTMAX}"
            )
        for dot, axis in _summed_along(layer):
            notes.append(
                f"{layer.name}: Keras' softmax is over the last axis, and {dot} sums its weights "
                f"along axis {axis}, where they do not add up to 1. {_OWN_SOFTMAX}"
            )
    return tuple(notes)


def gelu_notes(model: Any, stored: Any) -> tuple[str, ...]:
    """Return a note on each layer whose gelu may be another one than that of Keras' activations.

    ``keras.ops.gelu`` is the approximation with tanh, and Keras 3 stores it by the name of the
    activation, which is exact. Keras itself loads the exact one, too. ``stored`` is the config of
    the file. It does not decide the activations of layers that a class of the user creates, unless
    it names gelu as an argument of that class.
    """
    exact = own_functions.activations()["gelu"]
    names = set(_naming(stored, "gelu"))
    layers = model._flatten_layers()
    named = {
        id(part) for layer in layers if layer.name in names for part in layer._flatten_layers()
    }
    return tuple(
        f"{layer.name}: gelu is the exact one, as Keras loads it. If the program passes "
        "keras.ops.gelu, an approximation that Keras stores by the same name, pass a file with the "
        'line custom_objects = {"gelu": keras.ops.gelu}: --custom-objects FILE.py'
        for layer in layers
        if id(layer) in named and getattr(layer, "activation", None) is exact
    )


def _naming(stored: Any, value: str, layer: str = "") -> Iterator[str]:
    """Yield the name of each stored layer that has ``value`` as an argument, at any depth.

    Arguments of layers inside it are theirs. ``layer`` is the name of the layer that the config
    belongs to.
    """
    if stored == value:
        yield layer
    if isinstance(stored, Mapping):
        config = stored.get("config")
        if isinstance(config, Mapping) and "class_name" in stored:
            layer = str(config.get("name", layer))
        stored = list(stored.values())
    if isinstance(stored, list):
        for item in stored:
            yield from _naming(item, value, layer)


def _summed_along(layer: Any) -> Iterator[tuple[str, int]]:
    """The Dot layers that sum the outputs of an activation along another axis than the last one.

    Each with the axis. An axis of one value is another note.
    """
    if not is_keras_class(layer, "Activation"):
        return
    for node in getattr(layer, "_outbound_nodes", ()):
        dot: Any = getattr(node, "operation", None)
        if not is_keras_class(dot, "Dot"):
            continue
        axes = dot.axes if isinstance(dot.axes, list | tuple) else [dot.axes] * 2
        for tensor, axis in zip(node.arguments.keras_tensors, axes, strict=False):
            history = getattr(tensor, "_keras_history", None)
            rank = len(tensor.shape)
            if getattr(history, "operation", None) is not layer or tensor.shape[-1] == 1:
                continue
            if axis % rank != rank - 1:
                yield dot.name, axis % rank


def _has_softmax_of_keras(layer: Any) -> bool:
    function = getattr(layer, "activation", None)
    module = str(getattr(function, "__module__", "")).split(".")[0]
    return module in ("keras", "tf_keras") and getattr(function, "__name__", "") == "softmax"


def _last_axis(layer: Any) -> int | None:
    """The size of the last axis of what the layer computes, None if it is unknown."""
    for name in ("units", "filters"):
        # In a layer of the user, the attribute may be something else.
        if not is_own_class(type(layer)) and hasattr(layer, name):
            return int(getattr(layer, name))
    try:
        shape = layer.output.shape
    except (AttributeError, RuntimeError, ValueError):  # not called, or called several times
        return None
    return shape[-1] if len(shape) else None
