"""Traced functions in float32 where Keras computes in other floats.

Keras 3 promotes float32 to float64 beside an array of NumPy, which is float64 unless it is written
otherwise. TFLite has hardly any operators for float64. Graphs of models in half precision compute
in float16 or bfloat16, in which no CPU runtime computes.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from edgeattn_converters.graphs.signatures import arguments_in_order, frozen

_SUFFIX = "_in_float32"
_HALF = ("float16", "bfloat16")
# Operations that round numbers, and those whose results they are.
_ROUNDING = ("Cast", "Identity", "Const", "ReadVariableOp", "VarHandleOp")


def in_float32(function: Any, half: Collection[str] = ()) -> Any:
    """``function``, whose variables are constants, with float32 for float64 and ``half``."""
    import tensorflow as tf

    if any(tensor.dtype == tf.float64 for tensor in function.inputs):
        return _in_float32(function, half)
    return _in_float32(function, ("float64", *half))


def with_live_variables(function: Any, constant: Any) -> Any:
    """``constant``, which has the variables of ``function`` as constants, as a function of their
    values at the time of a call.

    Vectors and matrices of integers, such as states of random numbers, stay constants.
    """
    from tensorflow.python.eager import wrap_function

    graph = constant.graph.as_graph_def()
    nodes = {node.name: node for node in graph.node if node.op == "Const"}
    live = []
    for handle, inside in function.graph.captures:
        kind = _kind_of_variable(handle)
        node = nodes.get(inside.op.name)
        if kind is None or node is None or not (kind.dtype.is_floating or kind.shape.rank == 0):
            continue
        single = node.attr["dtype"].type
        node.Clear()
        node.name, node.op = inside.op.name, "Placeholder"
        node.attr["dtype"].type = single
        node.attr["shape"].shape.CopyFrom(kind.shape.as_proto())
        live.append((f"{node.name}:0", handle, kind.dtype))
    inputs = [tensor.name for tensor in constant.inputs]
    single_function = wrap_function.function_from_graph_def(
        graph, [*inputs, *(name for name, *_ in live)], [tensor.name for tensor in constant.outputs]
    )
    for before, after in zip(constant.inputs, single_function.inputs, strict=False):
        after.set_shape(before.shape)  # lost for scalars

    def compute(*tensors: Any) -> Any:
        import tensorflow as tf

        values = [tf.raw_ops.ReadVariableOp(resource=item, dtype=dtype) for _, item, dtype in live]
        parameters = single_function.inputs[len(inputs) :]
        casts = [tf.cast(value, item.dtype) for value, item in zip(values, parameters, strict=True)]
        return single_function(*tensors, *casts)

    compute.graph = single_function.graph  # type: ignore[attr-defined]
    return compute


def _kind_of_variable(handle: Any) -> Any:
    """The shape and dtype of the variable of a handle; None if it is no variable."""
    import tensorflow as tf

    data = getattr(handle, "_handle_data", None)
    if handle.dtype != tf.resource or data is None or len(data.shape_and_type) != 1:
        return None
    [item] = data.shape_and_type
    return tf.TensorSpec(item.shape, tf.as_dtype(item.dtype))


def half_inside(function: Any) -> tuple[str, ...]:
    """Which of float16 and bfloat16 a function computes in; empty if an input has one of them.

    A number that is rounded to one of them and cast back at once is rounded in files too.
    """
    given = {tensor.dtype.name for tensor in function.inputs}
    if given & {*_HALF}:
        return ()
    return _half_types(function.graph.as_graph_def(), without=_ROUNDING)


def without_half(function: Any) -> tuple[Any, tuple[str, ...]]:
    """A signature with float32 for every float16 and bfloat16, and which of them it had.

    Its variables are constants. A signature without such numbers is returned unchanged.
    """
    import tensorflow as tf

    names = _half_types(function.graph.as_graph_def())
    if not names:
        return function, ()
    single = _in_float32(frozen(function), names)
    outputs = sorted(function.structured_outputs)

    def compute(**arguments: Any) -> dict[str, Any]:
        given = arguments_in_order(function, single.inputs, arguments)
        results = tf.graph_util.import_graph_def(
            single.graph.as_graph_def(),
            {tensor.name: value for tensor, value in zip(single.inputs, given, strict=True)},
            [tensor.name for tensor in single.outputs],
            name="",
        )
        return dict(zip(outputs, results, strict=True))

    _, specs = function.structured_input_signature
    single_specs = {
        name: tf.TensorSpec(spec.shape, tf.float32 if spec.dtype.name in names else spec.dtype)
        for name, spec in specs.items()
    }
    return tf.function(compute, autograph=False).get_concrete_function(**single_specs), names


def _in_float32(function: Any, names: Collection[str]) -> Any:
    """``function``, whose variables are constants, with float32 for the dtypes ``names``."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    others = {tf.as_dtype(name).as_datatype_enum for name in names}
    single = tf.float32.as_datatype_enum
    graph = function.graph.as_graph_def()
    if not any(_has(graph, tf.as_dtype(name)) for name in names):
        return function
    for attribute in _attributes(graph):
        if attribute.type in others:
            attribute.type = single
        if attribute.HasField("tensor") and attribute.tensor.dtype in others:
            values = tf.make_ndarray(attribute.tensor).astype("float32")
            attribute.tensor.CopyFrom(tf.make_tensor_proto(values))
        for position, kind in enumerate(attribute.list.type):
            if kind in others:
                attribute.list.type[position] = single
    functions = {item.signature.name for item in graph.library.function}
    for item in graph.library.function:
        # TensorFlow knows only one function of a name.
        item.signature.name += _SUFFIX
        for argument in (*item.signature.input_arg, *item.signature.output_arg):
            if argument.type in others:
                argument.type = single
    for attribute in _attributes(graph):
        single_function = [attribute.func] if attribute.HasField("func") else []
        for called in (*single_function, *attribute.list.func):
            if called.name in functions:
                called.name += _SUFFIX
    return convert_to_constants._construct_concrete_function(function, graph, set())


def _half_types(graph: Any, without: Sequence[str] = ()) -> tuple[str, ...]:
    import tensorflow as tf

    return tuple(name for name in _HALF if _has(graph, tf.as_dtype(name), without))


def _has(graph: Any, dtype: Any, without: Sequence[str] = ()) -> bool:
    kind = dtype.as_datatype_enum
    return any(
        kind in (attribute.type, attribute.tensor.dtype, *attribute.list.type)
        for node in _nodes(graph)
        if node.op not in without
        for attribute in node.attr.values()
    )


def _attributes(graph: Any) -> Iterator[Any]:
    """The attributes of all operations, also those in functions."""
    for node in _nodes(graph):
        yield from node.attr.values()


def _nodes(graph: Any) -> Iterator[Any]:
    for nodes in (graph.node, *(item.node_def for item in graph.library.function)):
        yield from nodes
