"""Stacks of the steps of a sequence: of an unrolled recurrence, or of a layer at every step.

``LSTM(unroll=True)`` and ``TimeDistributed`` select the steps of their input one by one, and stack
the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.tracing.axes import static_value

# Their results have steps: what a loop returns, and inputs of the model.
_OF_STEPS = ("TensorListStack", "StatelessWhile", "While", "Placeholder")
_POOLING = ("MaxPool", "AvgPool")
_ONE_INDEX = ("begin_mask", "end_mask", "shrink_axis_mask")


@dataclass(frozen=True)
class Steps:
    """The steps from which the tensors of a stack are computed.

    Attributes:
        sequence: The tensor with all steps.
        axis: Its axis of steps.
        is_recurrence: Whether each tensor is computed from all steps so far, and not from one.
    """

    sequence: Any
    axis: int
    is_recurrence: bool


@dataclass(frozen=True)
class _Step:
    """One step of a tensor."""

    sequence: Any
    axis: int
    index: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a graph: the step that it is, if any, and the tensors that it is computed from.

    ``sources`` are those by name.
    """

    step: _Step | None
    is_weight: bool
    sources: tuple[tuple[str, Any], ...]


def steps_of(operation: Any) -> Steps | None:
    """Return the steps from which a ``Pack`` or ``ConcatV2`` is computed, None if it has others.

    The tensors that it joins must be one for every step, in order, and must be computed with the
    same weights: the k-th from the first (or last) k steps, or from the k-th step alone.
    """
    items = _items(operation)
    if len(items) < 2:
        return None
    selected, weights = [], []
    visited: dict[str, _Tensor] = {}
    for item in items:
        found, used = _behind(item, visited)
        selected.append(found)
        weights.append(used)
    if any(used != weights[0] for used in weights):
        return None
    sources = {(x.sequence.name, x.axis): x for x in selected[0]}
    for key, source in sources.items():
        chosen = [
            {x.index for x in found if (x.sequence.name, x.axis) == key} for found in selected
        ]
        if source.sequence.shape[source.axis] != len(items) or not is_data(source.sequence):
            continue
        is_recurrence = _are_nested(chosen) or _are_nested(chosen[::-1])
        if is_recurrence or chosen == [{k} for k in range(len(items))]:
            return Steps(source.sequence, source.axis, is_recurrence)
    return None


def _items(operation: Any) -> Sequence[Any]:
    if operation.type == "Pack":
        return list(operation.inputs)
    axis = static_value(operation.inputs[-1])
    items = list(operation.inputs)[:-1]
    is_known = axis is not None and all(item.shape.rank is not None for item in items)
    return items if is_known and all(item.shape[int(axis)] == 1 for item in items) else []


def _are_nested(chosen: Sequence[set[int]]) -> bool:
    """Whether the k-th set has the first k steps, or the last k."""
    count = len(chosen)
    first = [set(range(k + 1)) for k in range(count)]
    last = [set(range(count - 1 - k, count)) for k in range(count)]
    return list(chosen) in (first, last)


def _behind(item: Any, known: dict[str, _Tensor]) -> tuple[list[_Step], set[str]]:
    """The steps that are selected ahead of a tensor, and the weights between.

    ``known`` are tensors by name, to which those behind ``item`` are added: reading them from the
    graph again for every step takes much longer.
    """
    found: list[_Step] = []
    weights: set[str] = set()
    first = str(item.name)
    known.setdefault(first, _read(item))
    waiting, visited = [first], {first}
    while waiting:
        name = waiting.pop()
        tensor = known[name]
        if tensor.step is not None:
            found.append(tensor.step)
            continue
        if tensor.is_weight:
            weights.add(name)
        for key, source in tensor.sources:
            if key not in visited:
                visited.add(key)
                waiting.append(key)
                if key not in known:
                    known[key] = _read(source)
    return found, weights


def _read(tensor: Any) -> _Tensor:
    import tensorflow as tf

    is_weight = tensor.op.type == "Placeholder" and tensor.dtype == tf.resource
    sources = tuple((str(source.name), source) for source in tensor.op.inputs)
    return _Tensor(_selected(tensor), is_weight, sources)


def has_steps(tensor: Any, axis: int) -> bool:
    """Whether ``axis`` of a tensor surely has the steps of a loop, of an input or of pooling."""
    operation = tensor.op
    if operation.type in _OF_STEPS:
        return True
    # Those over one axis have an axis of one element more.
    return operation.type == "Squeeze" and operation.inputs[0].op.type in _POOLING and axis == 1


def _selected(tensor: Any) -> _Step | None:
    """What a tensor is, if it is one step of another tensor at one of its axes but the last."""
    operation = tensor.op
    if operation.type not in ("Unpack", "StridedSlice"):
        return None
    sequence = operation.inputs[0]
    rank = sequence.shape.rank
    if rank is None or rank < 3:
        return None
    if operation.type == "Unpack":
        axis, index = operation.get_attr("axis") % rank, tensor.value_index
    else:
        place = _one_index(operation)
        if place is None:
            return None
        axis, index = place
    size = sequence.shape[axis]
    if axis == rank - 1 or size is None or not -size <= index < size:
        return None
    return _Step(sequence, axis, index % size)


def _one_index(operation: Any) -> tuple[int, int] | None:
    """The axis and the index of ``x[:, index]``; None for other slices."""
    if operation.get_attr("ellipsis_mask") or operation.get_attr("new_axis_mask"):
        return None
    begins, ends, shrunk = (operation.get_attr(name) for name in _ONE_INDEX)
    if shrunk.bit_count() != 1:
        return None
    axis = shrunk.bit_length() - 1
    begin, strides = static_value(operation.inputs[1]), static_value(operation.inputs[3])
    if begin is None or strides is None or axis >= len(begin):
        return None
    whole = [k for k in range(len(begin)) if k != axis]
    if any(not (begins >> k & 1 and ends >> k & 1 and strides[k] == 1) for k in whole):
        return None
    return axis, int(begin[axis])
