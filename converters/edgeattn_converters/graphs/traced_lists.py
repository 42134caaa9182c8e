"""What is known about lists of tensors while a graph is traced."""

import functools
from collections.abc import Callable
from typing import Any

from edgeattn_converters.graphs.function_graphs import LOOPS
from edgeattn_converters.graphs.list_elements import Elements

SAME = ("Identity", "StopGradient")


class TracedLists:
    """What is known about lists, by references to them."""

    def __init__(self) -> None:
        self._elements: dict[Any, Elements] = {}
        # Functions that return the lengths of lists that loops return.
        self._lengths: dict[Any, Callable[[], int | None]] = {}

    def remember_length(self, list_: Any, length: Callable[[], int | None]) -> None:
        """``length`` computes that of a list that a loop returns, which may take time."""
        self._lengths[list_.ref()] = functools.cache(length)

    def remember(self, list_: Any, elements: Elements) -> None:
        self._elements[list_.ref()] = elements

    def known(self, graph: Any, list_: Any) -> Elements | None:
        """The elements of a list, None if they are unknown in ``graph``.

        The body of a loop gets lists of the graph around it as operands.
        """
        elements = self._elements.get(list_.ref())
        while elements is not None and graph is not list_.graph:
            if type(graph).__name__ != "CondBranchFuncGraph":
                return None
            graph = graph.outer_graph
        return elements

    def readable(self, graph: Any, list_: Any, dtype: Any, shape: Any = None) -> Elements | None:
        """The elements of a list; those that a loop returns as one tensor.

        ``shape`` is the shape of an element, as far as the reader knows it.
        """
        import tensorflow as tf

        elements = self.known(graph, list_)
        if elements is not None or not is_of_loop(list_) or list_.graph is not graph:
            return elements
        length, data = self.length_after_loop(list_), _handle_data(list_)
        shapes = [tf.TensorShape(shape), tf.TensorShape(None if data is None else data.shape)]
        whole = tf.raw_ops.TensorListStack(
            input_handle=list_,
            element_shape=element_shape(shapes[0].merge_with(shapes[1])),
            element_dtype=dtype,
            num_elements=-1 if length is None else length,
        )
        return Elements(dtype, whole=whole)

    def length_after_loop(self, list_: Any) -> int | None:
        length = self._lengths.get(_source(list_).ref())
        return None if length is None else length()

    def returned(self, list_: Any) -> Elements | None:
        """The elements of a list that a loop returns, if TensorFlow knows their dtype."""
        import tensorflow as tf

        if not is_of_loop(list_):
            return None
        data = _handle_data(list_)
        dtype = None if data is None else tf.as_dtype(data.dtype)
        return None if dtype is None else self.readable(list_.graph, list_, dtype)


def _handle_data(list_: Any) -> Any:
    """What TensorFlow knows about the shape and dtype of the elements of a list, or None."""
    from tensorflow.python.ops.handle_data_util import get_resource_handle_data

    data = get_resource_handle_data(list_)
    known = data is not None and data.is_set and len(data.shape_and_type) == 1
    return data.shape_and_type[0] if known else None


def element_shape(shape: Any) -> Any:
    """The shape of an element as the operand of an operation on lists."""
    import tensorflow as tf

    sizes = -1 if shape.rank is None else [-1 if size is None else size for size in shape]
    return tf.constant(sizes, tf.int32)


def is_of_loop(list_: Any) -> bool:
    return _source(list_).op.type in LOOPS


def _source(list_: Any) -> Any:
    while list_.op.type in SAME:
        list_ = list_.op.inputs[0]
    return list_
