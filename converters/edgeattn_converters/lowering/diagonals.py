"""Diagonals of matrices, by the positions of their elements.

TFLite has operators for the main diagonal only, and tf2onnx writes files that are not valid.
"""

from typing import Any

import numpy as np


def part(x: Any, offset: Any, _padding: Any = 0) -> Any:
    """One diagonal of each matrix, by the positions of its values among all values of the matrix.

    None if there are several.
    """
    import tensorflow as tf

    shift = _only(offset)
    if shift is None or None in x.shape[-2:]:
        return None
    rows, columns = x.shape[-2:]
    positions = [row * columns + row + shift for row in range(rows) if 0 <= row + shift < columns]
    flat = tf.reshape(x, tf.concat([tf.shape(x)[:-2], [rows * columns]], 0))
    return tf.gather(flat, positions, axis=-1)


def replaced(x: Any, diagonal: Any, offset: Any = 0) -> Any:
    """Each matrix with one diagonal replaced; None if there are several, or its size is unknown."""
    import tensorflow as tf

    shift = _only(offset)
    if shift is None or None in x.shape[-2:]:
        return None
    rows, columns = x.shape[-2:]
    before = max(0, -shift)
    after = rows - before - diagonal.shape[-1]
    # Each element beside the matrix in its row, and 0 in rows without one.
    padding = [*[[0, 0]] * (diagonal.shape.rank - 1), [before, after]]
    beside = tf.pad(diagonal, padding)[..., None]
    return tf.where(tf.constant(np.eye(rows, columns, shift, dtype=bool)), beside, x)


def matrix(
    diagonal: Any, offset: Any = 0, rows: Any = -1, columns: Any = -1, padding: Any = 0
) -> Any:
    """Matrices with one diagonal, and ``padding`` elsewhere; None if there are several.

    A size of -1 is the smallest one; None too if a size is unknown.
    """
    import tensorflow as tf

    shift, height, width = _only(offset), _constant(rows), _constant(columns)
    length = diagonal.shape[-1]
    if shift is None or height is None or width is None or length is None:
        return None
    # The diagonal starts in the first row or column. Without sizes, the matrix is square.
    least_height, least_width = length + max(0, -shift), length + max(0, shift)
    if height < 0 and width < 0:
        least_height = least_width = length + abs(shift)
    height = least_height if height < 0 else height
    width = least_width if width < 0 else width
    shape = tf.concat([tf.shape(diagonal)[:-1], [height, width]], 0)
    empty = tf.ensure_shape(
        tf.fill(shape, tf.cast(padding, diagonal.dtype)), [*diagonal.shape[:-1], height, width]
    )
    return replaced(empty, diagonal, shift)


def _constant(value: Any) -> int | None:
    import tensorflow as tf

    number = value if isinstance(value, int) else tf.get_static_value(value)
    return None if number is None else int(number)


def _only(offset: Any) -> int | None:
    """The offset of the only diagonal; None if there are several or it is not constant."""
    import tensorflow as tf

    value = offset if isinstance(offset, int) else tf.get_static_value(offset)
    shifts = set() if value is None else {int(k) for k in np.ravel(value)}
    return shifts.pop() if len(shifts) == 1 else None
