"""Traced functions in float32 where Keras computes in float64.

Keras 3 promotes float32 to float64 beside an array of NumPy, which is float64 unless it is written
otherwise. TFLite has hardly any operators for float64.
"""

from collections.abc import Iterator
from typing import Any

_SUFFIX = "_in_float32"


def in_float32(function: Any) -> Any:
    """``function``, whose variables are constants, with float32 for every float64."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    double, single = tf.float64.as_datatype_enum, tf.float32.as_datatype_enum
    if any(tensor.dtype == tf.float64 for tensor in function.inputs):
        return function
    graph = function.graph.as_graph_def()
    changed = False
    for attribute in _attributes(graph):
        if attribute.type == double:
            attribute.type, changed = single, True
        if attribute.HasField("tensor") and attribute.tensor.dtype == double:
            values = tf.make_ndarray(attribute.tensor).astype("float32")
            attribute.tensor.CopyFrom(tf.make_tensor_proto(values))
            changed = True
        for position, kind in enumerate(attribute.list.type):
            if kind == double:
                attribute.list.type[position], changed = single, True
    if not changed:
        return function
    names = {item.signature.name for item in graph.library.function}
    for item in graph.library.function:
        # TensorFlow knows only one function of a name.
        item.signature.name += _SUFFIX
        for argument in (*item.signature.input_arg, *item.signature.output_arg):
            if argument.type == double:
                argument.type = single
    for attribute in _attributes(graph):
        single_function = [attribute.func] if attribute.HasField("func") else []
        for called in (*single_function, *attribute.list.func):
            if called.name in names:
                called.name += _SUFFIX
    return convert_to_constants._construct_concrete_function(function, graph, set())


def _attributes(graph: Any) -> Iterator[Any]:
    """The attributes of all operations, also those in functions."""
    for nodes in (graph.node, *(item.node_def for item in graph.library.function)):
        for node in nodes:
            yield from node.attr.values()
