"""Functional models that programs and classes for Keras 1 and 2 create."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard
from unittest import mock

from edgeattn_converters.loading.legacy.legacy_program import Program

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


def let_build_again() -> None:
    """Let classes build a ``Sequential`` with a shape that fits the one it was built with.

    An ``Embedding`` as its first layer has the input shape of Keras 2, with which the model is
    built at once. Without that shape, Keras 3 builds the model when the class does.
    """
    import keras

    build = keras.Sequential.build
    if hasattr(build, "__wrapped__"):
        return

    @functools.wraps(build)
    def build_again(model: Any, input_shape: Any = None) -> Any:
        known = model.input_shape if model._functional is not None else None
        if _is_shape(known) and _is_shape(input_shape) and _fits(known, input_shape):
            return None
        return build(model, input_shape)

    keras.Sequential.build = build_again


def _is_shape(value: Any) -> TypeGuard[Sequence[int | None]]:
    return isinstance(value, list | tuple) and all(
        size is None or isinstance(size, int) for size in value
    )


def _fits(known: Sequence[int | None], given: Sequence[int | None]) -> bool:
    pairs = list(zip(known, given, strict=False))
    return len(known) == len(given) and all(None in pair or len(set(pair)) == 1 for pair in pairs)


def _without_list(value: Any) -> Any:
    """Return the only tensor of a list, or a value that is something else."""
    import keras

    is_single = isinstance(value, list) and len(value) == 1
    return value[0] if is_single and isinstance(value[0], keras.KerasTensor) else value
