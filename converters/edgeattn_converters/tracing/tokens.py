"""Which values of a model's inputs are tokens: numbers that select rows of a table of weights.

The indices of every lookup in the traced graph are followed back to the inputs, through operations
that move values, convert their type or add a constant. Positions and results of other computations
are no tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array, Specs
from edgeattn_converters.tracing.loop_tokens import Lookup, lookups_in_loops

# Operations that only move the values of their inputs, or convert their type.
_MOVES = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "EnsureShape", "Cast", "Reshape"}
    | {"ExpandDims", "Squeeze", "Transpose", "StridedSlice", "Slice", "Split", "SplitV"}
    | {"Unpack", "Pack", "ConcatV2", "ReverseV2", "Reverse", "Tile", "BroadcastTo", "Pad", "PadV2"}
    | {"MirrorPad", "GatherV2", "Snapshot"}
)
_SUMS = frozenset({"Add", "AddV2", "BiasAdd", "Sub"})
# Their results depend on shapes alone.
_OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})


@dataclass(frozen=True)
class TokenLimits:
    """The least token at every value of a sample, and the one after the largest.

    Both are equal at values that are no tokens.
    """

    first: Array
    stop: Array

    @property
    def counts(self) -> Array:
        """The numbers of different tokens, 0 for values that are none."""
        return self.stop - self.first

    @property
    def known(self) -> Array:
        """Which values are tokens."""
        return self.stop > self.first

    def outside(self, values: Array, *, wrapped: bool = False) -> Array:
        """Which ``values`` of shape (samples, ...) are tokens beyond the limits.

        ``wrapped`` also allows as many below them, which Keras 3 counts from the end of a table.
        """
        first = self.first - self.counts if wrapped else self.first
        return self.known & ((values < first) | (values >= self.stop))

    def range_of(self, values: Array, beyond: Array) -> tuple[int, int]:
        """The least and the largest token at the first of ``values`` that is ``beyond``."""
        first, last = (np.broadcast_to(item, values.shape) for item in (self.first, self.stop - 1))
        return int(first[beyond][0]), int(last[beyond][0])


def token_limits(graph: Any, inputs: Sequence[Any]) -> dict[int, TokenLimits]:
    """The limits of tokens by the position of an input.

    ``inputs`` are the placeholders of a traced graph. Inputs without tokens are not in the result.
    """
    lookups = _lookups(graph, inputs)
    return _looked_up(graph, inputs, lookups) if lookups else {}


def sequence_lengths(inputs: Specs, tensors: Sequence[Any]) -> list[int]:
    """The lengths of the sequences that a model takes, while a call with ``tensors`` is traced.

    The last of several axes has features, unless the values are tokens, such as the words of the
    sentences of a text.
    """
    indices = [lookup.indices for lookup in _lookups(tensors[0].graph, tensors)]
    lengths: list[int] = []
    for spec, tensor in zip(inputs, tensors, strict=True):
        name = frozenset({tensor.op.name})
        tokens = any(_depends_on_values(item, name) for item in indices)
        axes = spec.shape[1 : None if tokens else max(2, len(spec.shape) - 1)]
        lengths.extend(axis for axis in axes if axis)
    return lengths


def _lookups(graph: Any, inputs: Sequence[Any]) -> list[Lookup]:
    """The lookups whose indices consist of values of the inputs."""
    names = frozenset(tensor.op.name for tensor in inputs)
    candidates = list(lookups_in_loops(graph, _lookup))
    candidates += [item for operation in graph.get_operations() if (item := _lookup(operation))]
    return [item for item in candidates if _consists_of_inputs(item.indices, names)]


def _lookup(operation: Any, table: Any = None) -> Lookup | None:
    """The lookup that an operation is, of ``table`` if it does not read from its operand."""
    size = _table_size(operation, table)
    if not size:
        return None
    indices = _without_wrapping(operation.inputs[1])
    return Lookup(indices, size, wraps=indices is not operation.inputs[1])


def _table_size(operation: Any, table: Any = None) -> int | None:
    """The number of rows of the table that a lookup reads, ``None`` for other operations.

    ``table`` is what it reads from, if that is not its operand.
    """
    import tensorflow as tf

    if operation.type not in ("GatherV2", "ResourceGather"):
        return None
    table = operation.inputs[0] if table is None else table
    axis = 0
    if operation.type == "GatherV2":
        position = tf.get_static_value(operation.inputs[2])
        if position is None or operation.get_attr("batch_dims"):
            return None
        axis = int(position)
    if table.dtype == tf.resource:
        from tensorflow.python.ops import handle_data_util

        data = handle_data_util.get_resource_handle_data(table)
        shape = [size.size for size in data.shape_and_type[0].shape.dim] if data.is_set else []
    else:
        shape = [] if table.shape.rank is None else [size or 0 for size in table.shape]
    known = -len(shape) <= axis < len(shape) and shape[axis] > 0
    return int(shape[axis]) if known else None


def _without_wrapping(indices: Any) -> Any:
    """The indices before negative ones are counted from the end: ``i if i >= 0 else i + n``."""
    tensor = indices
    while tensor.op.type in ("Identity", "Cast"):
        tensor = tensor.op.inputs[0]
    operation = tensor.op
    if operation.type not in ("Select", "SelectV2"):
        return indices
    negative, wrapped, kept = operation.inputs
    wraps = (
        negative.op.type == "Less"
        and negative.op.inputs[0].name == kept.name
        and wrapped.op.type in _SUMS
        and kept.name in [item.name for item in wrapped.op.inputs]
    )
    return kept if wraps else indices


def _consists_of_inputs(tensor: Any, names: frozenset[str]) -> bool:
    """Whether a tensor consists of values of the inputs ``names``, shifted by constants at most."""
    waiting, visited, depends = [tensor], set(), False
    while waiting:
        item = waiting.pop()
        operation = item.op
        depends |= operation.name in names
        if operation.name in visited:
            continue
        visited.add(operation.name)
        sources = [
            k for k, source in enumerate(operation.inputs) if _depends_on_values(source, names)
        ]
        if sources and not _moves_or_shifts(item, sources):
            return False
        waiting.extend(operation.inputs[k] for k in sources)
    return depends


def _moves_or_shifts(tensor: Any, sources: Sequence[int]) -> bool:
    """Whether a tensor contains values of the inputs number ``sources``, moved or shifted."""
    operation = tensor.op
    if tensor.dtype.is_bool:
        return False
    if operation.type in ("Sub", "GatherV2"):
        return list(sources) == [0]
    return len(sources) == 1 if operation.type in _SUMS else operation.type in _MOVES


def _depends_on_values(tensor: Any, names: frozenset[str]) -> bool:
    """Whether a tensor depends on values of the inputs ``names``, and not on shapes alone."""
    waiting, visited = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in names:
            return True
        if operation.name not in visited and operation.type not in _OF_SHAPES:
            visited.add(operation.name)
            waiting.extend(source.op for source in operation.inputs)
    return False


def _looked_up(
    graph: Any, inputs: Sequence[Any], lookups: Sequence[Lookup]
) -> dict[int, TokenLimits]:
    """The rows that all tables have that a value of a sample selects from, by the input.

    The indices are computed once from zeros, which leaves the constants that are added, and once
    from the positions of the values of each input.
    """
    import tensorflow as tf

    shapes = [[1, *(axis or 1 for axis in tensor.shape[1:])] for tensor in inputs]
    zeros = {
        tensor.name: np.zeros(shape, tensor.dtype.as_numpy_dtype)
        for tensor, shape in zip(inputs, shapes, strict=True)
    }
    # Constants enter a function as placeholders too. Small ones are copied and cannot be fed.
    constants = {
        inner.name: outer.numpy()
        for outer, inner in graph.captures
        if inner.dtype != tf.resource and hasattr(outer, "numpy") and graph.is_feedable(inner)
    }
    tensors = [lookup.indices for lookup in lookups]
    result: dict[int, TokenLimits] = {}
    with tf.compat.v1.Session(graph=graph) as session:
        shifts = session.run(tensors, {**constants, **zeros})
        for position, (tensor, shape) in enumerate(zip(inputs, shapes, strict=True)):
            count = int(np.prod(shape))
            numbers = np.arange(1, count + 1).astype(zeros[tensor.name].dtype).reshape(shape)
            if tensor.dtype.is_bool or int(numbers.reshape(-1)[-1]) != count:
                continue  # too many values for the type
            moved = session.run(tensors, {**constants, **zeros, tensor.name: numbers})
            selected = [
                np.ravel(values - shift).astype(np.int64)
                for values, shift in zip(moved, shifts, strict=True)
            ]
            limits = _limits(lookups, shifts, selected, count, numbers.dtype)
            if limits.known.any():
                first, stop = (item.reshape(shape[1:]) for item in (limits.first, limits.stop))
                result[position] = TokenLimits(first, stop)
    return result


def _limits(
    lookups: Sequence[Lookup],
    shifts: Sequence[Array],
    selected: Sequence[Array],
    count: int,
    dtype: Any,
) -> TokenLimits:
    """The limits of ``count`` values of an input.

    ``shifts`` are added to the indices of ``lookups``, which are the values number ``selected``,
    from 1, or 0 if they are no values of the input.
    """
    lowest, highest = -(2**62), 2**62
    if dtype.kind in "iu":
        lowest, highest = int(np.iinfo(dtype).min), min(highest, int(np.iinfo(dtype).max) + 1)
    first, stop = np.full(count + 1, lowest), np.full(count + 1, highest)
    is_token = np.zeros(count + 1, bool)
    for lookup, shift, numbers in zip(lookups, shifts, selected, strict=True):
        added = np.ravel(shift).astype(np.int64) + lookup.shift
        # A zero that is shifted below the first row is the last one if negative indices wrap.
        least = np.minimum(-added, 0) if lookup.wraps else -added
        np.maximum.at(first, numbers, least)
        np.minimum.at(stop, numbers, lookup.size - added)
        is_token[numbers] = True
    # No value is in several tables at once if their rows do not overlap.
    is_token &= stop > first
    return TokenLimits(np.where(is_token, first, 0)[1:], np.where(is_token, stop, 0)[1:])
