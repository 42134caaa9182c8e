"""Functions of the user's file that the model uses by name, as activations.

Keras 2 stores an activation by its name only, and Keras 3 does so too if it has an activation of
that name. ``softmax`` in such a file is that of Keras or that of the user's program.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import EdgeattnError, UsageError

# Two axes or more, some of length one: functions differ in the axis along which they normalize.
_SHAPES = ((3, 4), (2, 5, 3), (2, 5, 1), (2, 3, 4, 2))
_SEED = 20190712


@dataclass(frozen=True)
class UnclearFunction:
    """A function of the user with the name of an activation of Keras.

    ``file`` is the name of the file that defines it.
    """

    name: str
    function: Callable[..., Any]
    file: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the user's function."""
        return self.function(*args, **kwargs)

    def require_equal(self, of_keras: Callable[..., Any]) -> None:
        """Raise :class:`UsageError` if the function of Keras computes something else.

        A function that fails for all shapes, such as one with another required argument, cannot
        have been the activation.
        """
        generator = np.random.default_rng(_SEED)
        arrays = [generator.normal(0, 2, shape).astype("float32") for shape in _SHAPES]
        own = [_outcome(self.function, x) for x in arrays]
        if all(value is None for value in own):
            return
        if all(map(_equal, own, (_outcome(of_keras, x) for x in arrays))):
            return
        raise UsageError(
            f"{self.file} defines a function {self.name!r}, and Keras has another activation of "
            "that name. The model stores only the name.",
            hint=f"Add a line to {self.file}. If the layers use yours: "
            f'custom_objects = {{"{self.name}": {self.name}}}. If they use that of Keras: '
            f'custom_objects = {{"{self.name}": "{self.name}"}}.',
        )


def _outcome(function: Callable[..., Any], x: Any) -> Any:
    import keras

    try:
        return np.asarray(function(keras.ops.convert_to_tensor(x)))
    except EdgeattnError:
        raise
    except Exception:  # the function is the user's
        return None


def _equal(own: Any, of_keras: Any) -> bool:
    if own is None or of_keras is None or own.shape != of_keras.shape:
        return False
    return bool(np.allclose(own, of_keras, rtol=1e-4, atol=1e-5, equal_nan=True))


def with_choices(
    objects: Mapping[str, Any], chosen: Mapping[str, Any], file: str
) -> dict[str, Any]:
    """Return ``objects`` with those of the dict ``custom_objects`` in the user's file.

    A name as value, ``{"softmax": "softmax"}``, stands for the function of Keras. The other
    functions that have names of Keras' activations are marked as unclear.
    """
    known = activations()
    marked = {
        name: UnclearFunction(name, value, file)
        if name in known and not isinstance(value, type)
        else value
        for name, value in objects.items()
        if name not in chosen
    }
    return marked | {name: value for name, value in chosen.items() if not isinstance(value, str)}


def plain(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``objects`` without what :func:`with_choices` marked as unclear."""
    return {k: value for k, value in objects.items() if not isinstance(value, UnclearFunction)}


def activations() -> dict[str, Callable[..., Any]]:
    """Return the activations of Keras by name."""
    from keras.src.activations import ALL_OBJECTS_DICT

    return dict(ALL_OBJECTS_DICT)


@contextlib.contextmanager
def found_by_name(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let ``keras.activations.get`` find the user's functions, as in Keras 2."""
    from keras.src.activations import ALL_OBJECTS_DICT

    functions = {
        name: value
        for name, value in plain(objects).items()
        if callable(value) and not isinstance(value, type)
    }
    with mock.patch.dict(ALL_OBJECTS_DICT, functions):
        yield


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


def gelu_notes(model: Any) -> tuple[str, ...]:
    """Return a note on each layer whose gelu may be another one than that of Keras' activations.

    ``keras.ops.gelu`` is the approximation with tanh, and Keras 3 stores it by the name of the
    activation, which is exact. Keras itself loads the exact one, too.
    """
    exact = activations()["gelu"]
    return tuple(
        f"{layer.name}: gelu is the exact one, as Keras loads it. If the program passes "
        "keras.ops.gelu, an approximation that Keras stores by the same name, pass a file with the "
        'line custom_objects = {"gelu": keras.ops.gelu}: --custom-objects FILE.py'
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "activation", None) is exact
    )


_OWN_SOFTMAX = (
    "If your program has its own softmax, pass its file with a line "
    'custom_objects = {"softmax": softmax}: --custom-objects FILE.py'
)


def _summed_along(layer: Any) -> Iterator[tuple[str, int]]:
    """The Dot layers that sum the outputs of an activation along another axis than the last one.

    Each with the axis. An axis of one value is another note.
    """
    if type(layer).__name__ != "Activation":
        return
    for node in getattr(layer, "_outbound_nodes", ()):
        dot: Any = getattr(node, "operation", None)
        if type(dot).__name__ != "Dot":
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
        if hasattr(layer, name):
            return int(getattr(layer, name))
    try:
        shape = layer.output.shape
    except (AttributeError, RuntimeError, ValueError):  # not called, or called several times
        return None
    return shape[-1] if len(shape) else None


def check_names(config: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` if an argument of the user's layer names an unclear function."""
    for key, value in config.items():
        unclear = objects.get(value) if isinstance(value, str) else None
        if key.endswith("activation") and isinstance(unclear, UnclearFunction):
            unclear.require_equal(activations()[value])


def are_used(stored: Any, objects: Mapping[str, Any]) -> bool:
    """Return whether a stored config, at any depth, names a function of the user."""
    own = plain(objects)
    if isinstance(stored, Mapping):
        return any(
            (str(key).endswith("activation") and isinstance(value, str) and value in own)
            or are_used(value, objects)
            for key, value in stored.items()
        )
    return isinstance(stored, list) and any(are_used(item, objects) for item in stored)
