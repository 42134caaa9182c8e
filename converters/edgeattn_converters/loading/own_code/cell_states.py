"""The first states of the user's cells and recurrent layers of Keras 2.

States of cells in Keras 3 have one axis, unless the cell creates them itself. Keras 2 also passed a
dtype to the method of a cell that does so, and the sequences to that of a recurrent layer; Keras 3
passes the number of samples only.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from edgeattn_converters.loading.own_code.own_classes import is_own_class

_OF_KERAS_2 = "_takes_arguments_of_keras_2"
# The attribute of a recurrent layer for the sequences with which it is called.
_SEQUENCES = "_edgeattn_sequences"


def accept(cls: Any) -> None:
    """Let a cell or recurrent layer of this class create its first states as in Keras 2.

    A cell without a method for them has the shapes in its ``state_size``.
    """
    import keras

    if not hasattr(cls, "get_initial_state"):
        cls.get_initial_state = _zeros
        return
    is_layer = issubclass(cls, keras.layers.RNN)
    for parent in filter(is_own_class, cls.__mro__):
        method = vars(parent).get("get_initial_state")
        if not inspect.isfunction(method) or hasattr(method, _OF_KERAS_2):
            continue
        names = list(inspect.signature(method).parameters)
        if not is_layer:
            parent.get_initial_state = _with_dtype(method, names)
        elif names[1:2] != ["batch_size"]:
            parent.get_initial_state = _with_sequences(method)
            parent.call = _keeping_sequences(cls.call)


def _with_dtype(method: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The method of a cell, with the dtype that Keras 2 passed."""

    @functools.wraps(method)
    def with_dtype(cell: Any, *args: Any, **named: Any) -> Any:
        if "dtype" in names[len(args) + 1 :]:
            named = {"dtype": cell.compute_dtype, **named}
        with _accepted_by_keras():
            return method(cell, *args, **named)

    setattr(with_dtype, _OF_KERAS_2, True)
    return with_dtype


def _with_sequences(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a recurrent layer, with the sequences that Keras 2 passed."""

    @functools.wraps(method)
    def with_sequences(layer: Any, *args: Any, batch_size: Any = None, **named: Any) -> Any:
        if batch_size is not None:
            args = (getattr(layer, _SEQUENCES), *args)
        with _accepted_by_keras():
            return method(layer, *args, **named)

    setattr(with_sequences, _OF_KERAS_2, True)
    return with_sequences


def _keeping_sequences(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def keeping(layer: Any, sequences: Any, *args: Any, **named: Any) -> Any:
        # Not as an attribute of Keras, which would track it.
        vars(layer)[_SEQUENCES] = sequences
        try:
            return call(layer, sequences, *args, **named)
        finally:
            del vars(layer)[_SEQUENCES]

    return keeping


@contextlib.contextmanager
def _accepted_by_keras() -> Iterator[None]:
    """Let the methods of Keras, which those of the user may call, take the arguments of Keras 2."""
    import keras

    def of_cell(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def states(cell: Any, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
            found = method(cell, keras.ops.shape(inputs)[0] if batch_size is None else batch_size)
            return found[0] if isinstance(cell.state_size, int) else found

        return states

    def of_layer(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def states(layer: Any, inputs: Any = None, batch_size: Any = None) -> Any:
            return method(layer, keras.ops.shape(inputs)[0] if batch_size is None else batch_size)

        return states

    cells = ("SimpleRNNCell", "GRUCell", "LSTMCell", "StackedRNNCells")
    with contextlib.ExitStack() as stack:
        for cls in (getattr(keras.layers, name) for name in cells):
            changed = of_cell(vars(cls)["get_initial_state"])
            stack.enter_context(mock.patch.object(cls, "get_initial_state", changed))
        changed = of_layer(vars(keras.layers.RNN)["get_initial_state"])
        stack.enter_context(mock.patch.object(keras.layers.RNN, "get_initial_state", changed))
        yield


@contextlib.contextmanager
def of_any_shape() -> Iterator[None]:
    """Within the context, recurrent layers return the states of such cells."""
    import keras
    import tensorflow as tf

    original = keras.layers.RNN.compute_output_shape

    def output_shape(layer: Any, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        sizes, output = _sizes(layer.cell), getattr(layer.cell, "output_size", None)
        if all(isinstance(size, int) for size in (*sizes, 0 if output is None else output)):
            return original(layer, sequences_shape, initial_state_shape)
        batch, steps = sequences_shape[:2]
        shape = _shape(sizes[0] if output is None else output)
        result = (batch, steps, *shape) if layer.return_sequences else (batch, *shape)
        states = [(batch, *_shape(size)) for size in sizes]
        return (result, *states) if layer.return_state else result

    create = keras.layers.RNN.__init__

    def with_cell(layer: Any, cell: Any, *arguments: Any, **named: Any) -> None:
        if isinstance(getattr(cell, "state_size", None), tf.TensorShape):
            cell.state_size = [cell.state_size]  # Keras 2 calls such a cell with a list, too
        create(layer, cell, *arguments, **named)

    with (
        mock.patch.object(keras.layers.RNN, "__init__", with_cell),
        mock.patch.object(keras.layers.RNN, "compute_output_shape", output_shape),
    ):
        yield


def _zeros(cell: Any, batch_size: Any = None) -> Any:
    import keras

    states = [
        keras.ops.zeros((batch_size, *_shape(size)), dtype=cell.compute_dtype)
        for size in _sizes(cell)
    ]
    return states if isinstance(cell.state_size, list | tuple) else states[0]


def _sizes(cell: Any) -> Sequence[Any]:
    return cell.state_size if isinstance(cell.state_size, list | tuple) else [cell.state_size]


def _shape(size: Any) -> tuple[int, ...]:
    """The axes of a state without that of the samples."""
    return (size,) if isinstance(size, int) else tuple(size)
