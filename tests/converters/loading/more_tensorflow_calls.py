"""Calls of functions of TensorFlow that fewer models call than those of ``tensorflow_calls``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "float32")


def _ramp(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype="float32").reshape(shape)


def _positive(square: Any) -> Any:
    return tf.matmul(square, square, transpose_b=True) + 2.0 * np.eye(3, dtype="float32")


def _boxes(i: Any) -> Any:
    return tf.concat([i.x[0, :, :2], i.x[0, :, :2] + i.u[0, :, :2]], 1)


def _first(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a result of the first sample, or of the whole batch, to all of them."""
    return lambda i: tf.cast(call(i), tf.float32) + i.x[:, :1, :1]


def _of_steps(function: Callable[..., Any], *arguments: Any) -> Callable[[Any], Any]:
    """A call for the steps as segments, which are on the first axis."""
    return lambda i: function(tf.transpose(i.x, [1, 0, 2]), [0, 0, 1, 1], *arguments)[1]


# Whose arguments are shapes, and what creates tensors of them.
OF_SHAPES: Mapping[str, Callable[[Any], Any]] = {
    "range": lambda i: i.x + tf.cast(tf.range(tf.shape(i.x)[2]), tf.float32),
    "zeros": lambda i: tf.concat([i.x, tf.zeros((tf.shape(i.x)[0], 1, 6))], 1),
    "ones": lambda i: tf.concat([i.x, tf.ones([tf.shape(i.x)[0], 1, tf.shape(i.x)[2]])], 1),
    "ones of a shape": lambda i: i.x * tf.ones(tf.shape(i.x)),
    "causal mask": lambda i: (
        tf.matmul(i.x, i.x, transpose_b=True)
        + (1 - tf.linalg.band_part(tf.ones((tf.shape(i.x)[1], tf.shape(i.x)[1])), -1, 0)) * -1e4
    ),
    "fill": lambda i: tf.concat([i.x, tf.fill([tf.shape(i.x)[0], 1, 6], 2.5)], 1),
    "eye": lambda i: i.square + tf.eye(tf.shape(i.square)[1]),
    "rank": lambda i: i.x * tf.cast(tf.rank(i.x), tf.float32),
    "size": lambda i: i.x / tf.cast(tf.size(i.x[0]), tf.float32),
    "shape_n": lambda i: i.x * tf.cast(tf.shape_n([i.x, i.y])[0][1], tf.float32),
    "tile by a shape": lambda i: tf.tile(i.x[:, :1], [1, tf.shape(i.x)[1], 1]) + i.x,
    "switch": lambda i: tf.tile(
        i.x[:, :1], tf.where(tf.shape(i.x) > tf.shape(i.x[:, :1]), tf.shape(i.x), [1, 1, 1])
    ),
    "unravel_index": lambda i: tf.unravel_index(
        tf.argmax(tf.reshape(i.x, [-1, 24]), -1, output_type=tf.int32), [4, 6]
    ),
}
ARRAYS: Mapping[str, Callable[[Any], Any]] = {
    "batch_gather": lambda i: v1.batch_gather(i.x, i.n[:, :, 0] // 2),
    "batch_to_space": lambda i: tf.batch_to_space(
        tf.space_to_batch_nd(i.image, [2], [[0, 0]]), [2], [[1, 1]]
    ),
    "batch_to_space_nd": lambda i: v1.batch_to_space_nd(
        tf.space_to_batch(i.image, [2, 2], [[0, 0], [0, 0]]), [2, 2], [[0, 0], [0, 0]]
    ),
    "convert_to_tensor": lambda i: tf.convert_to_tensor(i.x, dtype=tf.float32, name="t"),
    "bitcast": lambda i: tf.bitcast(i.x, tf.int32),
    "boolean_mask": lambda i: tf.boolean_mask(i.x, [True, False, True, True], axis=1),
    "clip_by_global_norm": lambda i: tf.clip_by_global_norm([i.x, i.y], 3.0),
    "concat with a constant": lambda i: tf.concat([_ones(1, 4, 6), i.x], 0),
    "dynamic_partition": _first(
        lambda i: tf.reduce_sum(tf.dynamic_partition(i.x[0], i.n[0, :, 0] // 3, 2)[1])
    ),
    "dynamic_stitch": _first(
        lambda i: tf.dynamic_stitch([[0, 2], [1, 3]], [i.x[0, :2], i.x[0, 2:]])
    ),
    "ensure_shape": lambda i: tf.ensure_shape(i.x, [None, 4, 6]) * 2,
    "gather from a table": lambda i: tf.gather(_ramp(6, 2), i.n),
    "histogram_fixed_width": _first(lambda i: tf.histogram_fixed_width(i.x[0], [-1.0, 1.0], 6)),
    "histogram_fixed_width_bins": lambda i: tf.histogram_fixed_width_bins(i.x, [-1.0, 1.0], 5),
    "identity_n": lambda i: tf.identity_n([i.x, i.y]),
    "realdiv": lambda i: tf.realdiv(i.x, i.u),
    "saturate_cast": lambda i: tf.saturate_cast(i.x * 200, tf.int8),
    "scatter_nd": _first(lambda i: tf.scatter_nd([[1], [0]], i.x[0, :2, 0], [6])),
    "sparse_to_dense": _first(lambda i: v1.sparse_to_dense([0], [6], i.x[0, 0, 0])),
    "stack with a constant": lambda i: tf.stack([_ones(1, 4, 6), i.x[:1]]),
    **{
        name: lambda i, name=name: getattr(tf, name)(i.x, [[0, 1, 2], [2, 3, 4]], [1.0, 2.0])
        for name in (
            *("tensor_scatter_nd_add", "tensor_scatter_nd_max", "tensor_scatter_nd_min"),
            *("tensor_scatter_nd_sub", "tensor_scatter_nd_update"),
        )
    },
    "truncatediv": lambda i: tf.truncatediv(i.n - 3, i.n + 2),
    "truncatemod": lambda i: tf.truncatemod(i.n - 3, i.n + 2),
    "unique": _first(lambda i: tf.unique(i.n[0, 0])[0][0]),
    "unique_with_counts": _first(lambda i: tf.unique_with_counts(i.n[0, 0])[2][0]),
    "extract_volume_patches": lambda i: tf.extract_volume_patches(
        i.image[..., None], [1, 2, 2, 2, 1], [1, 2, 2, 1, 1], "VALID"
    ),
}
IMAGES: Mapping[str, Callable[[Any], Any]] = {
    "image.combined_non_max_suppression": lambda i: tf.image.combined_non_max_suppression(
        tf.concat([i.u[..., None, :2], i.u[..., None, :2] + i.u[..., None, 2:4]], -1),
        i.u[..., :2], 2, 3,
    )[0],
    "image.convert_image_dtype": lambda i: tf.image.convert_image_dtype(
        tf.cast(i.image * 255, tf.uint8), tf.float32
    ),
    "image.crop_and_resize": lambda i: tf.image.crop_and_resize(
        i.image, [[0.1, 0.2, 0.8, 0.9]], [0], [3, 4]
    ),
    "image.draw_bounding_boxes": lambda i: tf.image.draw_bounding_boxes(
        i.image, np.full((3, 1, 4), [0.1, 0.2, 0.8, 0.9], "float32"), _ones(1, 3)
    ),
    "image.extract_glimpse": lambda i: tf.image.extract_glimpse(i.image, [3, 3], [[0.0, 0.0]] * 3),
    "image.extract_image_patches": lambda i: v1.image.extract_image_patches(
        i.image, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"
    ),
    "image.image_gradients": lambda i: tf.image.image_gradients(i.image),
    "image.non_max_suppression": _first(
        lambda i: tf.image.non_max_suppression(_boxes(i), i.u[0, :, 0], 2)[0]
    ),
    "image.non_max_suppression_with_scores": _first(
        lambda i: tf.image.non_max_suppression_with_scores(_boxes(i), i.u[0, :, 0], 2)[1][0]
    ),
    "image.resize_area": lambda i: v1.image.resize_area(i.image, [5, 6]),
    "image.resize_bicubic": lambda i: v1.image.resize_bicubic(i.image, [5, 6]),
    "image.resize_bilinear": lambda i: v1.image.resize_bilinear(
        i.image, [5, 6], align_corners=True
    ),
    "image.resize_images": lambda i: v1.image.resize_images(i.image, [5, 6]),
    "image.resize_nearest_neighbor": lambda i: v1.image.resize_nearest_neighbor(
        i.image, [5, 6], align_corners=True
    ),
    "image.resize_with_pad": lambda i: tf.image.resize_with_pad(i.image, 6, 10),
    "image.ssim_multiscale": lambda i: tf.image.ssim_multiscale(
        i.image, i.image * 0.5, 1.0, filter_size=1, power_factors=[0.5, 0.5]
    ),
}  # fmt: skip
LINEAR_ALGEBRA: Mapping[str, Callable[[Any], Any]] = {
    "linalg.cholesky_solve": lambda i: tf.linalg.cholesky_solve(
        tf.linalg.cholesky(_positive(i.square)), i.square
    ),
    "linalg.eigh": lambda i: tf.linalg.eigh(_positive(i.square))[0],
    "linalg.eigvalsh": lambda i: tf.linalg.eigvalsh(_positive(i.square)),
    "linalg.expm": lambda i: tf.linalg.expm(i.square),
    "linalg.global_norm": lambda i: i.x / tf.linalg.global_norm([i.x, i.y]),
    "linalg.logdet": lambda i: tf.linalg.logdet(_positive(i.square)),
    "linalg.lstsq": lambda i: tf.linalg.lstsq(_positive(i.square), i.square),
    "linalg.lu": lambda i: tf.linalg.lu(_positive(i.square))[0],
    "linalg.matrix_rank": lambda i: tf.linalg.matrix_rank(_positive(i.square)),
    "linalg.pinv": lambda i: tf.linalg.pinv(_positive(i.square)),
    "linalg.qr": lambda i: tf.abs(tf.linalg.qr(_positive(i.square))[1]),
    "linalg.sqrtm": lambda i: tf.linalg.sqrtm(_positive(i.square)),
    "linalg.svd": lambda i: tf.linalg.svd(i.square, compute_uv=False),
    "linalg.tensor_diag": lambda i: tf.linalg.tensor_diag(i.x[0, 0]) + i.x[:, :1],
    "linalg.tensor_diag_part": lambda i: tf.linalg.tensor_diag_part(i.square[0]) + i.square,
    "linalg.triangular_solve": lambda i: tf.linalg.triangular_solve(_positive(i.square), i.square),
    "linalg.tridiagonal_matmul": lambda i: tf.linalg.tridiagonal_matmul(
        i.square, i.square, diagonals_format="compact"
    ),
    "linalg.tridiagonal_solve": lambda i: tf.linalg.tridiagonal_solve(
        i.square + 2.0, i.square[:, 0], partial_pivoting=True
    ),
}
NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "math.accumulate_n": lambda i: tf.math.accumulate_n([i.x, i.y]),
    "math.betainc": lambda i: tf.math.betainc(i.u, i.u, i.u),
    "math.bincount": lambda i: tf.math.bincount(i.n[:, 0], minlength=6, maxlength=6, axis=-1),
    "math.confusion_matrix": _first(lambda i: tf.math.confusion_matrix(i.n[0, 0], i.n[0, 1], 6)),
    "math.erfcinv": lambda i: tf.math.erfcinv(i.u),
    "math.in_top_k": lambda i: tf.math.in_top_k(i.n[:, 0, 0], i.x[:, 0], 2),
    "math.invert_permutation": _first(lambda i: tf.math.invert_permutation(tf.argsort(i.x[0, 0]))),
    "math.is_non_decreasing": _first(lambda i: tf.math.is_non_decreasing(i.x[0, 0])),
    "math.is_strictly_increasing": _first(lambda i: tf.math.is_strictly_increasing(i.x[0, 0])),
    "math.lbeta": lambda i: tf.math.lbeta(i.u),
    "math.polygamma": lambda i: tf.math.polygamma(tf.ones_like(i.u), i.u),
    "math.zeta": lambda i: tf.math.zeta(i.u + 1.5, i.u),
    **{
        f"math.segment_{name}": _of_steps(getattr(tf.math, f"segment_{name}"))
        for name in ("max", "mean", "min", "prod", "sum")
    },
    **{
        f"math.unsorted_segment_{name}": _of_steps(getattr(tf.math, f"unsorted_segment_{name}"), 2)
        for name in ("max", "mean", "min", "prod", "sqrt_n", "sum")
    },
    **{
        f"math.special.{name}": lambda i, name=name: getattr(tf.math.special, name)(i.u)
        for name in (
            *("bessel_j0", "bessel_j1", "bessel_k0", "bessel_k0e", "bessel_k1", "bessel_k1e"),
            *("bessel_y0", "bessel_y1", "dawsn", "expint", "fresnel_cos", "fresnel_sin", "spence"),
        )
    },
    "quantization.fake_quant_with_min_max_args": lambda i: (
        tf.quantization.fake_quant_with_min_max_args(i.x, -1.0, 1.0)
    ),
    "quantization.fake_quant_with_min_max_vars": lambda i: (
        tf.quantization.fake_quant_with_min_max_vars(i.x, -1.0, 1.0)
    ),
    "quantization.fake_quant_with_min_max_vars_per_channel": lambda i: (
        tf.quantization.fake_quant_with_min_max_vars_per_channel(i.x, -1 * _ones(6), _ones(6))
    ),
    "quantization.quantize_and_dequantize_v2": lambda i: tf.quantization.quantize_and_dequantize_v2(
        i.x, -1.0, 1.0, range_given=True
    ),
    "signal.fftshift": lambda i: tf.signal.fftshift(i.x, axes=[2]),
    "signal.ifftshift": lambda i: tf.signal.ifftshift(i.x, axes=[2]),
    "signal.inverse_mdct": lambda i: tf.signal.inverse_mdct(tf.signal.mdct(i.signal, 16)),
}
NETWORKS: Mapping[str, Callable[[Any], Any]] = {
    "nn.atrous_conv2d": lambda i: tf.nn.atrous_conv2d(i.image, _ramp(2, 2, 3, 2), 2, "SAME"),
    "nn.avg_pool": lambda i: tf.nn.avg_pool(i.image, 2, 2, "SAME"),
    "nn.avg_pool1d": lambda i: tf.nn.avg_pool1d(i.x, 2, 2, "SAME"),
    "nn.avg_pool3d": lambda i: tf.nn.avg_pool3d(i.image[..., None], 2, 2, "SAME"),
    "nn.batch_normalization": lambda i: tf.nn.batch_normalization(
        i.image, *tf.nn.moments(i.image, [1, 2], keepdims=True), None, None, 1e-3
    ),
    "nn.collapse_repeated": _first(
        lambda i: tf.nn.collapse_repeated(i.n[:, 0], tf.ones_like(i.n[:, 0, 0]))[1][0]
    ),
    "nn.conv1d": lambda i: tf.nn.conv1d(i.x, _ramp(3, 6, 2), 1, "SAME"),
    "nn.conv1d_transpose": lambda i: tf.nn.conv1d_transpose(
        i.x, _ramp(2, 5, 6), [tf.shape(i.x)[0], 8, 5], 2
    ),
    "nn.conv2d_transpose": lambda i: tf.nn.conv2d_transpose(
        i.image, _ramp(2, 2, 2, 3), [tf.shape(i.image)[0], 16, 16, 2], 2
    ),
    "nn.conv3d": lambda i: tf.nn.conv3d(
        i.image[..., None], _ramp(2, 2, 2, 1, 2), [1] * 5, "SAME"
    ),
    "nn.conv3d_transpose": lambda i: tf.nn.conv3d_transpose(
        i.image[..., None], _ramp(2, 2, 2, 2, 1), [tf.shape(i.image)[0], 16, 16, 6, 2], 2
    ),
    "nn.convolution": lambda i: tf.nn.convolution(i.image, _ramp(2, 2, 3, 2), 1, "SAME"),
    "nn.dilation2d": lambda i: tf.nn.dilation2d(
        i.image, _ramp(2, 2, 3), [1] * 4, "SAME", "NHWC", [1] * 4
    ),
    "nn.embedding_lookup": lambda i: tf.nn.embedding_lookup(_ramp(6, 2), i.n),
    "nn.erosion2d": lambda i: tf.nn.erosion2d(
        i.image, _ramp(2, 2, 3), [1] * 4, "SAME", "NHWC", [1] * 4
    ),
    "nn.fused_batch_norm": lambda i: v1.nn.fused_batch_norm(
        i.image, _ones(3), _ones(3) * 0.1, _ones(3) * 0.2, _ones(3), is_training=False
    )[0],
    "nn.l2_loss": lambda i: tf.nn.l2_loss(i.x[0]) + i.x,
    "nn.log_poisson_loss": lambda i: tf.nn.log_poisson_loss(i.u, i.x),
    "nn.max_pool": lambda i: v1.nn.max_pool(i.image, 2, 2, "SAME"),
    "nn.max_pool1d": lambda i: tf.nn.max_pool1d(i.x, 2, 2, "SAME"),
    "nn.max_pool3d": lambda i: tf.nn.max_pool3d(i.image[..., None], 2, 2, "SAME"),
    "nn.max_pool_with_argmax": lambda i: tf.nn.max_pool_with_argmax(i.image, 2, 2, "SAME"),
    "nn.pool": lambda i: tf.nn.pool(i.image, [2, 2], "MAX", [2, 2]),
    "nn.separable_conv2d": lambda i: tf.nn.separable_conv2d(
        i.image, _ramp(2, 2, 3, 1), _ramp(1, 1, 3, 2), [1] * 4, "SAME"
    ),
    "nn.sparse_softmax_cross_entropy_with_logits": lambda i: (
        tf.nn.sparse_softmax_cross_entropy_with_logits(
            i.n, tf.tile(i.x[..., None], [1, 1, 1, 6])
        )
    ),
    "nn.weighted_cross_entropy_with_logits": lambda i: tf.nn.weighted_cross_entropy_with_logits(
        i.u, i.x, 2.0
    ),
    "nn.weighted_moments": lambda i: tf.nn.weighted_moments(i.x, [1], i.u)[1],
    "nn.xw_plus_b": lambda i: v1.nn.xw_plus_b(i.x[:, 0], _ramp(6, 2), _ones(2)),
    "nn.relu_layer": lambda i: v1.nn.relu_layer(i.x[:, 0], _ramp(6, 2), _ones(2)),
}  # fmt: skip
CALLS: Mapping[str, Callable[[Any], Any]] = {
    **OF_SHAPES,
    **ARRAYS,
    **IMAGES,
    **LINEAR_ALGEBRA,
    **NUMBERS,
    **NETWORKS,
}
