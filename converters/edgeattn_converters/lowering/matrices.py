"""Linear algebra of small matrices, with the steps of each elimination written out.

The formats have no operators for it. The last two axes are the matrices, the others are the batch.
Rows are exchanged as in LAPACK: the pivot is the largest element of the rest of its column, the
first one if several are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Each row adds about a dozen operators, each of which computes the whole matrix.
MAX_ROWS = 32
_Attributes = Mapping[str, Any]


def inverse(matrix: Any, *, attributes: _Attributes) -> Any:
    """The solution for the columns of the identity."""
    import tensorflow as tf

    if not _is_small(matrix):
        return None
    rows = matrix.shape[-1]
    identity = tf.eye(rows, dtype=matrix.dtype) + tf.zeros_like(matrix)
    return solve(matrix, identity, attributes=attributes)


def solve(matrix: Any, right: Any, *, attributes: _Attributes) -> Any:
    """``x`` in ``matrix @ x = right``: each step clears a column above and below its pivot."""
    import tensorflow as tf

    if not _is_small(matrix) or right.shape[-1] is None:
        return None
    if attributes["adjoint"].b:
        matrix = tf.linalg.matrix_transpose(matrix)
    rows = matrix.shape[-1]
    both = tf.concat([matrix, right], -1)
    for k in range(rows):
        both, _ = _exchanged(both, k)
        pivot_row = both[..., k : k + 1, :] / both[..., k : k + 1, k : k + 1]
        others = _constant([row != k for row in range(rows)])
        both = tf.where(others, both - both[..., k : k + 1] * pivot_row, pivot_row)
    return both[..., rows:]


def determinant(matrix: Any) -> Any:
    """The product of the pivots, with a sign for each exchange."""
    pivots = _pivots(matrix)
    if pivots is None:
        return None
    sign, *factors = pivots
    for factor in factors:
        sign = sign * factor
    return sign


def log_determinant(matrix: Any) -> Any:
    """The sign of the determinant, and the sum of the logarithms of its factors."""
    import tensorflow as tf

    pivots = _pivots(matrix)
    if pivots is None:
        return None
    sign, *factors = pivots
    factors = tf.stack(factors, -1)
    sign = sign * tf.reduce_prod(tf.sign(factors), -1)
    logarithm = tf.reduce_sum(tf.math.log(tf.abs(factors)), -1)
    return _several(sign, logarithm)


def factors(matrix: Any, *, attributes: _Attributes) -> Any:
    """L below and R on and above the diagonal, and the order of the rows."""
    import tensorflow as tf

    if not _is_small(matrix):
        return None
    rows = matrix.shape[-1]
    numbers = tf.range(rows, dtype=matrix.dtype)[:, None] + tf.zeros_like(matrix[..., :1])
    both = tf.concat([matrix, numbers], -1)
    for k in range(rows - 1):
        both, _ = _exchanged(both, k)
        column = _quotient(both[..., k : k + 1], both[..., k : k + 1, k : k + 1])
        below = _constant([row > k for row in range(rows)])
        right = _constant([k < position < rows for position in range(rows + 1)], -1)
        at_column = _constant([position == k for position in range(rows + 1)], -1)
        cleared = both - column * both[..., k : k + 1, :]
        changed = tf.where(right, cleared, tf.where(at_column, column, both))
        both = tf.where(below, changed, both)
    order = tf.cast(both[..., rows], tf.as_dtype(attributes["output_idx_type"].type))
    return _several(both[..., :rows], order)


def cholesky(matrix: Any) -> Any:
    """L in ``matrix = L @ L.T``; only the lower triangle of ``matrix`` is read."""
    import tensorflow as tf

    if not _is_small(matrix):
        return None
    rows = matrix.shape[-1]
    columns = []
    for k in range(rows):
        from_diagonal = _constant([row >= k for row in range(rows)])
        column = matrix[..., k : k + 1] / tf.sqrt(matrix[..., k : k + 1, k : k + 1])
        column = tf.where(from_diagonal, column, tf.zeros_like(column))
        columns.append(column)
        matrix = matrix - column * tf.linalg.matrix_transpose(column)
    return tf.concat(columns, -1)


def solve_triangular(matrix: Any, right: Any, *, attributes: _Attributes) -> Any:
    """``x`` in ``matrix @ x = right``, row by row; the other triangle is not read."""
    import tensorflow as tf

    if not _is_small(matrix) or right.shape[-1] is None:
        return None
    lower = bool(attributes["lower"].b)
    if attributes["adjoint"].b:
        matrix, lower = tf.linalg.matrix_transpose(matrix), not lower
    rows = matrix.shape[-1]
    results: list[Any] = []
    for k in range(rows) if lower else reversed(range(rows)):
        result = right[..., k : k + 1, :] / matrix[..., k : k + 1, k : k + 1]
        results.append(result)
        right = right - matrix[..., k : k + 1] * result
    return tf.concat(results if lower else results[::-1], -2)


def orthogonal_factors(matrix: Any, *, attributes: _Attributes) -> Any:
    """Q and R in ``matrix = Q @ R``, from reflections with the signs of LAPACK.

    A reflection maps a column to ``-sign(x0) |x|`` on the diagonal, unless it is 0 below it.
    """
    import tensorflow as tf

    rows, columns = matrix.shape[-2:]
    if rows is None or columns is None or max(rows, columns) > MAX_ROWS:
        return None
    triangle = matrix
    product = tf.eye(rows, dtype=matrix.dtype) + tf.zeros_like(matrix[..., :1])
    for k in range(min(rows - 1, columns)):
        below = _constant([row > k for row in range(rows)])
        at_diagonal = _constant([row == k for row in range(rows)])
        first = triangle[..., k : k + 1, k : k + 1]
        column = triangle[..., k : k + 1]
        tail = tf.where(below, column, tf.zeros_like(column))
        tail_square = tf.reduce_sum(tail * tail, -2, keepdims=True)
        is_zero = tf.equal(tail_square, 0)
        size = tf.sqrt(first * first + tail_square)
        diagonal = tf.where(first >= 0, -size, size)
        reflected = tf.where(is_zero, tf.ones_like(first), first - diagonal)
        vector = tail / reflected + tf.where(at_diagonal, tf.ones_like(tail), tf.zeros_like(tail))
        weight = (diagonal - first) / tf.where(is_zero, tf.ones_like(first), diagonal)
        weight = tf.where(is_zero, tf.zeros_like(weight), weight)
        transposed = tf.linalg.matrix_transpose(vector)
        triangle = triangle - weight * vector * tf.matmul(transposed, triangle)
        product = product - weight * tf.matmul(product, vector) * transposed
    if not attributes["full_matrices"].b:
        product, triangle = product[..., : min(rows, columns)], triangle[..., :columns, :]
    upper = [[row <= column for column in range(columns)] for row in range(triangle.shape[-2])]
    triangle = tf.where(tf.constant(upper), triangle, tf.zeros_like(triangle))
    return _several(product, triangle)


def _pivots(matrix: Any) -> list[Any] | None:
    """The sign of the exchanges, and the pivots; None if the matrix is not small."""
    import tensorflow as tf

    if not _is_small(matrix):
        return None
    sign, pivots = tf.ones_like(matrix[..., 0, 0]), []
    for _ in range(matrix.shape[-1]):
        matrix, exchanged = _exchanged(matrix, 0)
        sign = tf.where(exchanged, -sign, sign)
        pivots.append(matrix[..., 0, 0])
        factors = _quotient(matrix[..., 1:, :1], matrix[..., :1, :1])
        matrix = matrix[..., 1:, 1:] - factors * matrix[..., :1, 1:]
    return [sign, *pivots]


def _exchanged(matrix: Any, k: int) -> tuple[Any, Any]:
    """The rows ``k`` and that of its pivot exchanged; whether these are two rows."""
    import tensorflow as tf

    rows = matrix.shape[-2]
    if k == rows - 1:
        return matrix, tf.zeros_like(matrix[..., 0, 0], tf.bool)
    below = tf.argmax(tf.abs(matrix[..., k:, k]), -1, output_type=tf.int32)
    is_pivot = tf.equal(tf.range(rows), below[..., None] + k)[..., None]
    pivot_row = tf.reduce_sum(tf.where(is_pivot, matrix, tf.zeros_like(matrix)), -2, keepdims=True)
    at_k = _constant([row == k for row in range(rows)])
    exchanged = tf.where(at_k, pivot_row, tf.where(is_pivot, matrix[..., k : k + 1, :], matrix))
    return exchanged, below > 0


def _several(*results: Any) -> Any:
    """The first output of one operation with these outputs."""
    import tensorflow as tf

    return tf.identity_n(results)[0]


def _quotient(numerator: Any, denominator: Any) -> Any:
    """The quotient, 0 if the denominator is 0, in whose column all other elements are 0 too."""
    import tensorflow as tf

    is_zero = tf.equal(denominator, 0)
    quotient = numerator / tf.where(is_zero, tf.ones_like(denominator), denominator)
    return tf.where(is_zero, tf.zeros_like(quotient), quotient)


def _constant(values: Sequence[bool], axis: int = -2) -> Any:
    """A mask of rows, or of columns."""
    import tensorflow as tf

    mask = tf.constant(list(values))
    return mask[:, None] if axis == -2 else mask[None, :]


def _is_small(matrix: Any) -> bool:
    rows, columns = matrix.shape[-2:]
    return rows is not None and rows == columns and 0 < rows <= MAX_ROWS
