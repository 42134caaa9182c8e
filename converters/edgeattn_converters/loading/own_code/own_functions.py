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
from edgeattn.printable import enumerated
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.own_code.own_classes import is_of_edgeattn_or_library

# Two axes or more, some of length one: functions differ in the axis along which they normalize.
_SHAPES = ((3, 4), (2, 5, 3), (2, 5, 1), (2, 3, 4, 2))
_SEED = 20190712
# Since this version, both layers of a Bidirectional are created from a config.
_BOTH_FROM_CONFIG = (2, 4)


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
    """Return the activations of Keras by name, without those that a program has added to them."""
    from keras.src.activations import ALL_OBJECTS, ALL_OBJECTS_DICT

    names = {function.__name__ for function in ALL_OBJECTS}
    return {
        name: function
        for name, function in ALL_OBJECTS_DICT.items()
        if name in names or any(function is item for item in ALL_OBJECTS)
    }


def has_own_activation(layer: Any) -> bool:
    """Return whether a config of the layer would name another activation than the layer has.

    Keras stores a function of the user by its name, and loads the one that Keras has by that name.
    """
    return bool(_own_activations(layer))


def calls_function_of_user(layer: Any) -> bool:
    """Return whether an activation of the layer is a function of the user's program.

    That of a library is none, nor is the ``hard_sigmoid`` of Keras 2, which edgeattn defines.
    """
    return any(
        not is_of_edgeattn_or_library(str(getattr(function, "__module__", "")))
        for _, function in _own_activations(layer)
    )


def keep_in_forward_layer(layer: Any, wrapped: Any, program: Program) -> None:
    """Give the forward layer of a new Bidirectional the user's activations, if it had them.

    Keras before 2.4 copied ``wrapped`` to the forward layer. Later versions create both layers from
    a config, as all versions do with the backward layer, so they have Keras' functions.
    """
    parts = zip(wrapped._flatten_layers(), layer.forward_layer._flatten_layers(), strict=False)
    own = [
        (new, name, value)
        for old, new in parts
        for name, value in _own_activations(old)
        if _is_of_keras(getattr(new, name))  # else the function is registered
    ]
    if not own:
        return
    names = enumerated(sorted({repr(getattr(new, name).__name__) for new, name, _ in own}))
    if program.of_tensorflow or program.version >= _BOTH_FROM_CONFIG:
        program.notes.append(
            f"{layer.name}: both directions have Keras' {names}, not your function of that name, "
            "because Bidirectional creates its layers from a config. TensorFlow 1 kept yours in "
            "the forward layer."
        )
        return
    for new, attribute, function in own:
        setattr(new, attribute, function)
    program.notes.append(
        f"{layer.name}: the forward layer has your {names}, and the backward layer has Keras' "
        "function of that name, as in Keras before 2.4."
    )


def _own_activations(layer: Any) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(layer).items()
        if name.endswith("activation") and callable(value) and not _is_of_keras(value)
    ]


def _is_of_keras(function: Any) -> bool:
    """Return whether a function or layer is that of Keras, or computes the same by the same name.

    ``keras.ops.gelu`` is not: Keras stores it by the name of another function.
    """
    import keras

    if isinstance(function, keras.layers.Layer):
        return True  # stored by its class
    if any(function is known for known in activations().values()):
        return True
    module = str(getattr(function, "__module__", ""))
    # In Keras 3, the backend still has the hard_sigmoid of Keras 2.
    of_backend = module == "keras.src.legacy.backend" and function.__name__ != "hard_sigmoid"
    return of_backend or module.split(".")[0] == "tensorflow"


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


def check_names(config: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` if an argument of the user's layer names an unclear function.

    The layer's config may contain those of other layers.
    """
    for key, value in config.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                check_names(item, objects)
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
