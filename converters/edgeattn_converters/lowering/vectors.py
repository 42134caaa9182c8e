"""Products with a matrix that is no constant in a TFLite file.

A product of a vector and such a matrix, in this order, is one of a row between two reshapes, which
the converter leaves out together. The vector alone is no operand of BATCH_MATMUL, so that the
conversion fails. It does not change a product in which the matrix comes first, or whose matrix is
constant.

The converter makes FULLY_CONNECTED of a product of two matrices, joins it with a ReLU or a clipping
that follows, and makes BATCH_MATMUL of it if the second matrix is no constant: without the ReLU.
"""

from collections.abc import Mapping
from typing import Any

from edgeattn_converters.graphs.constant_results import captured
from edgeattn_converters.lowering.constant_operands import is_constant

_Attributes = Mapping[str, Any]
# Operations that make a row of a vector.
_ROWS = frozenset({"Reshape", "ExpandDims", "StridedSlice"})


def product_of_row(row: Any, matrix: Any, *, attributes: _Attributes) -> Any:
    """``row @ matrix`` as the transpose of ``matrix^T @ row^T``, None for other operands."""
    import tensorflow as tf

    is_turned = any(attributes[name].b for name in _flags(attributes))
    if is_turned or not _is_row_of_vector(row) or _is_row_of_vector(matrix):
        return None
    if not row.dtype.is_floating or matrix.shape[-1] == 1 or is_constant(matrix, set()):
        return None
    column = tf.matmul(matrix, row, transpose_a=True, transpose_b=True)
    return tf.linalg.matrix_transpose(column)


def product(x: Any, y: Any, *, attributes: _Attributes) -> Any:
    """``x @ y`` of matrices, None if the converter computes it and what follows it."""
    import tensorflow as tf

    of_row = product_of_row(x, y, attributes=attributes)
    if of_row is not None or attributes["transpose_b"].b or not x.dtype.is_floating:
        return of_row
    if not _varies(y):
        return None
    # Of matrices, the converter makes FULLY_CONNECTED again.
    batches = tf.expand_dims(x, 0), tf.expand_dims(y, 0)
    return tf.squeeze(tf.matmul(*batches, transpose_a=attributes["transpose_a"].b), 0)


def _varies(matrix: Any) -> bool:
    """Whether a matrix is no constant in the file: data, or anything in a condition.

    The converter moves constants out of conditions, which get them as operands.
    """
    if not hasattr(matrix, "op"):
        return False
    waiting, visited = [matrix], set()
    while waiting:
        tensor = waiting.pop()
        if not hasattr(tensor, "op") or tensor.op in visited:
            continue
        visited.add(tensor.op)
        if tensor.op.type == "Placeholder":
            outside = captured(tensor)
            if outside is None:
                return True
            waiting.append(outside)
        waiting.extend(tensor.op.inputs)
    return _is_in_condition(matrix.graph)


def _is_in_condition(graph: Any) -> bool:
    from tensorflow.python.ops.control_flow_v2_func_graphs import CondBranchFuncGraph

    while graph is not None and not isinstance(graph, CondBranchFuncGraph):
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def _flags(attributes: _Attributes) -> tuple[str, str]:
    return ("adj_x", "adj_y") if "adj_x" in attributes else ("transpose_a", "transpose_b")


def _is_row_of_vector(tensor: Any) -> bool:
    operation = tensor.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    return operation.type in _ROWS and operation.inputs[0].shape.rank == 1
