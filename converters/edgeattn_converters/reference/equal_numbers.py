"""Averages, sums and extremes of equal numbers, which differ from these by rounding alone.

A normalization divides that difference by a deviation that is rounding as well, or by the root of
a small epsilon. How large it is depends on the order of the additions. The average of 10,000 equal
numbers is off by up to 12 times the precision in TensorFlow 2.21, 24 times in LiteRT 2.3 and 96
times in onnxruntime 1.32 if the last axes are reduced, and 815 times in all of them if another one
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PRECISION = 2.0**-23
# The smallest change of an average, as a multiple of the precision.
_SMALLEST = 4
# Numbers are equal if the rounding of a few operations explains how far they differ. The last
# elements of an array are not computed with vector instructions: of equal numbers, their logarithms
# differ from the others in the last digit.
_SPREAD = 16 * PRECISION
# Sums of multiples of these units are exact up to 2**24 units: counts, masks and pixels.
_UNITS = (1.0, 2.0**-8)
_EXACT = 2.0**24

_POOLING = frozenset({"AvgPool", "AvgPool3D"})
_SEGMENTS = frozenset({"SegmentMean", "SegmentSum", "UnsortedSegmentSum"})
_SPARSE_SEGMENTS = frozenset(
    {"SparseSegmentMean", "SparseSegmentMeanWithNumSegments"}
    | {"SparseSegmentSum", "SparseSegmentSumWithNumSegments"}
)
_EXTREMES = frozenset({"Max", "Min"})
_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_REDUCTIONS = frozenset({"Mean", "Sum"}) | _EXTREMES | _POOLING | _SEGMENTS | _SPARSE_SEGMENTS


def uses_averages(function: Any) -> bool:
    """Whether a concrete function has operations of which :func:`is_average` is true."""
    definition = function.graph.as_graph_def()
    parts = (definition.node, *(item.node_def for item in definition.library.function))
    return any(
        node.op in _REDUCTIONS or (node.op in _NORMALIZATIONS and node.attr["is_training"].b)
        for nodes in parts
        for node in nodes
    )


def is_average(operation: Any) -> bool:
    """Whether an operation of a graph computes averages, sums or extremes, also in between."""
    if operation.type in _NORMALIZATIONS:
        return bool(operation.get_attr("is_training"))
    return operation.type in _REDUCTIONS


def changed_average(operation: Any, share: Any, direction: Any) -> Any:
    """The first result of an operation of which :func:`is_average` is true, if it changes.

    Averages and sums of numbers that differ are larger by ``share`` of themselves. Those of equal
    numbers are exact if ``direction`` is 0; if it is 1 or -1, they are larger or smaller than that
    by the largest rounding error of their additions. The largest and the smallest of numbers
    that differ by rounding then move away from each other, or past each other.
    """
    import tensorflow as tf

    if operation.type in _NORMALIZATIONS:
        return _normalized(operation, direction)
    numbers = _numbers_of(operation)
    result = tf.cast(operation.outputs[0], tf.float32)
    if operation.type in _EXTREMES:
        sign = 1 if operation.type == "Max" else -1
        step = sign * direction * _SMALLEST * PRECISION * tf.abs(result)
        nearly_equal = numbers.are_equal & tf.not_equal(numbers.lowest, numbers.highest)
        changed = tf.where(nearly_equal, result + step, result)
    else:
        is_mean = "Sum" not in operation.type
        equal = numbers.average(result, direction, is_mean=is_mean)
        changed = tf.where(numbers.are_equal, equal, result * (1 + share))
    return tf.cast(changed, operation.outputs[0].dtype)


@dataclass(frozen=True)
class _Numbers:
    """The lowest, the highest and the count of the numbers that an operation reduces.

    The tensors have the shape of its result; the count may be a scalar.
    """

    lowest: Any
    highest: Any
    count: Any

    @property
    def are_equal(self) -> Any:
        import tensorflow as tf

        size = tf.maximum(tf.abs(self.lowest), tf.abs(self.highest))
        return self.highest - self.lowest <= _SPREAD * size

    def has_exact_sum(self, unit: float) -> Any:
        """Whether all are the same multiple of ``unit``, and so few that their sums are exact."""
        import tensorflow as tf

        units = self.highest / unit
        return (
            tf.equal(self.lowest, self.highest)
            & tf.equal(units, tf.round(units))
            & (tf.abs(units) * self.count <= _EXACT)
        )

    def average(self, result: Any, direction: Any, *, is_mean: bool) -> Any:
        """Their average, or else sum, of which Keras computes ``result``, if they are equal.

        Half of the precision of each partial sum bounds the error of an addition, so that of a sum
        of ``n`` numbers of one sign is at most ``n / 2`` times the precision: Higham, "Accuracy and
        Stability of Numerical Algorithms", 2002, section 4.2. Of equal numbers, most partial sums
        are smaller than the sum: in sequence, which is the worst order in use, the largest error
        among all significands is ``n / 8`` times the precision (measured up to 16,000). The
        division by ``n`` adds less than one. Bounds that grow with the root of ``n`` need
        independent errors, and those of equal numbers are alike. One number is its own average.
        """
        import tensorflow as tf

        exact = self.highest if is_mean else self.highest * self.count
        exact = tf.where(tf.equal(self.lowest, self.highest), exact, result)
        error = PRECISION * tf.maximum(self.count / 8 + 1, float(_SMALLEST))
        # The average of an exact sum may be its product with the rounded 1 / n.
        smallest = _SMALLEST * PRECISION if is_mean else 0.0
        for unit in _UNITS:
            error = tf.where(self.has_exact_sum(unit), smallest, error)
        error = tf.where(self.count > 1, error, 0.0)
        return exact * (1 + direction * error)


def _numbers_of(operation: Any) -> _Numbers:
    """The numbers that are reduced to each element of the first result."""
    import tensorflow as tf

    kind, (values, *others) = operation.type, operation.inputs
    values = tf.cast(values, tf.float32)
    if kind in _POOLING:
        return _pooled(operation, values)
    if kind in _SPARSE_SEGMENTS:
        values, others = tf.gather(values, others[0]), others[1:]
    if kind in _SEGMENTS | _SPARSE_SEGMENTS:
        segments, number = others[0], tf.shape(operation.outputs[0])[0]
        return _Numbers(
            tf.math.unsorted_segment_min(values, segments, number),
            tf.math.unsorted_segment_max(values, segments, number),
            _largest_segment(segments),
        )
    keeps = operation.get_attr("keep_dims")
    return _reduced(values, others[0], operation.outputs[0], keeps=keeps)


def _reduced(values: Any, axis: Any, result: Any, *, keeps: bool) -> _Numbers:
    """The numbers of a reduction over ``axis``; ``result`` has as many elements as its results."""
    import tensorflow as tf

    return _Numbers(
        tf.reduce_min(values, axis, keepdims=keeps),
        tf.reduce_max(values, axis, keepdims=keeps),
        tf.cast(tf.size(values) / tf.maximum(tf.size(result), 1), tf.float32),
    )


def _pooled(operation: Any, values: Any) -> _Numbers:
    import tensorflow as tf

    size: Sequence[int] = operation.get_attr("ksize")
    pool = tf.nn.max_pool2d if operation.type == "AvgPool" else tf.nn.max_pool3d
    options = {
        "ksize": size,
        "strides": operation.get_attr("strides"),
        "padding": operation.get_attr("padding").decode(),
        "data_format": operation.get_attr("data_format").decode(),
    }
    count = 1
    for each in size:
        count *= each
    return _Numbers(-pool(-values, **options), pool(values, **options), float(count))


def _largest_segment(segments: Any) -> Any:
    """The largest number of rows in a segment. Segments below 0 are left out of sums."""
    import tensorflow as tf

    rows = tf.reshape(segments, [-1])
    counts = tf.math.bincount(tf.cast(rows[rows >= 0], tf.int32))
    return tf.cast(tf.reduce_max(tf.concat([counts, [1]], 0)), tf.float32)


def _normalized(operation: Any, direction: Any) -> Any:
    """The result of a normalization by the mean and variance of each channel."""
    import tensorflow as tf

    values, scale, offset = (tf.cast(item, tf.float32) for item in operation.inputs[:3])
    last = operation.get_attr("data_format").decode().endswith("C")
    rank = len(operation.get_attr("data_format"))
    channel = rank - 1 if last else 1
    axes = [axis for axis in range(rank) if axis != channel]
    shape = [1] * rank
    shape[channel] = -1
    scale, offset = tf.reshape(scale, shape), tf.reshape(offset, shape)
    numbers = _reduced(values, axes, scale, keeps=True)
    mean = numbers.average(tf.reduce_mean(values, axes, keepdims=True), direction, is_mean=True)
    centered = values - mean
    variance = tf.reduce_max(tf.square(centered), axes, keepdims=True)
    root = tf.math.rsqrt(variance + operation.get_attr("epsilon"))
    result = operation.outputs[0]
    changed = tf.cast(centered * root * scale + offset, result.dtype)
    return tf.where(numbers.are_equal, changed, result)
