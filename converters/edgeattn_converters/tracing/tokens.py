"""Which values of a model's inputs are tokens: numbers that select rows of a table of weights.

The indices of every lookup in the traced graph are followed back to the inputs, through operations
that move values, convert their type or add a constant. Positions and results of other computations
are no tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array, Specs
from edgeattn_converters.tracing.loop_tokens import lookups_in_loops

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


def token_sizes(graph: Any, inputs: Sequence[Any]) -> dict[int, Array]:
    """The number of tokens at every value of a sample, 0 for no token, by the position of an input.

    ``inputs`` are the placeholders of a traced graph. Inputs without tokens are not in the result.
    """
    lookups = _lookups(graph, inputs)
    return _looked_up(graph, inputs, lookups) if lookups else {}


def sequence_lengths(inputs: Specs, tensors: Sequence[Any]) -> list[int]:
    """The lengths of the sequences that a model takes, while a call with ``tensors`` is traced.

    The last of several axes has features, unless the values are tokens, such as the words of the
    sentences of a text.
    """
    indices = [indices for indices, _ in _lookups(tensors[0].graph, tensors)]
    lengths: list[int] = []
    for spec, tensor in zip(inputs, tensors, strict=True):
        name = frozenset({tensor.op.name})
        tokens = any(_depends_on_values(item, name) for item in indices)
        axes = spec.shape[1 : None if tokens else max(2, len(spec.shape) - 1)]
        lengths.extend(axis for axis in axes if axis)
    return lengths


def _lookups(graph: Any, inputs: Sequence[Any]) -> list[tuple[Any, int]]:
    """The indices that consist of values of the inputs, and the number of rows they select from."""
    names = frozenset(tensor.op.name for tensor in inputs)
    candidates = list(lookups_in_loops(graph, _table_size, _without_wrapping))
    for operation in graph.get_operations():
        if size := _table_size(operation):
            candidates.append((_without_wrapping(operation.inputs[1]), size))
    return [item for item in candidates if _consists_of_inputs(item[0], names)]


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
    graph: Any, inputs: Sequence[Any], lookups: Sequence[tuple[Any, int]]
) -> dict[int, Array]:
    """The size of the smallest table that each value of a sample selects from, 0 if from none.

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
    tensors = [indices for indices, _ in lookups]
    result: dict[int, Array] = {}
    with tf.compat.v1.Session(graph=graph) as session:
        shifts = session.run(tensors, {**constants, **zeros})
        for position, (tensor, shape) in enumerate(zip(inputs, shapes, strict=True)):
            count = int(np.prod(shape))
            numbers = np.arange(1, count + 1).astype(zeros[tensor.name].dtype).reshape(shape)
            if tensor.dtype.is_bool or int(numbers.reshape(-1)[-1]) != count:
                continue  # too many values for the type
            sizes = np.zeros(count + 1, np.int64)
            moved = session.run(tensors, {**constants, **zeros, tensor.name: numbers})
            for values, shift, (_, size) in zip(moved, shifts, lookups, strict=True):
                selected = np.ravel(values - shift).astype(np.int64)
                allowed = np.ravel(size - shift)
                for number in np.unique(selected[selected > 0]):
                    smallest = max(1, int(allowed[selected == number].min()))
                    sizes[number] = min(sizes[number] or smallest, smallest)
            if sizes.any():
                result[position] = sizes[1:].reshape(shape[1:])
    return result
