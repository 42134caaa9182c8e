"""Operations with integers and truth values for which the runtimes have kernels of floats only.

float32 has no integers above 2^24, so results are computed with other operations of integers. Each
function returns None for what the runtimes have, and for shapes that are not known.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from edgeattn_converters.graphs.operation_creation import replaced_by
from edgeattn_converters.lowering import moved_blocks, segments, wide_quotients

_Attributes = Mapping[str, Any]
# Of all products in a matrix product, before they are added up.
_MAX_PRODUCTS = 2**22
_LARGEST_POWER = 64


def _is_wide(x: Any) -> bool:
    return x.dtype.name in ("int32", "int64")


def matrix_product(left: Any, right: Any, *, attributes: _Attributes) -> Any:
    """The products of all pairs, and their sums, for TFLite."""
    import tensorflow as tf

    if not _is_wide(left):
        return None
    left, right = _transposed(left, right, attributes)
    if not (left.shape.is_fully_defined() and right.shape.is_fully_defined()):
        return None
    outer = tf.broadcast_static_shape(left.shape[:-2], right.shape[:-2])
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    if outer.num_elements() * rows * inner * columns > _MAX_PRODUCTS:
        return None
    # TFLite multiplies tensors of at most four axes.
    left = tf.reshape(tf.broadcast_to(left, [*outer, rows, inner]), [-1, rows, inner, 1])
    right = tf.reshape(tf.broadcast_to(right, [*outer, inner, columns]), [-1, 1, inner, columns])
    return tf.reshape(tf.reduce_sum(left * right, 2), [*outer, rows, columns])


def product_without_flags(left: Any, right: Any, *, attributes: _Attributes) -> Any:
    """A product of transposed integers, for which tf2onnx fails."""
    import tensorflow as tf

    if not _is_wide(left) or not any(attributes[name].b for name in ("adj_x", "adj_y")):
        return None
    return tf.raw_ops.BatchMatMulV2(
        **dict(zip("xy", _transposed(left, right, attributes), strict=True))
    )


def _transposed(left: Any, right: Any, attributes: _Attributes) -> tuple[Any, Any]:
    import tensorflow as tf

    names = ("adj_x", "adj_y") if "adj_x" in attributes else ("transpose_a", "transpose_b")
    first, second = (
        tf.linalg.matrix_transpose(x) if attributes[name].b else x
        for x, name in zip((left, right), names, strict=True)
    )
    return first, second


def max_pool(x: Any, *, attributes: _Attributes) -> Any:
    """The largest values along rows, and of these along columns."""
    import tensorflow as tf

    window, strides = (list(attributes[name].list.i) for name in ("ksize", "strides"))
    if not _is_wide(x) or window[0] != 1 or window[3] != 1 or None in x.shape[1:3]:
        return None
    if attributes["data_format"].s not in (b"", b"NHWC"):
        return None
    padding = attributes["padding"].s
    if padding not in (b"SAME", b"VALID"):
        return None
    for axis in (1, 2):
        length, size, step = x.shape[axis], window[axis], strides[axis]
        count = -(-length // step) if padding == b"SAME" else (length - size) // step + 1
        missing = max(0, (count - 1) * step + size - length)
        if missing:
            edges = [[0, 0] for _ in range(4)]
            edges[axis] = [missing // 2, missing - missing // 2]
            x = tf.pad(x, edges, constant_values=x.dtype.min)
        parts = [_every(x, axis, start, step, count) for start in range(size)]
        x = parts[0]
        for part in parts[1:]:
            x = tf.maximum(x, part)
    return x


def _every(x: Any, axis: int, start: int, step: int, count: int) -> Any:
    index = [slice(None)] * x.shape.rank
    index[axis] = slice(start, start + (count - 1) * step + 1, step)
    return x[tuple(index)]


def nearest(images: Any, size: Any, *, attributes: _Attributes) -> Any:
    """Images of another size, by the positions that TensorFlow's own kernel takes."""
    import tensorflow as tf

    sizes = tf.get_static_value(size)
    if not _is_wide(images) or sizes is None or None in images.shape[1:3]:
        return None
    options = {name: attributes[name].b for name in ("align_corners", "half_pixel_centers")}
    for axis, length in zip((1, 2), sizes.tolist(), strict=True):
        with tf.init_scope():
            positions = tf.reshape(tf.range(images.shape[axis]), [1, -1, 1, 1])
            resized = tf.raw_ops.ResizeNearestNeighbor(
                images=positions, size=[length, 1], **options
            )
            taken = np.ravel(resized)
        images = tf.gather(images, tf.constant(taken), axis=axis)
    return images


def split(axis: Any, x: Any, *, attributes: _Attributes) -> Any:
    """Split of what TFLite cannot split."""
    count = attributes["num_split"].i
    return _split(x, axis, lambda length: [length // count] * count)


def split_by_sizes(x: Any, sizes: Any, axis: Any) -> Any:
    import tensorflow as tf

    lengths = tf.get_static_value(sizes)
    if lengths is None:
        return None

    def completed(length: int) -> list[int]:
        known = sum(int(n) for n in lengths if n >= 0)
        return [length - known if n < 0 else int(n) for n in lengths]

    return _split(x, axis, completed)


def _split(x: Any, axis: Any, lengths: Callable[[int], list[int]]) -> Any:
    import tensorflow as tf

    position = tf.get_static_value(axis)
    if x.dtype.name not in ("int64", "bool") or position is None or x.shape.rank is None:
        return None
    position = int(position) % x.shape.rank
    if x.shape[position] is None:
        return None
    sizes = lengths(x.shape[position])
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    parts = [_every(x, position, start, 1, n) for start, n in zip(starts, sizes, strict=True)]
    return tf.raw_ops.IdentityN(input=parts)[0]


def unpack(x: Any, *, attributes: _Attributes) -> Any:
    """Unpack of int64."""
    import tensorflow as tf

    if x.dtype.name != "int64" or x.shape.rank is None:
        return None
    axis = attributes["axis"].i % x.shape.rank
    parts = [tf.squeeze(_every(x, axis, k, 1, 1), axis) for k in range(attributes["num"].i)]
    return tf.raw_ops.IdentityN(input=parts)[0]


def broadcast(x: Any, shape: Any) -> Any:
    """Repeated uint16. The converter would move the cast to a wider type behind a BroadcastTo."""
    import tensorflow as tf

    sizes = tf.get_static_value(shape)
    if x.dtype.name != "uint16" or sizes is None or not x.shape.is_fully_defined():
        return None
    ranked = [1] * (len(sizes) - x.shape.rank) + x.shape.as_list()
    return tf.tile(tf.reshape(x, ranked), [n // m for n, m in zip(sizes, ranked, strict=True)])


def position_of_extreme(x: Any, axis: Any, *, attributes: _Attributes, largest: bool) -> Any:
    """The first position of the largest or smallest int64."""
    import tensorflow as tf

    if x.dtype.name != "int64":
        return None
    extreme = (tf.reduce_max if largest else tf.reduce_min)(x, axis, keepdims=True)
    found = tf.cast(tf.equal(x, extreme), tf.int32)
    return tf.argmax(found, axis, tf.as_dtype(attributes["output_type"].type))


def absolute(x: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(x, -x) if x.dtype.name == "int64" else None


def sign(x: Any) -> Any:
    import tensorflow as tf

    if x.dtype.name != "int64":
        return None
    return tf.cast(x > 0, x.dtype) - tf.cast(x < 0, x.dtype)


def power(x: Any, exponent: Any) -> Any:
    """A product, by squares, of int64 with a constant exponent."""
    import tensorflow as tf

    known = tf.get_static_value(exponent)
    if x.dtype.name != "int64" or known is None or np.size(known) != 1 or np.ndim(known) > 0:
        return None
    remaining = int(known)
    if not 0 < remaining <= _LARGEST_POWER:
        return None
    result, square = None, x
    while remaining:
        if remaining % 2:
            result = square if result is None else result * square
        square, remaining = square * square, remaining // 2
    return result


def relu6(x: Any) -> Any:
    import tensorflow as tf

    if not x.dtype.is_integer:
        return None
    return tf.minimum(tf.maximum(x, tf.zeros([], x.dtype)), tf.constant(6, x.dtype))


def depth_to_space(x: Any, *, attributes: _Attributes) -> Any:
    import tensorflow as tf

    block = attributes["block_size"].i
    if not _is_moved(x, attributes):
        return None
    _, rows, columns, channels = x.shape
    x = tf.reshape(x, [-1, rows, columns, block, block, channels // block**2])
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])
    return tf.reshape(x, [-1, rows * block, columns * block, channels // block**2])


def space_to_depth(x: Any, *, attributes: _Attributes) -> Any:
    import tensorflow as tf

    block = attributes["block_size"].i
    if not _is_moved(x, attributes):
        return None
    _, rows, columns, channels = x.shape
    x = tf.reshape(x, [-1, rows // block, block, columns // block, block, channels])
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])
    return tf.reshape(x, [-1, rows // block, columns // block, channels * block**2])


def _is_moved(x: Any, attributes: _Attributes) -> bool:
    known = attributes["data_format"].s in (b"", b"NHWC") and None not in x.shape[1:]
    return bool(known and not x.dtype.is_floating)


Replacements = Mapping[str, Callable[..., Any]]
_SEGMENTS: Replacements = {
    "UnsortedSegmentMax": partial(segments.segment_extreme, largest=True),
    "UnsortedSegmentMin": partial(segments.segment_extreme, largest=False),
    "UnsortedSegmentSum": segments.segment_sum,
}
_BOTH: Replacements = {
    **_SEGMENTS,
    "BatchToSpaceND": moved_blocks.batch_to_space,
    "Conv2D": moved_blocks.convolution,
    "DepthToSpace": depth_to_space,
    "LeftShift": wide_quotients.left_shift,
    "MaxPool": max_pool,
    "ResizeNearestNeighbor": nearest,
    "RightShift": wide_quotients.right_shift,
    "SpaceToBatchND": moved_blocks.space_to_batch,
    "SpaceToDepth": space_to_depth,
    "TensorScatterSub": segments.scattered_difference,
}
TFLITE: Replacements = {
    **_BOTH,
    "Abs": absolute,
    "ArgMax": partial(position_of_extreme, largest=True),
    "ArgMin": partial(position_of_extreme, largest=False),
    "BatchMatMulV2": matrix_product,
    "BitwiseAnd": wide_quotients.by_halves("bitwise_and"),
    "BitwiseOr": wide_quotients.by_halves("bitwise_or"),
    "BitwiseXor": wide_quotients.by_halves("bitwise_xor"),
    "BroadcastTo": broadcast,
    "Div": wide_quotients.truncated_division,
    "FloorDiv": wide_quotients.floor_division,
    "MatMul": matrix_product,
    "Pow": power,
    "Relu6": relu6,
    "Sign": sign,
    "Split": split,
    "SplitV": split_by_sizes,
    "TensorScatterMax": partial(segments.scattered_extreme, largest=True),
    "TensorScatterMin": partial(segments.scattered_extreme, largest=False),
    "TruncateDiv": wide_quotients.truncated_division,
    "Unpack": unpack,
}
ONNX: Replacements = {**_BOTH, "BatchMatMulV2": product_without_flags}
_WITH_ATTRIBUTES = frozenset(
    {"ArgMax", "ArgMin", "BatchMatMulV2", "Conv2D", "DepthToSpace", "MatMul", "MaxPool"}
    | {"ResizeNearestNeighbor", "SpaceToDepth", "Split", "Unpack"}
)


@contextlib.contextmanager
def composed_integers(replacements: Replacements) -> Iterator[None]:
    """Within the context, operations with integers are traced as those of ``replacements``."""
    with replaced_by(replacements, _WITH_ATTRIBUTES):
        yield
