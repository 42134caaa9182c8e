"""States of the user's cells of Keras 2 that are matrices, and sizes that are a ``TensorShape``.

States of cells in Keras 3 have one axis, unless the cell creates them itself.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock


def accept(cls: Any) -> None:
    """Let a cell of this class create its first states, of the shapes in its ``state_size``."""
    if not hasattr(cls, "get_initial_state"):
        cls.get_initial_state = _zeros


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
