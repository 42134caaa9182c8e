"""Discrete Fourier transforms as products with constant matrices, for any length.

``X[k] = sum over t of x[t] * exp(-2 pi i t k / n)``. A long transform is two products with smaller
matrices, as in the algorithm of Cooley and Tukey: for ``n = rows * columns``,
``t = columns * t1 + t2`` and ``k = k1 + rows * k2``, sums over ``t1``, factors
``exp(-2 pi i t2 k1 / n)`` and sums over ``t2``.

Complex numbers are pairs of real tensors; an imaginary part of None is zero. Transforms are over
the last axis, whose size is known.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.tensors import Array

# In the names of the operations, from which the quantizers recognize them.
SCOPE = "edgeattn_spectrum"
SPECTROGRAMS = ("MelSpectrogram", "STFTSpectrogram")
# Up to this length, one matrix is smaller than 67 kB.
LARGEST_MATRIX = 128
Pair = tuple[Any, Any]


def transform(x: Pair, *, inverse: bool = False, bins: int | None = None) -> Pair:
    """The first ``bins`` values of the transform of ``x``, all by default."""
    import tensorflow as tf

    size = int(x[0].shape[-1])
    with tf.name_scope(SCOPE):
        return _transform(x, size, bins or size, inverse)


def transform_of_real(x: Any) -> Pair:
    """The first half of the transform, ``n // 2 + 1`` values; the others are their conjugates."""
    return transform((x, None), bins=int(x.shape[-1]) // 2 + 1)


def inverse_to_real(x: Pair, length: int) -> Any:
    """The real values whose transform starts with the ``length // 2 + 1`` values of ``x``."""
    import tensorflow as tf

    bins = length // 2 + 1
    with tf.name_scope(SCOPE):
        # The others are conjugates, in reverse order.
        positions = [*range(bins), *range(length - bins, 0, -1)]
        signs = tf.constant([1.0] * bins + [-1.0] * (length - bins), x[0].dtype)
        real = tf.gather(x[0], positions, axis=-1)
        imaginary = None if x[1] is None else tf.gather(x[1], positions, axis=-1) * signs
        return _transform((real, imaginary), length, length, inverse=True)[0]


def along(x: Pair, axis: int, step: Callable[[Pair], Pair]) -> Pair:
    """Apply ``step``, which works on the last axis, to a negative ``axis``."""
    import tensorflow as tf

    if axis == -1:
        return step(x)
    order = list(range(x[0].shape.rank))
    order[axis], order[-1] = order[-1], order[axis]
    swapped = _each(lambda part: tf.transpose(part, order), x)
    return _each(lambda part: tf.transpose(part, order), step(swapped))


def _transform(x: Pair, size: int, bins: int, inverse: bool) -> Pair:
    import tensorflow as tf

    rows = _rows(size)
    if rows == 1:
        return _product(x, _roots(range(size), range(bins), size, inverse, inverse))
    columns = size // rows
    shape = _with_last_axes(x[0], rows, columns)
    x = _each(lambda part: _transposed(tf.reshape(part, shape)), x)
    x = _product(x, _roots(range(rows), range(rows), rows, inverse))
    x = _multiplied(x, _roots(range(columns), range(rows), size, inverse, inverse))
    x = _each(_transposed, x)
    x = _product(x, _roots(range(columns), range(-(-bins // rows)), columns, inverse))
    return _each(
        lambda part: tf.reshape(_transposed(part), [*shape[:-2], -(-bins // rows) * rows])[
            ..., :bins
        ],
        x,
    )


def _rows(size: int) -> int:
    """The largest divisor up to the square root; 1 for short transforms and poor divisors.

    An even divisor has an even counterpart. The middle of the transform of real values is then
    exactly real, which its angle depends on.
    """
    if size <= LARGEST_MATRIX:
        return 1
    divisors = (k for k in range(int(size**0.5), 0, -1) if size % k == 0)
    rows = next(k for k in divisors if k % 2 or size // k % 2 == 0)
    return rows if rows >= 4 else 1


def _roots(
    times: range, frequencies: range, size: int, inverse: bool, scaled: bool = False
) -> tuple[Array, Array]:
    """``exp(-2 pi i t k / size)``, conjugated and divided by ``size`` for the inverse transform."""
    turns = np.outer(times, frequencies) % size
    divisor = size if scaled else 1
    sines = _cosines(4 * turns - size, size) / divisor
    # No negative zeros: their product with a real value would be one, too.
    return _cosines(4 * turns, size) / divisor, (sines if inverse else -sines) + 0.0


def _cosines(quarters: Array, size: int) -> Array:
    """``cos(pi / 2 * quarters / size)`` for integers; exact multiples of a quarter and equal
    magnitudes at angles that are mirrored, unlike ``np.cos``."""
    quarters = np.abs(quarters) % (4 * size)
    quarters = np.minimum(quarters, 4 * size - quarters)
    angles = np.minimum(quarters, 2 * size - quarters)
    cosines = np.where(
        2 * angles <= size,
        np.cos(np.pi / 2 * angles / size),
        np.sin(np.pi / 2 * (size - angles) / size),
    )
    return np.where(quarters > size, -cosines, cosines)


def _combined(x: Pair, numbers: tuple[Array, Array], multiply: Callable[[Any, Any], Any]) -> Pair:
    """The product with complex constants."""
    import tensorflow as tf

    real, imaginary = x
    cosines, sines = (tf.constant(part, real.dtype) for part in numbers)
    if imaginary is None:
        return multiply(real, cosines), multiply(real, sines)
    return (
        multiply(real, cosines) - multiply(imaginary, sines),
        multiply(real, sines) + multiply(imaginary, cosines),
    )


def _product(x: Pair, matrix: tuple[Array, Array]) -> Pair:
    import tensorflow as tf

    return _combined(x, matrix, tf.matmul)


def _multiplied(x: Pair, factors: tuple[Array, Array]) -> Pair:
    return _combined(x, factors, operator.mul)


def _each(function: Callable[[Any], Any], x: Pair) -> Pair:
    return function(x[0]), None if x[1] is None else function(x[1])


def _transposed(x: Any) -> Any:
    import tensorflow as tf

    rank = x.shape.rank
    return tf.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def _with_last_axes(x: Any, *sizes: int) -> list[Any]:
    """The shape of ``x`` with other axes in place of the last."""
    import tensorflow as tf

    leading = x.shape.as_list()[:-1]
    if leading.count(None) > 1:
        dynamic = tf.shape(x)
        leading = [dynamic[k] if size is None else size for k, size in enumerate(leading)]
    return [*(-1 if size is None else size for size in leading), *sizes]


def lower_spectrogram(layer: Any) -> Callable[..., Any] | None:
    """MelSpectrogram and STFTSpectrogram, with names from which quantizers recognize them."""
    if not is_spectrogram(layer):
        return None
    original = layer.call

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        with tf.name_scope(SCOPE):
            return original(inputs)

    return call


def is_spectrogram(layer: Any) -> bool:
    """Whether the layer is one of Keras' spectrograms, or of the loader's in place of them."""
    kinds = type(layer).__mro__[:2]
    return any(
        kind.__name__ in SPECTROGRAMS and kind.__module__.startswith("keras.") for kind in kinds
    )
