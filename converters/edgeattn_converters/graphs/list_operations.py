"""The elements that operations on lists of tensors write and read."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeattn_converters.graphs.constant_results import constant_value
from edgeattn_converters.graphs.known_sizes import static_sizes
from edgeattn_converters.graphs.list_elements import Elements, Shape
from edgeattn_converters.graphs.list_growth import RESIZES
from edgeattn_converters.graphs.traced_lists import TracedLists

_Attributes = Mapping[str, Any]


def _dtype(attributes: _Attributes) -> Any:
    import tensorflow as tf

    return tf.as_dtype(attributes["element_dtype"].type)


def _scalar(tensor: Any) -> int | None:
    import tensorflow as tf

    value = constant_value(tf.convert_to_tensor(tensor))
    return None if value is None else int(value)


def _numbers(tensor: Any) -> list[int] | None:
    """The values of a vector, None if they are unknown or negative."""
    import tensorflow as tf

    value = tf.get_static_value(tensor)
    if value is None or value.ndim != 1 or (value < 0).any():
        return None
    return [int(number) for number in value]


# Writers return the elements of the list that an operation makes, or None.


def _reserve(
    lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes
) -> Elements | None:
    count = _scalar(inputs[1])
    if count is None:
        return None
    return Elements(_dtype(attributes), (None,) * count, shape=_shape(inputs[0]))


def _empty(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Elements:
    return Elements(_dtype(attributes), (), shape=_shape(inputs[0]))


def _from_tensor(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Elements:
    return Elements(_dtype(attributes), whole=inputs[0])


def _split(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Elements | None:
    import tensorflow as tf

    lengths = _numbers(inputs[2])
    if not lengths:
        return None
    return Elements(_dtype(attributes), tuple(tf.split(inputs[0], lengths)))


def _write(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Elements | None:
    list_, index, item = inputs
    elements = lists.readable(graph, list_, _dtype(attributes), item.shape)
    if elements is None:
        return None
    position, length = _scalar(index), elements.length
    resizes = RESIZES in attributes and attributes[RESIZES].b
    if position is None or length is None:
        return None if resizes else _updated(elements, index, item)
    if position < 0 or (position >= length and not resizes):
        return None  # an error of TensorFlow
    return elements.resized(max(length, position + 1)).with_item(position, item)


def _updated(elements: Elements, index: Any, item: Any) -> Elements | None:
    """With another element at a position that the model computes."""
    import tensorflow as tf

    whole = elements.stacked(like=item)
    if whole is None or item.shape.rank is None:
        return None
    selected = tf.equal(tf.range(tf.shape(whole)[0]), index)
    selected = tf.reshape(selected, [-1, *[1] * item.shape.rank])
    return Elements(elements.dtype, whole=tf.where(selected, item[None], whole))


def _scattered(
    lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes
) -> Elements | None:
    """Rows of a tensor as elements of a list that exists."""
    list_, rows, indices = inputs
    elements, positions = lists.known(graph, list_), _numbers(indices)
    return _with_rows(elements, rows, positions)


def _scatter(
    lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes
) -> Elements | None:
    """Rows of a tensor as elements of a new list."""
    rows, indices, shape, *count = inputs
    length = _scalar(count[0]) if count else -1
    if length is None:
        return None
    empty = Elements(_dtype(attributes), (None,) * max(0, length), shape=_shape(shape))
    return _with_rows(empty, rows, _numbers(indices))


def _with_rows(
    elements: Elements | None, rows: Any, positions: list[int] | None
) -> Elements | None:
    import tensorflow as tf

    if elements is None or elements.length is None or positions is None:
        return None
    elements = elements.resized(max([elements.length, *(k + 1 for k in positions)]))
    for position, item in zip(positions, tf.unstack(rows, len(positions)), strict=True):
        elements = elements.with_item(position, item)
    return elements


def _append(
    lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes
) -> Elements | None:
    elements = lists.known(graph, inputs[0])
    if elements is None or elements.length is None:
        return None
    length = elements.length
    return elements.resized(length + 1).with_item(length, inputs[1])


def _resize(
    lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes
) -> Elements | None:
    elements, length = lists.known(graph, inputs[0]), _scalar(inputs[1])
    if elements is None or elements.length is None or length is None:
        return None
    return elements.resized(length)


# Readers return the result of an operation that reads a list, or None.


def _read(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Any:
    import tensorflow as tf

    elements = lists.known(graph, inputs[0])
    if elements is None:
        return None
    position, length, shape = _scalar(inputs[1]), elements.length, _shape(inputs[2])
    if position is None or length is None:
        whole = elements.stacked(shape)
        return None if whole is None else tf.gather(whole, inputs[1])
    if not 0 <= position < length:
        return None  # an error of TensorFlow
    element = elements.at(position, shape)
    return None if element is None else tf.identity(element)


def _stack(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Any:
    import tensorflow as tf

    elements = lists.known(graph, inputs[0])
    whole = None if elements is None else elements.stacked(_shape(inputs[1]))
    return None if whole is None else tf.identity(whole)


def _gather(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Any:
    import tensorflow as tf

    list_, indices, shape = inputs
    elements = lists.readable(graph, list_, _dtype(attributes), _shape(shape))
    whole = None if elements is None else elements.stacked(_shape(shape))
    return None if whole is None else tf.gather(whole, indices)


def _concat(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Any:
    import tensorflow as tf

    elements = lists.readable(graph, inputs[0], _dtype(attributes))
    joined = None if elements is None else elements.joined()
    return None if joined is None else tf.identity_n(list(joined))[0]


def _length(lists: TracedLists, graph: Any, inputs: Any, attributes: _Attributes) -> Any:
    import tensorflow as tf

    elements = lists.known(graph, inputs[0])
    length = elements.length if elements is not None else lists.length_after_loop(inputs[0])
    return None if length is None else tf.constant(length, tf.int32)


WRITERS: Mapping[str, Callable[..., Elements | None]] = {
    "EmptyTensorList": _empty,
    "TensorListFromTensor": _from_tensor,
    "TensorListPushBack": _append,
    "TensorListReserve": _reserve,
    "TensorListResize": _resize,
    "TensorListScatter": _scatter,
    "TensorListScatterIntoExistingList": _scattered,
    "TensorListScatterV2": _scatter,
    "TensorListSetItem": _write,
    "TensorListSplit": _split,
}
READERS: Mapping[str, Callable[..., Any]] = {
    "TensorListConcat": _concat,
    "TensorListConcatV2": _concat,
    "TensorListGather": _gather,
    "TensorListGetItem": _read,
    "TensorListLength": _length,
    "TensorListStack": _stack,
}


def _shape(tensor: Any) -> Shape:
    """The shape of an element that an operand says, None if the number of axes is unknown."""
    return static_sizes(tensor) if tensor.shape.rank == 1 else None
