"""TensorFlow operations that a format lacks, computed with operations that it has.

While a model is traced, an operation of these kinds is replaced as it is created. Results are as
exact as float32 numbers of the size of the result allow.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from edgeattn_converters.graphs.constant_results import of_constants
from edgeattn_converters.graphs.operation_creation import replaced_by
from edgeattn_converters.lowering import (
    angles,
    colors,
    constant_segments,
    crops,
    ctc,
    diagonals,
    dilations,
    einsums,
    exact_integers,
    fake_quantization,
    float8,
    known_sizes,
    matrices,
    reversals,
    scans,
    slices,
    vectors,
)
from edgeattn_converters.lowering import composed_operations as composed
from edgeattn_converters.lowering import reciprocal_roots as roots
from edgeattn_converters.lowering import special_functions as special
from edgeattn_converters.lowering.patches import extract_image_patches, patches_by_position
from edgeattn_converters.lowering.projections import projected
from edgeattn_converters.lowering.resampling import resampled

_Attributes = Mapping[str, Any]
_Replacement = Callable[..., Any]


def _sinh(x: Any) -> Any:
    """``(e - 1/e) / 2`` for ``e = exp(|x|)``; a series for small x, where the terms cancel."""
    import tensorflow as tf

    e = tf.exp(tf.abs(x))
    square = tf.minimum(x * x, 1.0)
    series = 1 + square / 6 * (1 + square / 20 * (1 + square / 42 * (1 + square / 72)))
    return tf.where(tf.abs(x) < 1.0, x * series, tf.sign(x) * (e - 1 / e) / 2)


def _cosh(x: Any) -> Any:
    import tensorflow as tf

    e = tf.exp(tf.abs(x))
    return (e + 1 / e) / 2


def _tan(x: Any) -> Any:
    import tensorflow as tf

    return tf.sin(x) / tf.cos(x)


def _atan(x: Any) -> Any:
    import tensorflow as tf

    return tf.atan2(x, tf.ones_like(x))


def _asin(x: Any) -> Any:
    import tensorflow as tf

    return tf.atan2(x, tf.sqrt((1 - x) * (1 + x)))


def _acos(x: Any) -> Any:
    import tensorflow as tf

    return tf.atan2(tf.sqrt((1 - x) * (1 + x)), x)


def _asinh(x: Any) -> Any:
    """``log(|x| + sqrt(x² + 1))``; a square of large numbers would overflow."""
    import tensorflow as tf

    size = tf.abs(x)
    bounded = tf.minimum(size, 1e6)
    near = _log1p(bounded + bounded * bounded / (1 + tf.sqrt(bounded * bounded + 1)))
    return tf.sign(x) * tf.where(size < 1e6, near, tf.math.log(size + 1e-6) + math.log(2))


def _acosh(x: Any) -> Any:
    import tensorflow as tf

    return _log1p(x - 1 + tf.sqrt(x - 1) * tf.sqrt(x + 1))


def _atanh(x: Any) -> Any:
    return (_log1p(x) - _log1p(-x)) / 2


def _log1p(x: Any) -> Any:
    """``2 atanh(s)`` for ``s = x / (2 + x)``, as a series near 0, where ``1 + x`` loses digits."""
    import tensorflow as tf

    near = tf.clip_by_value(x, -0.3, 0.3)
    s = near / (2 + near)
    q = s * s
    series = 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q / 11)))))
    return tf.where(tf.abs(x) < 0.3, series, tf.math.log(1 + x))


def _softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, in which ``exp(x)`` would overflow from 89 on."""
    import tensorflow as tf

    return tf.maximum(x, 0.0) + tf.math.log(1 + tf.exp(-tf.abs(x)))


def _times_log(x: Any, y: Any) -> Any:
    import tensorflow as tf

    return x * tf.math.log(y)


def _invert(x: Any) -> Any:
    return -1 - x


def _sign_bit(x: Any, y: Any) -> Any:
    """The sign bit of a float, without its other bits, which graphs of exported models read for
    ``argmax`` and ``signbit``; None for other operands."""
    import tensorflow as tf

    for bits, mask in ((x, y), (y, x)):
        value = tf.get_static_value(mask)
        if bits.op.type != "Bitcast" or value is None or not np.all(value == np.int32(-(2**31))):
            continue
        number = bits.op.inputs[0]
        if number.dtype == tf.float32 and bits.dtype == tf.int32:
            sign = tf.logical_or(number < 0, 1 / number < 0)
            return tf.where(sign, tf.int32.min, 0)
    return None


def _bucketize(x: Any, *, attributes: _Attributes) -> Any:
    """The number of boundaries that are not above a value."""
    import tensorflow as tf

    boundaries = tf.constant(list(attributes["boundaries"].list.f), tf.float32)
    reached = tf.cast(tf.cast(x, tf.float32)[..., None] >= boundaries, tf.int32)
    return tf.reduce_sum(reached, -1)


def _bound(*, upper: bool) -> _Replacement:
    def bound(sequence: Any, values: Any, *, attributes: _Attributes) -> Any:
        """The number of values of a sorted sequence that are below a value, or not above it."""
        import tensorflow as tf

        before, value = sequence[:, None, :], values[:, :, None]
        below = before <= value if upper else before < value
        dtype = tf.as_dtype(attributes["out_type"].type)
        return tf.reduce_sum(tf.cast(below, dtype), -1)

    return bound


_SEARCHES: Mapping[str, _Replacement] = {
    "Bucketize": _bucketize,
    "LowerBound": _bound(upper=False),
    "UpperBound": _bound(upper=True),
}
_INTERPOLATIONS: Mapping[str, _Replacement] = {
    kind: partial(resampled, kind=kind)
    for kind in ("ResizeArea", "ResizeBicubic", "ScaleAndTranslate")
}
_VOLUMES: Mapping[str, _Replacement] = {
    "AvgPool3D": partial(composed.pool_volumes, kind="AVG"),
    "MaxPool3D": partial(composed.pool_volumes, kind="MAX"),
}
_FACTORS: Mapping[str, _Replacement] = {
    "Cholesky": matrices.cholesky,
    "LogMatrixDeterminant": matrices.log_determinant,
}
_SOLUTIONS: Mapping[str, _Replacement] = {
    "Lu": matrices.factors,
    "MatrixInverse": matrices.inverse,
    "MatrixSolve": matrices.solve,
    "MatrixTriangularSolve": matrices.solve_triangular,
    "Qr": matrices.orthogonal_factors,
}
_ROUNDINGS: Mapping[str, _Replacement] = {
    "FakeQuantWithMinMaxArgs": fake_quantization.of_arguments,
    "FakeQuantWithMinMaxVars": fake_quantization.of_tensors,
    "FakeQuantWithMinMaxVarsPerChannel": fake_quantization.of_tensors,
}
_WITH_ATTRIBUTES = frozenset(
    {*_SEARCHES, *_INTERPOLATIONS, *_VOLUMES, *_SOLUTIONS, *_ROUNDINGS, "Any",
     "BatchMatMulV2", "BiasAdd", "CTCGreedyDecoder", "Cast", "CropAndResize", "Cumprod",
     "CumulativeLogsumexp", "DenseBincount", "Einsum", "EuclideanNorm", "ExtractImagePatches",
     "ImageProjectiveTransformV3", "MatMul", "Mean", "OneHot", "Prod", "StridedSlice", "Sum"}
)  # fmt: skip
# The converter of TFLite takes the last of several updates of an element for their sum.
_SUMS_OF_UPDATES: Mapping[str, _Replacement] = {
    kind: partial(of_constants, kind=kind) for kind in ("ScatterNd", "TensorScatterAdd")
}
Replacements = Mapping[str, _Replacement]
_BOTH: Replacements = {
    "AdjustContrastv2": colors.adjust_contrast,
    "AdjustHue": colors.adjust_hue,
    "AdjustSaturation": colors.adjust_saturation,
    "BesselI0": special.bessel_i0,
    "CTCGreedyDecoder": ctc.greedy_decoded,
    "Cast": float8.cast_back,
    "Cross": composed.cross,
    "Cumprod": scans.cumulative_product,
    "CumulativeLogsumexp": scans.cumulative_logsumexp,
    "ExtractImagePatches": extract_image_patches,
    "MatrixDiag": diagonals.matrix,
    "MatrixDiagV2": diagonals.matrix,
    "MatrixDiagV3": diagonals.matrix,
    "ImageProjectiveTransformV3": projected,
    "MatrixSetDiag": diagonals.replaced,
    "MatrixSetDiagV2": diagonals.replaced,
    "MatrixSetDiagV3": diagonals.replaced,
    "DenseBincount": composed.bincount,
    "Erfinv": special.erfinv,
    "EuclideanNorm": composed.euclidean_norm,
    "HSVToRGB": colors.hsv_to_rgb,
    "InTopKV2": composed.in_top_k,
    "Invert": _invert,
    "Log1p": _log1p,
    "RGBToHSV": colors.rgb_to_hsv,
    "TruncateMod": composed.truncate_mod,
    **constant_segments.REPLACEMENTS,
    **_FACTORS,
    **_ROUNDINGS,
    **_SOLUTIONS,
    **_SEARCHES,
    **_INTERPOLATIONS,
}
TFLITE: Replacements = {
    **_BOTH,
    **_SUMS_OF_UPDATES,
    **_VOLUMES,
    "Acos": _acos,
    "Acosh": _acosh,
    "Asin": _asin,
    "Asinh": _asinh,
    "Atan": _atan,
    "Atan2": angles.atan2_for_tflite,
    "Atanh": _atanh,
    "BatchMatMulV2": vectors.product_of_row,
    "BatchToSpaceND": dilations.dilated,
    "BiasAdd": composed.add_bias,
    "BitwiseAnd": composed.bitwise_and,
    "BitwiseOr": composed.bitwise_or,
    "ClipByValue": composed.clip,
    "Cosh": _cosh,
    "CropAndResize": crops.crop_and_resize,
    "Einsum": einsums.einsum,
    "LeftShift": composed.left_shift,
    "MatMul": vectors.product,
    "MatrixDeterminant": matrices.determinant,
    "MatrixDiagPartV3": diagonals.part,
    "ReverseV2": reversals.reversed_in_turn,
    "Sinh": _sinh,
    "Softplus": _softplus,
    "StridedSlice": slices.sliced_at_tensors,
    "Tan": _tan,
    **roots.replacements(),
}
ERROR_FUNCTIONS = frozenset({"Erf", "Erfc"})
TFLITE_WITH_ERF: Replacements = {**TFLITE, "Erf": special.erf, "Erfc": special.erfc}
ONNX: Replacements = {
    **_BOTH,
    "AddN": composed.add_integers,
    "AddV2": known_sizes.total,
    "AdjustHue": colors.of_exact_sigmoids(colors.adjust_hue),
    "AdjustSaturation": colors.of_exact_sigmoids(colors.adjust_saturation),
    "Any": known_sizes.any_true,
    "Atan2": angles.atan2_of_quotient,
    "BitwiseAnd": _sign_bit,
    "BroadcastArgs": composed.broadcast_shapes,
    "CropAndResize": crops.crop_to_nearest,
    "Einsum": composed.einsum,
    "FloorMod": known_sizes.remainder,
    "RGBToHSV": colors.of_exact_sigmoids(colors.rgb_to_hsv),
    "L2Loss": composed.half_square_sum,
    "Mean": exact_integers.exact_mean,
    "MulNoNan": composed.product_without_nan,
    "OneHot": composed.one_hot,
    "Prod": exact_integers.exact_product,
    "ShapeN": composed.shapes,
    "StridedSlice": slices.sliced,
    "Sum": exact_integers.exact_sum,
    "Tile": composed.tile,
    "XlaDynamicUpdateSlice": composed.update_slice,
    "Xdivy": composed.zero_or(lambda x, y: x / y),
    "Xlog1py": composed.zero_or(lambda x, y: x * _log1p(y)),
    "Xlogy": composed.zero_or(_times_log),
}


@contextlib.contextmanager
def replaced_operations(replacements: Replacements) -> Iterator[None]:
    """Within the context, operations of these kinds are replaced as they are traced."""
    with replaced_by(replacements, _WITH_ATTRIBUTES), _sign_without_bits(), patches_by_position():
        yield


@contextlib.contextmanager
def _sign_without_bits() -> Iterator[None]:
    """Compute the sign of a float by comparisons; Keras reads its bits, also in argmax."""
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy

    original = numpy.signbit

    def signbit(x: Any) -> Any:
        x = tf.convert_to_tensor(x)
        return tf.logical_or(x < 0, 1 / x < 0) if x.dtype.is_floating else original(x)

    numpy.signbit = signbit
    try:
        yield
    finally:
        numpy.signbit = original
