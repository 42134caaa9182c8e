"""Products of a vector and a matrix of data, in this order, for TFLite.

Such a product is one of a row between two reshapes, which the converter leaves out together. The
vector alone is no operand of BATCH_MATMUL, so that the conversion fails. It does not change a
product in which the matrix comes first, or whose matrix is constant.
"""

from collections.abc import Mapping
from typing import Any

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


def _flags(attributes: _Attributes) -> tuple[str, str]:
    return ("adj_x", "adj_y") if "adj_x" in attributes else ("transpose_a", "transpose_b")


def _is_row_of_vector(tensor: Any) -> bool:
    operation = tensor.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    return operation.type in _ROWS and operation.inputs[0].shape.rank == 1
