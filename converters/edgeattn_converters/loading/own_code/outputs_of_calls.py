"""Outputs of the user's classes while a model is built: those of ``call``, as in ``predict``.

Keras 3 takes their shapes and dtypes from ``compute_output_shape`` or ``compute_output_spec`` of a
class instead, and fails with it, but only while a model is built. tf.keras did not.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from edgeattn_converters.loading.own_code.own_classes import is_own_class

_STATED = ("compute_output_shape", "compute_output_spec")
_MARK = "_follows_call"


def infer(cls: Any) -> None:
    """Let a class return what its ``call`` returns, whatever its ``compute_output_shape`` says.

    A wrong one changes the layers that follow, also one that the class inherits from a layer of
    Keras, whose ``call`` it replaces. Axes that the call leaves open have its sizes. If the call
    fails, such as without the length of an axis, the outputs are the stated ones; if there are
    none, the error is that of the call.
    """
    import keras
    from keras.src.utils.python_utils import is_default

    own = [parent for parent in cls.__mro__ if is_own_class(parent)]
    names = {name for parent in own for name in vars(parent)}
    of_keras = cls.compute_output_spec
    if hasattr(of_keras, _MARK) or not names & {"call", *_STATED}:
        return
    states_specs = _STATED[1] in names

    @functools.wraps(of_keras)
    def compute_output_spec(layer: Any, *args: Any, **kwargs: Any) -> Any:
        is_stated = states_specs or not is_default(layer.compute_output_shape)
        try:
            called = keras.Operation.compute_output_spec(layer, *args, **kwargs)
        except Exception:
            if is_stated:
                with contextlib.suppress(Exception):
                    return of_keras(layer, *args, **kwargs)
            raise
        called = keras.tree.map_structure(_as_tensor, called)
        if not is_stated:
            return called
        try:
            stated = of_keras(layer, *args, **kwargs)
            tensors = keras.tree.flatten(called), keras.tree.flatten(stated)
            if not all(isinstance(item, keras.KerasTensor) for item in tensors[0]):
                return stated  # the call returns None, too
            keras.tree.assert_same_structure(called, stated)
            sized = list(map(_with_sizes, *tensors))
        except Exception:  # Keras runs it only while a model is built
            return called
        return keras.tree.pack_sequence_as(called, sized)

    setattr(compute_output_spec, _MARK, True)
    cls.compute_output_spec = compute_output_spec


@contextlib.contextmanager
def inferred() -> Iterator[None]:
    """Do :func:`infer` with every class of the user that is called in the context."""
    import keras

    of_keras = keras.layers.Layer.symbolic_call

    @functools.wraps(of_keras)
    def symbolic_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        infer(type(layer))
        return of_keras(layer, *args, **kwargs)

    with mock.patch.object(keras.layers.Layer, "symbolic_call", symbolic_call):
        yield


def _as_tensor(value: Any) -> Any:
    """Return the tensor for a size that a call returns.

    ``keras.ops.shape(x)[1]`` is a tensor for an axis of any length, with which Keras built the
    model, and a number for the length that the files have.
    """
    import keras

    is_size = isinstance(value, int) and not isinstance(value, bool)
    return keras.KerasTensor((), "int32") if is_size else value


def _with_sizes(called: Any, stated: Any) -> Any:
    """Return the output of a call with the sizes of a stated one for axes that are open.

    If others differ, the stated shape is that of something else.
    """
    import keras

    if called.shape is None or len(called.shape) != len(stated.shape):
        return called
    pairs = list(zip(called.shape[1:], stated.shape[1:], strict=True))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return called
    shape = called.shape[:1] + tuple(other if axis is None else axis for axis, other in pairs)
    return keras.KerasTensor(shape, called.dtype)
