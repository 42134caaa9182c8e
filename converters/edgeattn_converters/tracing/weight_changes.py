"""What operations between a softmax and a product with data do to the weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.tracing.axes import REDUCTIONS, Axes, axes_behind
from edgeattn_converters.tracing.origins import is_mask, is_weights
from edgeattn_converters.tracing.products import kept_axes
from edgeattn_converters.tracing.softmax_forms import divided_by_own_sum, inverse, normalizations_of

_MOVES = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "EnsureShape"),
    *("Tile", "BroadcastTo", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs"),
    *("Transpose", "ExpandDims", "Squeeze", "Reshape", "StridedSlice", "GatherV2", "Pack"),
    *("ConcatV2", "Split", "Unpack"),
)
_SUMS = ("AddV2", "Add", "AddN", "Sub", "Maximum", "Minimum", "Select", "SelectV2")
_QUOTIENTS = ("RealDiv", "Div", "DivNoNan")
# Monotonic for weights, which are not negative.
_SHARPENING = ("Pow", "Square", "Sqrt", "Relu", "Relu6", "Abs", "ClipByValue")


@dataclass(frozen=True)
class Tracked:
    """Weights on their way to data.

    ``tensor`` is their current value and ``weights`` the map that it belongs to: the last value
    that differs by more than its shape, or a factor for all keys. ``axes`` are those of the
    normalizations, in the tensor and in the weights, beginning with the last. ``normalized`` says
    whether weights were divided by their sum on the way, and ``gated`` that they may be data.
    ``constants`` says that constants may be the data that they multiply.
    """

    tensor: Any
    weights: Any
    axes: tuple[tuple[Axes, Axes], ...]
    doubt: str | None = None
    normalized: bool = False
    gated: bool = False
    constants: bool = False


def changed(
    tracked: Tracked,
    operation: Any,
    axes: Sequence[Axes | None] | None = None,
    *,
    doubt: str | None = None,
    added: Axes | None = None,
) -> Iterator[Tracked]:
    """The result of an operation that changes weights, if an axis of a normalization remains.

    ``axes`` are where those are in the result, by default aligned from the last. ``added`` are
    those over which the result is normalized.
    """
    result = operation.outputs[0]
    if result.shape.rank is None:
        return
    shift = int(result.shape.rank) - int(tracked.tensor.shape.rank)
    if axes is None:
        axes = [tuple(axis + shift for axis in own) for own, _ in tracked.axes]
    remaining = [(item, item) for item in axes if item is not None and min(item) > 0]
    normalized = tracked.normalized
    if added is not None:
        own = tuple(axis + shift for axis in added)
        remaining = [(own, own), *(pair for pair in remaining if pair[0] != own)]
        normalized = True
    if remaining:
        doubt = tracked.doubt or doubt
        yield replace(
            tracked,
            tensor=result,
            weights=result,
            axes=tuple(remaining),
            doubt=doubt,
            normalized=normalized,
        )


def without_product(operation: Any, tracked: Tracked) -> Iterator[Tracked]:
    """The weights behind an operation that is no product."""
    kind = operation.type
    if kind in _MOVES or kind in REDUCTIONS:
        yield from _moved(operation, tracked)
    elif kind in _QUOTIENTS:
        if operation.inputs[0] is tracked.tensor:
            quotient = scaled(operation, tracked, operation.inputs[1])
            yield from changed(tracked, operation) if quotient is None else [quotient]
    elif kind in _SHARPENING:
        if operation.inputs[0] is tracked.tensor:
            yield from changed(tracked, operation)
    elif kind in _SUMS:
        yield from _summed(operation, tracked)
    elif operation.outputs and _has_shape_of(operation.outputs[0], tracked.tensor):
        yield from changed(tracked, operation, doubt=_doubt(operation))


def _has_shape_of(result: Any, tensor: Any) -> bool:
    known = result.shape.rank is not None
    return known and bool(result.shape.as_list() == tensor.shape.as_list())


def scaled(operation: Any, tracked: Tracked, other: Any) -> Tracked | None:
    """The weights behind a factor or divisor that all keys of a row share.

    A division by their own sum is a normalization. None if ``other`` differs between keys.
    """
    divisor = inverse(other) if operation.type == "Mul" else other
    if divisor is not None:
        added = divided_by_own_sum(tracked.tensor, divisor)
        if added is not None:
            return next(changed(tracked, operation, added=added), None)
    result, shape = operation.outputs[0], other.shape
    if result.shape.rank is None or shape.rank is None:
        return None
    behind = int(tracked.tensor.shape.rank)
    for own, _ in tracked.axes:
        positions = [shape.rank - (behind - axis) for axis in own]
        if any(position >= 0 and shape[position] != 1 for position in positions):
            return None
    of_result = not is_data(other) and _is_change(tracked)
    if of_result or is_mask(other, of_integers=True):
        # The half of a sum of two softmaxes sums to 1; queries that are masked have no weights.
        return next(changed(tracked, operation), None)
    shift = int(result.shape.rank) - behind
    pairs = [(tuple(axis + shift for axis in own), item) for own, item in tracked.axes]
    return replace(tracked, tensor=result, axes=tuple(pairs))


def behind_matrix_of_constants(
    operation: Any, tracked: Tracked, position: int
) -> Iterator[Tracked]:
    """Weights that a matrix mixes, over heads for example; another axis than that of the keys."""
    if not tracked.gated:
        yield from changed(tracked, operation, kept_axes(operation, position, tracked))


def _moved(operation: Any, tracked: Tracked) -> Iterator[Tracked]:
    if operation.type == "Reshape":
        mixed = _behind_flat_matrix(operation, tracked)
        if mixed is not None:
            yield mixed
            return
    changes = operation.type in REDUCTIONS and _is_smaller(operation.outputs[0], tracked.tensor)
    if changes and tracked.gated:
        return
    for result in operation.outputs:
        moved = [axes_behind(operation, tracked.tensor, own) for own, _ in tracked.axes]
        if changes or _is_part(operation, tracked.tensor, moved):
            yield from changed(replace(tracked, tensor=result), operation, moved)
            continue
        pairs = [
            (own, item)
            for own, (_, item) in zip(moved, tracked.axes, strict=True)
            if own is not None
        ]
        if not pairs:
            continue
        behind = replace(tracked, tensor=result, axes=tuple(pairs))
        if operation.type == "Transpose" and _is_change(tracked):
            # As it is multiplied: heads that a matrix mixes are ahead of the queries again.
            same = tuple((own, own) for own, _ in pairs)
            behind = replace(behind, weights=result, axes=same)
        yield behind


def _is_change(tracked: Tracked) -> bool:
    """Whether the tensor is the result of a change, and not a softmax."""
    return tracked.tensor is tracked.weights and not normalizations_of(tracked.weights.op)


def _is_smaller(result: Any, tensor: Any) -> bool:
    """Whether axes are reduced that have more than one element."""
    sizes = [[size for size in item.shape.as_list()[1:] if size != 1] for item in (result, tensor)]
    return sizes[0] != sizes[1]


def _is_part(operation: Any, tensor: Any, moved: Sequence[Axes | None]) -> bool:
    """Whether a slice has a part of the keys."""
    result = operation.outputs[0]
    return operation.type == "StridedSlice" and any(
        result.shape.rank == tensor.shape.rank and result.shape[axis] != tensor.shape[axis]
        for axes in moved
        for axis in axes or ()
    )


def _behind_flat_matrix(operation: Any, tracked: Tracked) -> Tracked | None:
    """The result of a Dense layer over the last axis, which flattens all axes ahead of it."""
    tensor, flat = tracked.tensor, operation.outputs[0]
    rank = tensor.shape.rank
    if flat.shape.rank != 2 or rank < 3 or tracked.gated:
        return None
    kept = [own if rank - 1 not in own else None for own, _ in tracked.axes]
    for product in flat.consumers():
        if product.type != "MatMul" or product.inputs[0] is not flat:
            continue
        matrix = product.inputs[1]
        if is_data(matrix) or matrix.shape[0] != tensor.shape[-1]:
            continue
        for shaped in product.outputs[0].consumers():
            after = shaped.outputs[0].shape
            same_rank = shaped.type == "Reshape" and after.rank == rank
            if same_rank and after.as_list()[1:-1] == tensor.shape.as_list()[1:-1]:
                return next(changed(tracked, shaped, kept), None)
    return None


def _summed(operation: Any, tracked: Tracked) -> Iterator[Tracked]:
    """A sum or choice with constants or other weights changes weights; one with data may not."""
    operands = list(operation.inputs)
    if operation.type in ("Select", "SelectV2"):
        if operands[0] is tracked.tensor:
            return
        operands = operands[1:]
    others = [item for item in operands if item is not tracked.tensor and is_data(item)]
    subtracted = operation.type == "Sub" and operands[1] is tracked.tensor
    if all(map(is_weights, others)) and not (subtracted and not others):
        yield from changed(tracked, operation)
    else:
        yield from changed(tracked, operation, doubt=_doubt(operation))


def _doubt(operation: Any) -> str:
    return f"{operation.type} changes its weights before they multiply data"
