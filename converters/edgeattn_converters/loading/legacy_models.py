"""Functional models that programs and classes for Keras 1 and 2 create."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from edgeattn_converters.loading.legacy_program import Program

_NAMES = {"input": "inputs", "output": "outputs"}


def provide(replace: Callable[[Any, str, Any], None], program: Program) -> None:
    """Let ``keras.Model`` create functional models as in the Keras of a program.

    Keras 1 called the arguments ``input`` and ``output``. Until Keras 3, a model of one tensor in
    a list was called with a tensor and returned one.
    """
    import keras
    from keras.src.models.functional import Functional

    def renamed(named: dict[str, Any]) -> dict[str, Any]:
        if _NAMES.keys() <= named.keys():
            program.is_keras_1 = True
            return {_NAMES.get(key, key): value for key, value in named.items()}
        return named

    def create(model: Any, *args: Any, **named: Any) -> None:
        named = renamed(named)
        if program.version < (3,):
            args = tuple(map(_without_list, args))
            named = {key: _without_list(value) for key, value in named.items()}
        initialize(model, *args, **named)

    new, initialize = keras.Model.__new__, Functional.__init__
    replace(keras.Model, "__new__", lambda cls, *args, **named: new(cls, *args, **renamed(named)))
    replace(Functional, "__init__", create)


@contextlib.contextmanager
def created(program: Program) -> Iterator[None]:
    """Let classes of the user create models so while a file is loaded."""
    with contextlib.ExitStack() as stack:

        def replace(place: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(place, name, value))

        provide(replace, program)
        yield


def _without_list(value: Any) -> Any:
    """Return the only tensor of a list, or a value that is something else."""
    import keras

    is_single = isinstance(value, list) and len(value) == 1
    return value[0] if is_single and isinstance(value[0], keras.KerasTensor) else value
