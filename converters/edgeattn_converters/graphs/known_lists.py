"""Lists of tensors whose elements are known while a graph is traced, as these tensors.

A ``tf.TensorArray`` is a list in the graph, for which ONNX has no operator outside of loops. What a
Python loop writes to it, ``array.write(2, y)``, has a position that is known, so that every reader
of the list can read the tensor ``y`` itself. TFLite has no operators for lists either: its
converter replaces some, each write by an update of a whole tensor.

The operations on lists are added, too, and have no effect unless a loop or condition reads them. A
loop that reads or returns lists does not change: what follows it reads the list as a tensor.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from edgeattn_converters.graphs.function_graphs import LOOPS
from edgeattn_converters.graphs.list_elements import Elements
from edgeattn_converters.graphs.list_growth import Loop, grows, lengths_after
from edgeattn_converters.graphs.list_operations import READERS, WRITERS
from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy
from edgeattn_converters.graphs.traced_lists import SAME, TracedLists, element_shape

_KINDS = frozenset({*WRITERS, *READERS, *SAME, *LOOPS})
# Loops that read these lists are converted as they are.
_PLAIN = ("TensorListFromTensor", "TensorListReserve")
# The attribute that makes empty lists different. The converter of TFLite makes one list of those of
# the same length whose elements have unknown shapes, and gives it the shape of one of them.
_LIST = "_edgeattn_list"


@contextlib.contextmanager
def known_lists() -> Iterator[None]:
    """Within the context, operations that read lists of known elements read the elements."""
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    lists, numbers = TracedLists(), itertools.count()

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if kind not in _KINDS or is_copy(kwargs):
            return create(graph, kind, inputs, *args, **kwargs)
        attributes = kwargs["attrs"]
        if kind == "TensorListReserve":
            attributes[_LIST] = AttrValue(i=next(numbers))
        if kind in READERS:
            result = READERS[kind](lists, graph, inputs, attributes)
            if result is not None:
                return result.op
        if kind == "TensorListStack":
            _set_length(attributes, partial(lists.length_after_loop, inputs[0]))
        written = WRITERS[kind](lists, graph, inputs, attributes) if kind in WRITERS else None
        lengths: dict[int, Callable[[], int | None]] = {}
        if kind in LOOPS:
            inputs, lengths = _operands(lists, graph, inputs, attributes)
        # A condition that gets a list as an operand cannot be converted.
        is_outside = inputs and inputs[0].dtype.name == "variant" and inputs[0].graph is not graph
        own = _as_list(written) if written is not None and is_outside else None
        operation = create(graph, kind, inputs, *args, **kwargs) if own is None else own.op
        if kind in SAME:
            written = lists.known(graph, operation.inputs[0])
        if written is not None:
            lists.remember(operation.outputs[0], written)
        for position, length_after in lengths.items():
            lists.remember_length(operation.outputs[position], length_after)
        return operation

    with created_by(creation):
        yield


def _set_length(attributes: Any, length: Callable[[], int | None]) -> None:
    """Let an operation that joins the elements of a list know how many there are."""
    count = attributes.get("num_elements")
    if count is not None and count.i < 0 and (known := length()) is not None:
        count.i = known


def _operands(
    lists: TracedLists, graph: Any, inputs: Sequence[Any], attributes: Any
) -> tuple[list[Any], dict[int, Callable[[], int | None]]]:
    """The operands of a loop, and functions that return the lengths of lists after it.

    The loop gets the elements of a list as one tensor. Lists that grow have their last length from
    the beginning; the body in ``attributes`` becomes one that expects it.
    """
    known = {
        k: elements
        for k, item in enumerate(inputs)
        if item.dtype.name == "variant" and item.graph is graph
        if (elements := lists.known(graph, item) or lists.returned(item)) is not None
    }
    if not known:
        return list(inputs), {}
    loop = Loop(graph, inputs, attributes["body"].func.name, attributes["cond"].func.name)
    before = {k: item.length for k, item in known.items()}
    grown, attributes["body"].func.name = lengths_after(loop, before)
    operands = list(inputs)
    for k, elements in known.items():
        if k in grown or inputs[k].op.type not in _PLAIN:
            changed = _as_list(elements.resized(grown[k]) if k in grown else elements)
            operands[k] = inputs[k] if changed is None else changed
    return operands, {k: partial(_length_after, loop, k, before[k], grown.get(k)) for k in known}


def _length_after(loop: Loop, position: int, before: int | None, grown: int | None) -> int | None:
    """The length ``grown`` of a list, or that ``before`` the loop if nothing but writes changes
    it."""
    writes = loop.writes(position)
    if writes is None or (grown is None and any(map(grows, writes))):
        return None
    return before if grown is None else grown


def _as_list(elements: Elements) -> Any:
    """A list of the elements that both converters accept as an operand of a loop, or None."""
    import tensorflow as tf

    if elements.items is not None and all(item is None for item in elements.items):
        return tf.raw_ops.TensorListReserve(
            element_shape=element_shape(tf.TensorShape(elements.shape)),
            num_elements=len(elements.items),
            element_dtype=elements.dtype,
        )
    whole = elements.stacked()
    if whole is None:
        return None
    return tf.raw_ops.TensorListFromTensor(
        tensor=whole, element_shape=element_shape(whole.shape[1:])
    )
