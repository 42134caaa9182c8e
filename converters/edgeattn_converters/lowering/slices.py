"""Slices with new axes as slices and reshapes, and those of shapes as constants.

tf2onnx counts the axes behind an ellipsis wrongly if there are new ones, as in
``x[:, tf.newaxis, ..., ::-1]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.lowering.known_sizes import part_of_shape

_MASKS = ("begin_mask", "end_mask", "shrink_axis_mask")


def sliced(x: Any, begin: Any, end: Any, strides: Any, *, attributes: Mapping[str, Any]) -> Any:
    """StridedSlice as other operations; None if tf2onnx writes it."""
    sizes = part_of_shape(x, begin, end, strides, attributes=attributes)
    if sizes is not None:
        return sizes
    return _without_new_axes(x, begin, end, strides, attributes=attributes)


def sliced_at_tensors(
    x: Any, begin: Any, end: Any, strides: Any, *, attributes: Mapping[str, Any]
) -> Any:
    """StridedSlice with bounds that are computed, which TFLite lacks; None for constant bounds."""
    import tensorflow as tf

    if all(tf.get_static_value(bound) is not None for bound in (begin, end, strides)):
        return None
    return _without_new_axes(x, begin, end, strides, attributes=attributes)


def _without_new_axes(
    x: Any, begin: Any, end: Any, strides: Any, *, attributes: Mapping[str, Any]
) -> Any:
    """StridedSlice without new axes, and a reshape; None if there are none or ranks are unknown."""
    import tensorflow as tf

    masks = {name: attributes[name].i for name in (*_MASKS, "ellipsis_mask", "new_axis_mask")}
    count = begin.shape[0]
    if not masks["new_axis_mask"] or not masks["ellipsis_mask"] or None in (count, x.shape.rank):
        return None
    items = _items(count, x.shape.rank, masks)
    kept = [item for item in items if item != "new"]
    bounds = [
        tf.stack([full if item == "all" else bound[item] for item in kept])
        for bound, full in zip(map(_elements, (begin, end, strides)), (0, 0, 1), strict=True)
    ]
    bits = {name: _bits(kept, masks[name], name != "shrink_axis_mask") for name in _MASKS}
    result = x if _is_whole(kept, strides, masks) else tf.strided_slice(x, *bounds, **bits)
    removed = [item != "new" and item != "all" and _bit(masks, "shrink_axis_mask", item)
               for item in items]  # fmt: skip
    remaining = [item for item, is_removed in zip(items, removed, strict=True) if not is_removed]
    for axis, item in enumerate(remaining):
        if item == "new":
            result = tf.expand_dims(result, axis)
    return result


def _items(count: int, rank: int, masks: Mapping[str, int]) -> list[Any]:
    """For each axis, ``"new"``, ``"all"`` or its position among the bounds."""
    items: list[Any] = []
    for position in range(count):
        if _bit(masks, "ellipsis_mask", position):
            items.append("...")
        else:
            items.append("new" if _bit(masks, "new_axis_mask", position) else position)
    place = items.index("...")
    behind = rank - sum(item not in ("new", "...") for item in items)
    return [*items[:place], *["all"] * behind, *items[place + 1 :]]


def _bit(masks: Mapping[str, int], name: str, position: int) -> bool:
    return bool(masks[name] >> position & 1)


def _bits(kept: Sequence[Any], mask: int, is_whole: bool) -> int:
    """The bits of a mask for other positions; the axes of an ellipsis are whole."""
    bits = [is_whole if item == "all" else mask >> item & 1 for item in kept]
    return sum(1 << position for position, bit in enumerate(bits) if bit)


def _is_whole(kept: Sequence[Any], strides: Any, masks: Mapping[str, int]) -> bool:
    """Whether every axis is selected in its order, as in ``x[..., tf.newaxis]``."""
    import tensorflow as tf

    steps = tf.get_static_value(strides)
    return all(
        item == "all"
        or (
            steps is not None
            and steps[item] == 1
            and _bit(masks, "begin_mask", item)
            and _bit(masks, "end_mask", item)
            and not _bit(masks, "shrink_axis_mask", item)
        )
        for item in kept
    )


def _elements(bound: Any) -> list[Any]:
    """The elements of a bound, as numbers where they are known."""
    import tensorflow as tf

    value = tf.get_static_value(bound, partial=True)
    if value is None:
        return [bound[position] for position in range(bound.shape[0])]
    return [
        bound[position] if number is None else int(number) for position, number in enumerate(value)
    ]
