"""Graphs for a fixed number of samples, with that of a single one.

Such a graph contains the number in the operands of its reshapes and in the initial states of its
loops. These are recognized by their values only, so the results have to be compared.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from edgeattn_converters.graphs.static_shapes import ELEMENT_SHAPE, Replay

# The position of the operand that contains the sizes of the result.
_SIZES = {
    **ELEMENT_SHAPE,
    "Reshape": 1,
    "Fill": 0,
    "BroadcastTo": 1,
    "Slice": 2,
    "Tile": 1,
    "Conv2DBackpropInput": 0,
}
# The first operand of these is data of one sample if its first axis has one row.
_OF_DATA = ("Reshape", "BroadcastTo", "Slice", "Tile")


class OneSample(Replay):
    """Adds the operations of a graph for ``count`` samples as those for a single one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def add(self, operation: Any, inputs: list[Any]) -> Sequence[Any]:
        """The results of an operation with the operands for one sample."""
        import tensorflow as tf

        position = _SIZES.get(operation.type)
        if position is not None and (sizes := self._sizes(operation.type, inputs, position)):
            inputs = list(inputs)
            inputs[position] = tf.constant(sizes, inputs[position].dtype)
        # The graph is replayed once more, which needs the scopes.
        scope = operation.name.rpartition("/")[0].lstrip("_")
        with tf.name_scope(f"{scope}/") if scope else contextlib.nullcontext():
            results = super().add(operation, inputs)
        return [self._first_row(results[0])] if operation.type == "Const" else results

    def _sizes(self, kind: str, inputs: Sequence[Any], position: int) -> list[int] | None:
        """The sizes of the result for one sample, None if they are those of the graph."""
        import tensorflow as tf

        value = tf.get_static_value(inputs[position])
        if value is None or value.ndim != 1 or not len(value):
            return None
        first, *others = value.tolist()
        shape = inputs[0].shape
        if kind == "Reshape" and shape.is_fully_defined() and -1 not in value:
            # The axis of the samples may be joined with others.
            joined = value.prod() == self._count * shape.num_elements()
            return [first // self._count, *others] if joined and not first % self._count else None
        if kind in _OF_DATA and (not shape.rank or shape[0] != 1):
            return None  # such as weights
        return [1, *others] if first == self._count else None

    def _first_row(self, constant: Any) -> Any:
        """An initial state, which has the same values for every sample, for one of them."""
        import tensorflow as tf

        value = tf.get_static_value(constant)
        if value is None or value.ndim < 2 or len(value) != self._count:
            return constant
        return tf.constant(value[:1]) if (value == value[:1]).all() else constant
