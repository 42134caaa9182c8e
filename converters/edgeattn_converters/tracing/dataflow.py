"""Follows softmax weights through a traced graph to the data that they multiply.

The axes over which the weights are normalized are followed along, to know which axis of the data
they meet in a product. What operations do to the weights on the way is part of the map: it is the
value that multiplies the data. A factor that all keys of a row share is not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.tracing.axes import Axes
from edgeattn_converters.tracing.origins import (
    depends_on,
    is_mask,
    is_non_negative,
    is_stacked,
    is_weights,
)
from edgeattn_converters.tracing.products import PRODUCTS, kept_axes, partner_axes
from edgeattn_converters.tracing.single_keys import multiplied_values, takes_one_key
from edgeattn_converters.tracing.softmax_forms import softmax_of
from edgeattn_converters.tracing.weight_changes import (
    Tracked,
    behind_matrix_of_constants,
    changed,
    scaled,
    without_product,
)

_FUNCTIONS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If")
# The largest number of tensors to visit.
MAX_VISITED = 10_000
# The largest number of gates that one value passes.
_MAX_GATES = 3

_OTHER_AXIS = "its weights are summed along another axis than the one over which they sum to 1"
_NO_DATA = "it multiplies the weights of another softmax, and no data"


@dataclass(frozen=True)
class WeightedSum:
    """Data that is multiplied by ``weights``; ``doubt`` is why this may not be attention.

    ``axes`` are those of the weights that the data has too. ``data`` are the tensors, none if a
    function that cannot be analyzed takes the weights.
    """

    doubt: str | None
    weights: Any
    axes: Axes
    data: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A product of weights; ``explicit`` if its form shows which operand the weights are."""

    tracked: Tracked
    axes: Axes
    doubt: str | None
    data: Any = None
    explicit: bool = False


def find_weighted_sums(
    weights: Any,
    axes: Sequence[Axes],
    lengths: Sequence[int] = (),
    multiplying: Any = None,
    constants: bool = False,
) -> list[WeightedSum]:
    """What ``weights``, normalized over ``axes``, multiply; one for each value that is a map.

    ``axes`` begins with the last normalization. ``multiplying`` is the value that is followed, if
    it is not the weights themselves: weights that are normalized after the sum. ``lengths`` are
    the sequence lengths of the model's inputs. A single one has a doubt if all have one.
    With ``constants``, these may be the data, too.
    """
    start = weights if multiplying is None else multiplying
    pairs = tuple((item, item) for item in axes)
    tracked = Tracked(start, weights, pairs, constants=constants)
    found = list(_search(tracked, lengths))
    certain = [item for item in found if item.doubt is None]
    if not certain:
        doubtful = [item for item in found if item.tracked.weights is found[0].tracked.weights]
        data = tuple(item.data for item in doubtful if item.data is not None)
        return [_weighted_sum(item, data) for item in found[:1]]
    by_map: dict[tuple[str, Axes], list[_Found]] = {}
    for item in certain:
        by_map.setdefault((item.tracked.weights.name, item.axes), []).append(item)
    return [
        _weighted_sum(items[0], tuple(item.data for item in items)) for items in by_map.values()
    ]


def _weighted_sum(found: _Found, data: tuple[Any, ...]) -> WeightedSum:
    return WeightedSum(found.doubt, found.tracked.weights, found.axes, data)


def _search(start: Tracked, lengths: Sequence[int], gates: int = 0) -> Iterator[_Found]:
    waiting = [start]
    visited: set[tuple[str, str]] = set()
    while waiting and len(visited) < MAX_VISITED:
        tracked = waiting.pop()
        key = (tracked.tensor.name, tracked.weights.name)
        if key in visited:
            continue
        visited.add(key)
        for operation in dict.fromkeys(tracked.tensor.consumers()):
            for item in _through(operation, tracked, lengths, gates):
                if isinstance(item, Tracked):
                    waiting.append(item)
                else:
                    yield item


def _through(
    operation: Any, tracked: Tracked, lengths: Sequence[int], gates: int
) -> Iterator[Tracked | _Found]:
    """What an operation does with the weights: changes or moves them, or multiplies data."""
    if operation.type in _FUNCTIONS:
        doubt = "its weights are passed to a function that cannot be analyzed"
        yield _Found(tracked, tracked.axes[0][1], doubt)
    elif operation.type not in PRODUCTS:
        own, map_axes = tracked.axes[0]
        if takes_one_key(operation, tracked.tensor, own):
            known = tracked.constants
            uncertain = None if known else _doubt_of_parts(tracked.tensor.shape[own[0]], lengths)
            for value in multiplied_values(operation, constants=known):
                yield _Found(tracked, map_axes, tracked.doubt or uncertain, value)
            return
        # A further softmax has a map of its own; quotients may be normalized for another time.
        if operation.type not in ("Softmax", "Exp") or softmax_of(operation) is None:
            yield from without_product(operation, tracked)
    elif len(operation.inputs) == 2:
        for k, tensor in enumerate(operation.inputs):
            if tensor is not tracked.tensor:
                continue
            if operation.type == "Mul":
                yield from _through_multiplication(operation, tracked, k, lengths, gates)
                return
            yield from _through_matrices(operation, tracked, k, lengths)


def _through_matrices(
    operation: Any, tracked: Tracked, position: int, lengths: Sequence[int]
) -> Iterator[Tracked | _Found]:
    """A product of matrices sums along an axis of the weights, or keeps it."""
    other = operation.inputs[1 - position]
    if other.shape.rank is None:
        return
    of_inputs, met = is_data(other), False
    for own, map_axes in tracked.axes if of_inputs or _is_constant_data(other, tracked) else ():
        partner = partner_axes(operation, position, own)
        if partner is not None:
            met = True
            doubt = tracked.doubt or (_doubt(other, partner, lengths) if of_inputs else None)
            yield _Found(tracked, map_axes, doubt, other, explicit=True)
    if met:
        return
    if not of_inputs:
        yield from behind_matrix_of_constants(operation, tracked, position)
    elif is_weights(other):
        yield from changed(tracked, operation, kept_axes(operation, position, tracked))
    elif any(axes is not None for axes in kept_axes(operation, position, tracked)):
        yield _Found(tracked, tracked.axes[0][1], _OTHER_AXIS, other)


def _through_multiplication(
    operation: Any, tracked: Tracked, position: int, lengths: Sequence[int], gates: int
) -> Iterator[Tracked | _Found]:
    """A product by elements weights data, scales rows of weights, or lets a part of them pass."""
    tensor, other = tracked.tensor, operation.inputs[1 - position]
    if other is tensor:
        yield from changed(tracked, operation)
        return
    if other.shape.rank is None:
        return
    quotient = scaled(operation, tracked, other)
    if quotient is not None:
        yield quotient
        return
    met = [
        (map_axes, partner)
        for own, map_axes in tracked.axes
        if (partner := partner_axes(operation, position, own)) is not None
    ]
    widens = operation.outputs[0].shape[-1] != tensor.shape[-1]
    if not is_data(other) or is_mask(other) or not met:
        if is_mask(other) or not met or not _is_constant_data(other, tracked):
            yield from changed(tracked, operation)
            return
        products = [] if widens else list(_behind_constant(operation, tracked, lengths, gates))
        yield from products
        if not products:
            for map_axes, _ in met:
                yield _Found(tracked, map_axes, tracked.doubt, other, explicit=widens)
        return
    products = list(_behind_gate(operation, tracked, other, lengths, gates))
    if products:
        yield from products
        return
    if is_weights(other) and not widens:
        # The other softmax may have the map that the product is.
        for behind in changed(tracked, operation):
            yield _Found(behind, behind.axes[0][1], _NO_DATA, other)
        return
    for map_axes, partner in met:
        doubt = tracked.doubt or _doubt(other, partner, lengths)
        yield _Found(tracked, map_axes, doubt, other, explicit=widens)


def _is_constant_data(tensor: Any, tracked: Tracked) -> bool:
    """Whether a constant may be what weights multiply: it has as many samples as they have."""
    if not tracked.constants:
        return False
    shapes = tensor.shape, tracked.tensor.shape
    return shapes[0].rank == shapes[1].rank == 2 or bool(
        shapes[0].rank and shapes[0][0] == shapes[1][0]
    )


def _behind_constant(
    operation: Any, tracked: Tracked, lengths: Sequence[int], gates: int
) -> Iterator[_Found]:
    """Products of data with ``operation``, weights times a constant, without a doubt."""
    if gates < _MAX_GATES:
        for behind in changed(tracked, operation):
            found = _search(behind, lengths, gates + 1)
            yield from (item for item in found if item.doubt is None)


def _behind_gate(
    operation: Any, tracked: Tracked, gate: Any, lengths: Sequence[int], gates: int
) -> Iterator[_Found]:
    """Products of data with ``operation``, if that is weights times a gate, and not times data.

    A gate leaves weights what they are: the result is divided by its own sum, or no operand is
    negative, or a further product with data, independent of the weights, has the form of a
    weighted sum.
    """
    result = operation.outputs[0]
    if gates == _MAX_GATES or result.shape[-1] != tracked.tensor.shape[-1]:
        return
    for behind in changed(tracked, operation):
        for found in _search(replace(behind, gated=True), lengths, gates + 1):
            if found.doubt is not None or found.data is None:
                continue
            if is_weights(found.data) or depends_on(found.data, tracked.tensor):
                continue
            if (
                found.explicit
                or found.tracked.normalized
                or is_non_negative(gate)
                or is_weights(gate)
            ):
                yield replace(found, tracked=replace(found.tracked, gated=tracked.gated))


def _doubt(other: Any, partner: Axes, lengths: Sequence[int]) -> str | None:
    """Why data at these axes may not be a sequence."""
    sizes = [other.shape[axis] for axis in partner]
    if len(sizes) > 1:
        return None
    (size,) = sizes
    if other.shape.rank == 2:
        if size in lengths:
            return None
        return f"it weights {size} values per sample, which are not an input sequence"
    (axis,) = partner
    if size not in lengths and axis != other.shape.rank - 1 and is_stacked(other, axis):
        return f"it weights {size} stacked results, which may not be a sequence"
    return None


def _doubt_of_parts(count: int | None, lengths: Sequence[int]) -> str | None:
    """Why values that are multiplied by one weight each may not be a sequence."""
    if count in lengths:
        return None
    return f"it weights {count} separate values, which may not be a sequence"
