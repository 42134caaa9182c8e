"""Results whose shape depends on the values of constants.

``tf.boolean_mask`` and ``keras.ops.repeat`` select with the positions of a mask (``tf.where``).
TensorFlow infers no shape for them, although it is known if the mask is a constant; nor for the
number of segments of ``tf.math.segment_mean``, which follows from the largest of constants.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from edgeattn.tensors import Array
from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy

_OF_SHAPES = frozenset({"Shape", "Size", "Rank"})
_PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderWithDefault"})
_SEGMENTS = frozenset({f"Segment{kind}" for kind in ("Sum", "Mean", "Prod", "Max", "Min")})
# It stands for nodes of ONNX (:mod:`~edgeattn_converters.lowering.placeholders`), which TensorFlow
# cannot compute. It accepts any inputs and has a text attribute.
FOR_NODES = "PyFuncStateless"


@contextlib.contextmanager
def constant_results() -> Iterator[None]:
    """Within the context, operations of constants with results of unknown shapes are constants.

    Results for segments get their shape.
    """
    import tensorflow as tf

    of_data: set[Any] = set()

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        operation = create(graph, kind, inputs, *args, **kwargs)
        if operation.type in _SEGMENTS:
            _set_number_of_segments(operation)
        if _is_of_data(operation, of_data):
            of_data.add(operation)
            return operation
        is_known = all(tensor.shape.is_fully_defined() for tensor in operation.outputs)
        if is_known or is_copy(kwargs) or kind in _PLACEHOLDERS:
            return operation
        values = _values(operation)
        if values is None:
            return operation
        constants = [tf.constant(value) for value in values]
        return constants[0].op if len(constants) == 1 else tf.identity_n(constants)[0].op

    with created_by(creation):
        yield


def constant_value(tensor: Any) -> Array | None:
    """The value of a tensor that no input of the model is behind; None for other tensors."""
    import tensorflow as tf

    value: Array | None = tf.get_static_value(tensor)
    if value is not None or not hasattr(tensor, "op"):
        return value
    if tensor.op.type in _PLACEHOLDERS:
        outside = _constant_outside(tensor)
        return None if outside is None or outside.dtype == tf.resource else outside.numpy()
    size = _known_size(tensor.op)
    if size is not None:
        return size
    values = _values(tensor.op)
    return None if values is None else values[tensor.value_index]


def _set_number_of_segments(operation: Any) -> None:
    rows, segments = operation.inputs
    result, numbers = operation.outputs[0], constant_value(segments)
    if numbers is not None and numbers.size and rows.shape.rank:
        result.set_shape([int(numbers.max()) + 1, *rows.shape[1:]])


def _is_of_data(operation: Any, of_data: set[Any]) -> bool:
    """Whether values of the model's inputs, or sizes that are free, are behind an operation."""
    if operation.type in _PLACEHOLDERS:
        return False  # unknown before it is used: constants enter functions as placeholders too
    if _known_size(operation) is not None:
        return False
    return any(
        tensor.op in of_data
        or (tensor.op.type in _PLACEHOLDERS and _constant_outside(tensor) is None)
        for tensor in operation.inputs
    )


def _known_size(operation: Any) -> Array | None:
    """The sizes that an operation reads from the shape of data, if all of them are known."""
    from tensorflow.python.framework.smart_cond import smart_constant_value

    is_slice = operation.type == "StridedSlice" and operation.inputs[0].op.type in _OF_SHAPES
    if operation.type not in _OF_SHAPES and not is_slice:
        return None
    value: Array | None = smart_constant_value(operation.outputs[0])
    return value


def of_constants(*operands: Any, kind: str) -> Any:
    """The result of an operation of one result as a constant; None if an operand is not constant.

    ``kind`` is its name in ``tf.raw_ops``.
    """
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    values = [constant_value(tensor) for tensor in operands]
    if any(value is None for value in values):
        return None
    names = [item.name for item in op_def_registry.get(kind).input_arg]
    with tf.init_scope():
        result = getattr(tf.raw_ops, kind)(**dict(zip(names, values, strict=True)))
    return tf.constant(result.numpy())


def captured(placeholder: Any) -> Any:
    """The tensor outside the function that a placeholder stands for, None for an argument."""
    captures = getattr(placeholder.graph, "captures", ())
    return next((outside for outside, inside in captures if inside is placeholder), None)


def _constant_outside(placeholder: Any) -> Any:
    """The constant or variable outside the function that a placeholder stands for, or None."""
    outside = captured(placeholder)
    return None if hasattr(outside, "op") else outside


def _values(operation: Any) -> list[Array] | None:
    """The results of an operation that no data is behind; None if it has other effects."""
    nodes, known, waiting = [operation.node_def], {}, [*operation.inputs]
    if not _is_pure(operation):
        return None
    visited = {operation}
    while waiting:
        tensor = waiting.pop()
        ahead = tensor.op
        if ahead in visited:
            continue
        visited.add(ahead)
        size = _known_size(ahead)
        value = _constant_outside(tensor) if ahead.type in _PLACEHOLDERS else size
        if value is not None:
            known[tensor.name] = value
            continue
        if ahead.type in _PLACEHOLDERS or not _is_pure(ahead):
            return None
        nodes.append(ahead.node_def)
        waiting.extend(ahead.inputs)
    return computed(nodes, known, [tensor.name for tensor in operation.outputs])


def _is_pure(operation: Any) -> bool:
    """Whether an operation only computes from its operands, without functions that it calls."""
    calls = any(value.HasField("func") for value in operation.node_def.attr.values())
    stateful = operation.op_def.is_stateful and operation.type != "ReadVariableOp"
    arrays = all(tensor.dtype.is_numpy_compatible for tensor in operation.outputs)
    if operation.type == FOR_NODES:
        return False
    return arrays and not calls and not stateful and not operation.control_inputs


def computed(nodes: list[Any], known: dict[str, Any], results: list[str]) -> list[Array]:
    """The values of ``results`` in a graph of ``nodes`` if tensors have the values ``known``."""
    import tensorflow as tf
    from tensorflow.core.framework.graph_pb2 import GraphDef

    def function() -> Any:
        graph = tf.compat.v1.get_default_graph()
        inputs = {name: graph.capture(tf.convert_to_tensor(value)) for name, value in known.items()}
        return tf.graph_util.import_graph_def(GraphDef(node=nodes), inputs, results, name="")

    with tf.init_scope():
        return [value.numpy() for value in tf.compat.v1.wrap_function(function, [])()]
