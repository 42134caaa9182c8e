"""Operations of TensorFlow that no format has, from few others: formulas of each.

:mod:`.missing_operations` replaces them.
"""

import functools
import math
import operator
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn_converters.keras_classes import is_keras_class, operations_of

_Attributes = Mapping[str, Any]


def cross(a: Any, b: Any) -> Any:
    """``(a2 b3 - a3 b2, a3 b1 - a1 b3, a1 b2 - a2 b1)`` over the last axis."""
    import tensorflow as tf

    def rotated(x: Any, *order: int) -> Any:
        return tf.gather(x, order, axis=-1)

    return rotated(a, 1, 2, 0) * rotated(b, 2, 0, 1) - rotated(a, 2, 0, 1) * rotated(b, 1, 2, 0)


def in_top_k(predictions: Any, targets: Any, k: Any) -> Any:
    """Whether fewer than ``k`` predictions are above that of the target, which is finite.

    False if the target is no class.
    """
    import tensorflow as tf

    last = tf.shape(predictions, targets.dtype)[1] - 1
    known = tf.minimum(tf.maximum(targets, 0), last)
    target = tf.gather(predictions, known[:, None], axis=1, batch_dims=1)
    above = tf.reduce_sum(tf.cast(predictions > target, tf.int32), axis=1)
    counts = tf.logical_and(tf.math.is_finite(target[:, 0]), tf.equal(known, targets))
    return tf.logical_and(above < tf.cast(k, tf.int32), counts)


def add_bias(values: Any, bias: Any, *, attributes: _Attributes) -> Any:
    """``values + bias`` with a bias for each channel, of integers and in data formats ``NC...``.

    ``keras.ops.add`` is this operation if a constant has the shape of a bias. The channels are the
    last axis, or the second one. None for floats whose bias the converter adds.
    """
    import tensorflow as tf

    rank = values.shape.rank
    is_second = attributes["data_format"].s.startswith(b"NC")
    if rank is None or (values.dtype.is_floating and (not is_second or rank == 4)):
        return None
    if is_second and rank > 2:
        bias = tf.reshape(bias, [-1, *[1] * (rank - 2)])
    return tf.add(values, bias)


def one_hot(indices: Any, depth: Any, on: Any, off: Any, *, attributes: _Attributes) -> Any:
    """OneHot, whose rows of indices outside 0 to ``depth`` have no code.

    The operator of ONNX counts negative indices from the end.
    """
    import tensorflow as tf

    axis = attributes["axis"].i
    rank = indices.shape.rank
    if rank is None:
        return None
    if indices.dtype not in (tf.int32, tf.int64):
        indices = tf.cast(indices, tf.int32)
    axis = rank if axis == -1 else axis
    classes = tf.reshape(tf.range(tf.cast(depth, indices.dtype)), [-1, *[1] * (rank - axis)])
    code = tf.equal(tf.expand_dims(indices, axis), classes)
    if on.dtype == tf.float32 and tf.get_static_value(on) == 1 and tf.get_static_value(off) == 0:
        return tf.cast(code, on.dtype)
    return tf.where(code, on, off)


def fixed_bins(model: Any) -> str:
    """What to do about bincount in a model: otherwise the number of bins is the largest value.

    A functional model of Keras 3 cannot call functions of TensorFlow, and its own has no maximum.
    """
    operations = (item for layer in model._flatten_layers() for item in operations_of(layer))
    if any(is_keras_class(item, "Bincount") for item in operations):
        return (
            "Replace keras.ops.bincount(x) with keras.ops.sum(keras.ops.one_hot(x, N, "
            'dtype="int32"), axis=1) for N bins, and load the weights; they fit.'
        )
    return (
        "Pass the number of bins N as minlength and as maxlength, tf.math.bincount(x, minlength=N, "
        "maxlength=N, axis=-1), with Reshape((N,)) behind it, and load the weights; they fit."
    )


def bincount(values: Any, size: Any, weights: Any, *, attributes: _Attributes) -> Any:
    """The sum, or with ``binary_output`` the maximum, of the one-hot codes of each row.

    None if the number of bins depends on the data.
    """
    import tensorflow as tf

    lowest, highest = _bounds(size)
    if lowest != highest or values.shape.rank not in (1, 2):
        return None
    codes = tf.one_hot(values, int(lowest), dtype=weights.dtype)
    if attributes["binary_output"].b:
        return tf.reduce_max(codes, -2)
    if weights.shape.num_elements() != 0:
        codes *= weights[..., None]
    return tf.reduce_sum(codes, -2)


def _bounds(number: Any) -> tuple[float, float]:
    """The lowest and the highest value of a number, from the constants it is limited by."""
    import tensorflow as tf

    value = tf.get_static_value(number)
    if value is not None:
        return float(value), float(value)
    if number.op.type in ("Minimum", "Maximum"):
        function = min if number.op.type == "Minimum" else max
        lowest, highest = zip(*map(_bounds, number.op.inputs), strict=True)
        return function(lowest), function(highest)
    return -math.inf, math.inf


def broadcast_shapes(one: Any, other: Any) -> Any:
    """The shape of the result of an operation of tensors of these shapes; no axis is empty."""
    import tensorflow as tf

    rank = max(one.shape[0], other.shape[0])
    ones = (tf.ones([rank - shape.shape[0]], shape.dtype) for shape in (one, other))
    first, second = (
        tf.concat([padding, shape], 0) for padding, shape in zip(ones, (one, other), strict=True)
    )
    return tf.maximum(first, second)


def bitwise_and(x: Any, y: Any) -> Any:
    """``(x + y - (x ^ y)) / 2`` of the upper and the lower half of the bits.

    Sums of halves do not overflow.
    """
    import tensorflow as tf

    half = 1 << 4 * x.dtype.size

    def common(a: Any, b: Any) -> Any:
        return (a + b - tf.bitwise.bitwise_xor(a, b)) // 2

    high_x, high_y = x // half, y // half
    return common(high_x, high_y) * half + common(x - high_x * half, y - high_y * half)


def bitwise_or(x: Any, y: Any) -> Any:
    """``(x ^ y) ^ (x & y)``, whose bits are disjoint."""
    import tensorflow as tf

    return tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(x, y), bitwise_and(x, y))


def left_shift(x: Any, count: Any) -> Any:
    """``x * 2**count``."""
    import tensorflow as tf

    bits = 8 * x.dtype.size
    powers = [2**k for k in range(bits - 1)]
    last = -(2 ** (bits - 1)) if x.dtype.min < 0 else 2 ** (bits - 1)
    return x * tf.gather(tf.constant([*powers, last], x.dtype), tf.cast(count, tf.int32))


def truncate_mod(x: Any, y: Any) -> Any:
    """The rest with the sign of ``x``.

    For floats, it is that of the magnitudes. The lowest integer has no magnitude.
    """
    import tensorflow as tf

    if x.dtype.is_integer:
        rest = tf.math.floormod(x, y)
        differ = tf.logical_and(tf.not_equal(rest, 0), tf.not_equal(x < 0, y < 0))
        return tf.where(differ, rest - y, rest)
    return tf.sign(x) * tf.math.floormod(tf.abs(x), tf.abs(y))


def zero_or(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``function`` of two operands, which is 0 if the first one is, whatever the second one is."""

    def composed(x: Any, y: Any) -> Any:
        import tensorflow as tf

        zero = tf.equal(x, 0.0)
        return tf.where(zero, tf.zeros_like(x), function(x, tf.where(zero, tf.ones_like(y), y)))

    return composed


def product_without_nan(x: Any, y: Any) -> Any:
    """``x * y``, which is 0 if ``y`` is, also if ``x`` is infinite."""
    import tensorflow as tf

    return tf.where(tf.equal(y, 0.0), 0.0, x * y)


def pool_volumes(x: Any, *, kind: str, attributes: _Attributes) -> Any:
    """Pooling over three axes as two poolings over images; None if sizes are unknown.

    The maximum of maxima is the maximum, and the same holds for averages. It also holds at the
    edges, where the number of pooled elements is the product of the numbers along the axes.
    """
    import tensorflow as tf

    _, *sizes, _ = attributes["ksize"].list.i
    _, *strides, _ = attributes["strides"].list.i
    _, time, height, width, channels = x.shape
    if attributes["data_format"].s != b"NDHWC" or None in x.shape[1:].as_list():
        return None

    def pool(images: Any, sizes: list[int], strides: list[int]) -> Any:
        padding = attributes["padding"].s.decode()
        return tf.nn.pool(images, sizes, kind, strides=strides, padding=padding)

    x = pool(tf.reshape(x, (-1, height, width, channels)), sizes[1:], strides[1:])
    _, height, width, _ = x.shape
    if sizes[0] == strides[0] == 1:
        return tf.reshape(x, (-1, time, height, width, channels))
    # Height and width become one axis, of which each element is pooled over time.
    x = tf.reshape(x, (-1, time, height * width, channels))
    x = pool(x, [sizes[0], 1], [strides[0], 1])
    return tf.reshape(x, (-1, x.shape[1], height, width, channels))


def einsum(*operands: Any, attributes: _Attributes) -> Any:
    """The same with a letter for each axis of ``...``: tf2onnx then makes it a product of matrices.

    None without ``...``, or if it stands for axes that are repeated.
    """
    import tensorflow as tf

    equation = attributes["equation"].s.decode()
    named = with_named_axes(equation, [tuple(operand.shape) for operand in operands])
    return None if named is None else tf.einsum(named, *operands)


def with_named_axes(equation: str, shapes: Sequence[tuple[int | None, ...]]) -> str | None:
    """An einsum equation with letters instead of ``...``; None if it has none, or broadcasts."""
    terms, arrow, result = equation.partition("->")
    if "..." not in terms or not arrow:
        return None
    inputs = terms.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    most = max(
        len(shape) - len(term) + 3
        for term, shape in zip(inputs, shapes, strict=True)
        if "..." in term
    )
    if most > len(free):
        return None
    letters = "".join(free[:most])
    sizes: dict[str, int | None] = {}
    named = []
    for term, shape in zip(inputs, shapes, strict=True):
        own = letters[most - (len(shape) - len(term) + 3) :] if "..." in term else ""
        named.append(term.replace("...", own))
        for letter, size in zip(named[-1], shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    return ",".join(named) + arrow + result.replace("...", letters)


def shapes(*tensors: Any) -> Any:
    """ShapeN, of which SSIM takes the sizes of two images."""
    import tensorflow as tf

    return tf.raw_ops.IdentityN(input=[tf.shape(tensor) for tensor in tensors])[0]


def tile(x: Any, multiples: Any) -> Any:
    """A Tile with constant multiples, if they are sizes that are known; None if nothing changes.

    The converter needs the shape of the kernel of SSIM, which is repeated for each channel.
    """
    import tensorflow as tf
    from tensorflow.python.framework.tensor_util import constant_value_as_shape

    if tf.get_static_value(multiples) is not None or multiples.op.type not in ("Pack", "ConcatV2"):
        return None
    known = constant_value_as_shape(multiples)
    return tf.tile(x, known.as_list()) if known.is_fully_defined() else None


def update_slice(x: Any, update: Any, starts: Any) -> Any:
    """``x`` with ``update`` from the constant positions ``starts`` on; None if they are unknown."""
    import tensorflow as tf

    positions = tf.get_static_value(starts)
    if positions is None:
        return None
    # A free axis of the samples is replaced throughout.
    lengths = [(x.shape[k], update.shape[k]) for k in range(x.shape.rank)]
    if any(None in pair and (k or pair != (None, None)) for k, pair in enumerate(lengths)):
        return None
    replaced, paddings = np.ones((1,) * len(lengths), bool), []
    for axis, ((length, part), start) in enumerate(zip(lengths, positions, strict=True)):
        # As in XLA, a part that would exceed the axis ends with it.
        before = 0 if length == part else min(max(int(start), 0), length - part)
        after = 0 if length == part else length - part - before
        paddings.append((before, after))
        if length != part:
            inside = np.arange(length)
            shape = [length if k == axis else 1 for k in range(len(lengths))]
            within = (inside >= before) & (inside < before + part)
            replaced = replaced & within.reshape(shape)
    return tf.where(replaced, tf.pad(update, paddings), x)


def add_integers(*terms: Any) -> Any:
    """AddN of integers; None for floats."""
    return functools.reduce(operator.add, terms) if terms[0].dtype.is_integer else None


def half_square_sum(x: Any) -> Any:
    """L2Loss."""
    import tensorflow as tf

    return tf.reduce_sum(x * x) / 2


def euclidean_norm(x: Any, axes: Any, *, attributes: Mapping[str, Any]) -> Any:
    """EuclideanNorm; None for integers, whose root TensorFlow rounds, and complex numbers."""
    import tensorflow as tf

    if not x.dtype.is_floating:
        return None
    return tf.sqrt(tf.reduce_sum(x * x, axes, keepdims=bool(attributes["keep_dims"].b)))


def clip(x: Any, low: Any, high: Any) -> Any:
    """ClipByValue."""
    import tensorflow as tf

    return tf.minimum(tf.maximum(x, low), high)
