"""Calls of functions of TensorFlow that only compute on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import more_tensorflow_calls
import numpy as np
import tensorflow as tf

# Shape of a sample, lowest and highest value; integers if both are.
INPUTS: Mapping[str, tuple[tuple[int, ...], Any, Any]] = {
    "x": ((4, 6), -2.0, 2.0),
    "y": ((4, 6), -2.0, 2.0),
    "u": ((4, 6), 0.1, 0.9),
    "n": ((4, 6), 0, 5),
    "square": ((3, 3), -1.0, 1.0),
    "image": ((8, 8, 3), 0.0, 1.0),
    "signal": ((64,), -1.0, 1.0),
}
_KERNEL = np.linspace(-1, 1, 3 * 3 * 3 * 2, dtype="float32").reshape(3, 3, 3, 2)
_ROW = np.linspace(-1, 1, 6, dtype="float32")


def _same_name(names: str, call: Callable[[Any, Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """Functions of one argument list, such as ``math.sin``."""

    def bound(name: str) -> Callable[[Any], Any]:
        function = functools.reduce(getattr, name.split("."), tf)
        return lambda i: call(function, i)

    return {name: bound(name) for name in names.split()}


CALLS: Mapping[str, Callable[[Any], Any]] = {
    **more_tensorflow_calls.CALLS,
    **_same_name(
        "abs math.asinh math.atan math.bessel_i0 math.bessel_i0e math.bessel_i1 math.bessel_i1e "
        "math.ceil math.cos math.cosh math.erf math.erfc math.exp math.expm1 math.floor "
        "math.is_finite math.is_inf math.is_nan math.log_sigmoid math.negative math.rint "
        "math.sigmoid math.sign math.sin math.sinh math.softplus math.square math.tanh nn.elu "
        "nn.gelu nn.leaky_relu nn.relu nn.relu6 nn.selu nn.silu nn.softsign nn.crelu identity "
        "ones_like zeros_like nn.softmax nn.log_softmax round argsort sort linalg.matrix_transpose "
        "linalg.adjoint",
        lambda f, i: f(i.x),
    ),
    **_same_name(
        "math.acos math.asin math.atanh math.digamma math.erfinv math.lgamma math.log math.log1p "
        "math.ndtri math.reciprocal math.reciprocal_no_nan math.rsqrt math.sqrt math.tan",
        lambda f, i: f(i.u),
    ),
    **_same_name(
        "math.add math.atan2 math.divide_no_nan math.equal math.greater math.greater_equal "
        "math.less math.less_equal math.maximum math.minimum math.multiply math.multiply_no_nan "
        "math.nextafter math.not_equal math.squared_difference math.subtract",
        lambda f, i: f(i.x, i.y),
    ),
    **_same_name(
        "math.divide math.truediv math.floordiv math.floormod math.xdivy math.xlog1py math.xlogy",
        lambda f, i: f(i.x, i.u),
    ),
    **_same_name(
        "math.reduce_euclidean_norm math.reduce_logsumexp math.reduce_max math.reduce_mean "
        "math.reduce_min math.reduce_prod math.reduce_std math.reduce_sum math.reduce_variance "
        "math.count_nonzero math.cumprod math.cumsum math.cumulative_logsumexp math.argmax "
        "math.argmin linalg.norm norm unstack",
        lambda f, i: f(i.x, axis=1),
    ),
    **_same_name(
        "bitwise.bitwise_and bitwise.bitwise_or bitwise.bitwise_xor bitwise.left_shift "
        "bitwise.right_shift",
        lambda f, i: f(i.n + 9, i.n),
    ),
    **_same_name(
        "image.flip_left_right image.flip_up_down image.per_image_standardization image.rot90 "
        "image.rgb_to_grayscale image.rgb_to_hsv image.hsv_to_rgb image.rgb_to_yiq "
        "image.rgb_to_yuv image.yiq_to_rgb image.yuv_to_rgb image.sobel_edges "
        "image.total_variation image.transpose",
        lambda f, i: f(i.image),
    ),
    "%": lambda i: i.x % 0.7,
    "//": lambda i: i.x // 0.7,
    "argmax as int32": lambda i: tf.argmax(i.x, axis=-1, output_type=tf.int32),
    "add_n": lambda i: tf.add_n([i.x, i.y, i.u]),
    "math.acosh": lambda i: tf.math.acosh(i.u + 1.0),
    "math.igamma": lambda i: tf.math.igamma(i.u, i.u * 2.0),
    "math.igammac": lambda i: tf.math.igammac(i.u, i.u * 2.0),
    "math.l2_normalize": lambda i: tf.math.l2_normalize(i.x, axis=-1, epsilon=1e-6),
    "math.logical_and": lambda i: tf.logical_and(i.x > 0.0, i.y > 0.0),
    "math.logical_or": lambda i: tf.logical_or(i.x > 0.0, i.y > 0.0),
    "math.logical_xor": lambda i: tf.math.logical_xor(i.x > 0.0, i.y > 0.0),
    "math.logical_not": lambda i: tf.logical_not(i.x > 0.0),
    "math.pow": lambda i: tf.pow(i.u, i.x),
    "math.polyval": lambda i: tf.math.polyval([2.0, -1.0, 0.5], i.x),
    "math.reduce_all": lambda i: tf.reduce_all(i.x > -1.5, axis=1),
    "math.reduce_any": lambda i: tf.reduce_any(i.x > 1.5, axis=1),
    "math.scalar_mul": lambda i: tf.math.scalar_mul(1.5, i.x),
    "math.top_k": lambda i: tf.math.top_k(i.x, 2),
    "math.zero_fraction": lambda i: tf.math.zero_fraction(i.n) + i.u,
    "cast": lambda i: tf.cast(i.n, tf.float32),
    "clip_by_norm": lambda i: tf.clip_by_norm(i.x, 2.0, axes=[2]),
    "clip_by_value": lambda i: tf.clip_by_value(i.x, -0.5, 0.7),
    "concat": lambda i: tf.concat([i.x, i.y], axis=-1),
    "expand_dims": lambda i: tf.expand_dims(i.x, 1),
    "squeeze": lambda i: tf.squeeze(i.x[:, :1], [1]),
    "gather": lambda i: tf.gather(i.x, [0, 3, 1], axis=1),
    "gather in batches": lambda i: tf.gather(i.x, i.n, axis=2, batch_dims=2),
    "gather_nd": lambda i: tf.gather_nd(i.x, i.n[:, :, :1] // 2, batch_dims=1),
    "linalg.band_part": lambda i: tf.linalg.band_part(i.x, 0, -1),
    "linalg.cholesky": lambda i: tf.linalg.cholesky(
        tf.matmul(i.square, i.square, transpose_b=True) + 2.0 * tf.eye(3)
    ),
    "linalg.cross": lambda i: tf.linalg.cross(i.square, i.square + 0.5),
    "linalg.det": lambda i: tf.linalg.det(i.square),
    "linalg.diag": lambda i: tf.linalg.diag(i.x),
    "linalg.diag_part": lambda i: tf.linalg.diag_part(i.square),
    "linalg.inv": lambda i: tf.linalg.inv(i.square + 2.0 * tf.eye(3)),
    "linalg.matmul": lambda i: tf.matmul(i.x, i.y, transpose_b=True),
    "linalg.matvec": lambda i: tf.linalg.matvec(i.x, i.y[:, 0]),
    "linalg.normalize": lambda i: tf.linalg.normalize(i.x, axis=1)[0],
    "linalg.set_diag": lambda i: tf.linalg.set_diag(i.square, i.square[:, 0]),
    "linalg.solve": lambda i: tf.linalg.solve(i.square + 2.0 * tf.eye(3), i.square),
    "linalg.trace": lambda i: tf.linalg.trace(i.square),
    "linspace": lambda i: tf.linspace(i.x[:, 0], i.y[:, 0], 4, axis=1),
    "norm of order 1": lambda i: tf.norm(i.x, ord=1, axis=-1, keepdims=True),
    "one_hot": lambda i: tf.one_hot(i.n, 6, on_value=2.0, off_value=-1.0),
    "pad": lambda i: tf.pad(i.x, [[0, 0], [1, 2], [0, 1]]),
    "pad with a value": lambda i: tf.pad(i.x, [[0, 0], [1, 0], [0, 0]], constant_values=2.0),
    "pad by reflection": lambda i: tf.pad(i.x, [[0, 0], [1, 2], [0, 0]], "REFLECT"),
    "repeat": lambda i: tf.repeat(i.x, 2, axis=1),
    "reverse": lambda i: tf.reverse(i.x, [1]),
    "reverse_sequence": lambda i: tf.reverse_sequence(i.x, i.n[:, 0, 0] // 2 + 1, seq_axis=1),
    "roll": lambda i: tf.roll(i.x, shift=2, axis=1),
    "roll of two axes": lambda i: tf.roll(i.x, shift=[1, -2], axis=[1, 2]),
    "searchsorted": lambda i: tf.searchsorted(tf.sort(i.x), i.y),
    "sequence_mask": lambda i: tf.sequence_mask(i.n[:, 0], 6),
    "slice": lambda i: tf.slice(i.x, [0, 1, 2], [-1, 2, 3]),
    "strided_slice": lambda i: tf.strided_slice(i.x, [0, 0, 0], [2, 4, 6], [1, 2, 2]),
    "split": lambda i: tf.split(i.x, [1, 3], axis=1),
    "stack": lambda i: tf.stack([i.x, i.y], axis=1),
    "tensordot": lambda i: tf.tensordot(i.x, tf.constant(_ROW), axes=1),
    "tensordot of lists": lambda i: tf.tensordot(i.x, np.stack([_ROW, _ROW]), axes=[[2], [1]]),
    "tile": lambda i: tf.tile(i.x, [1, 2, 1]),
    "transpose": lambda i: tf.transpose(i.x, [0, 2, 1]),
    "where": lambda i: tf.where(i.x > 0.0, i.x, i.y),
    "bitwise.invert": lambda i: tf.bitwise.invert(i.n),
    "nn.avg_pool2d": lambda i: tf.nn.avg_pool2d(i.image, 2, 2, "SAME"),
    "nn.max_pool2d": lambda i: tf.nn.max_pool2d(i.image, 2, 2, "VALID"),
    "nn.bias_add": lambda i: tf.nn.bias_add(i.x, tf.constant(_ROW)),
    "nn.conv2d": lambda i: tf.nn.conv2d(i.image, _KERNEL, 1, "SAME"),
    "nn.depthwise_conv2d": lambda i: tf.nn.depthwise_conv2d(i.image, _KERNEL, [1] * 4, "SAME"),
    "nn.depth_to_space": lambda i: tf.nn.depth_to_space(tf.tile(i.image, [1, 1, 1, 4]), 2),
    "nn.space_to_depth": lambda i: tf.nn.space_to_depth(i.image, 2),
    "nn.local_response_normalization": lambda i: tf.nn.local_response_normalization(i.image),
    "nn.moments": lambda i: tf.nn.moments(i.x, axes=[1]),
    "nn.sigmoid_cross_entropy_with_logits": lambda i: tf.nn.sigmoid_cross_entropy_with_logits(
        labels=i.u, logits=i.x
    ),
    "nn.softmax_cross_entropy_with_logits": lambda i: tf.nn.softmax_cross_entropy_with_logits(
        labels=i.u, logits=i.x
    ),
    "image.adjust_brightness": lambda i: tf.image.adjust_brightness(i.image, 0.1),
    "image.adjust_contrast": lambda i: tf.image.adjust_contrast(i.image, 1.5),
    "image.adjust_gamma": lambda i: tf.image.adjust_gamma(i.image, 1.5),
    "image.adjust_hue": lambda i: tf.image.adjust_hue(i.image, 0.1),
    "image.adjust_saturation": lambda i: tf.image.adjust_saturation(i.image, 1.5),
    "image.central_crop": lambda i: tf.image.central_crop(i.image, 0.5),
    "image.crop_to_bounding_box": lambda i: tf.image.crop_to_bounding_box(i.image, 1, 2, 4, 5),
    "image.extract_patches": lambda i: tf.image.extract_patches(
        i.image, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"
    ),
    "image.grayscale_to_rgb": lambda i: tf.image.grayscale_to_rgb(i.image[..., :1]),
    "image.pad_to_bounding_box": lambda i: tf.image.pad_to_bounding_box(i.image, 1, 2, 12, 12),
    "image.psnr": lambda i: tf.image.psnr(i.image, i.image * 0.5, 1.0),
    "image.resize": lambda i: tf.image.resize(i.image, [5, 6]),
    "image.resize_with_crop_or_pad": lambda i: tf.image.resize_with_crop_or_pad(i.image, 6, 10),
    "image.ssim": lambda i: tf.image.ssim(i.image, i.image * 0.5, 1.0, filter_size=3),
    "signal.frame": lambda i: tf.signal.frame(i.signal, 16, 8),
    "signal.fft": lambda i: tf.abs(tf.signal.fft(tf.cast(i.x, tf.complex64))),
    "signal.fft2d": lambda i: tf.abs(tf.signal.fft2d(tf.complex(i.x, i.y))),
    "signal.fft3d": lambda i: tf.abs(tf.signal.fft3d(tf.cast(i.image, tf.complex64))),
    "signal.ifft": lambda i: tf.math.imag(tf.signal.ifft(tf.complex(i.x, i.y))),
    "signal.ifft2d": lambda i: tf.math.angle(tf.signal.ifft2d(tf.complex(i.u, i.y))),
    "signal.ifft3d": lambda i: tf.math.real(tf.signal.ifft3d(tf.cast(i.image, tf.complex64))),
    "signal.stft": lambda i: tf.abs(tf.signal.stft(i.signal, 16, 8)),
    "signal.stft with a window": lambda i: tf.math.log(
        tf.abs(tf.signal.stft(i.signal, 12, 5, 30, tf.signal.hamming_window, pad_end=True)) + 1e-3
    ),
    "signal.stft without a window": lambda i: tf.math.real(
        tf.math.conj(tf.signal.stft(i.signal, 16, 16, window_fn=None))
    ),
    "signal.inverse_stft": lambda i: tf.signal.inverse_stft(tf.signal.stft(i.signal, 16, 8), 16, 8),
    "signal.mfccs_from_log_mel_spectrograms": (
        lambda i: tf.signal.mfccs_from_log_mel_spectrograms(i.x)
    ),
    "signal.dct": lambda i: tf.signal.dct(i.signal),
    "signal.idct": lambda i: tf.signal.idct(i.signal),
    "signal.overlap_and_add": lambda i: tf.signal.overlap_and_add(i.x, 3),
    "shape in a reshape": lambda i: tf.reshape(i.x, [tf.shape(i.x)[0], tf.shape(i.x)[1] * 6]),
    "shape in arithmetic": lambda i: tf.reshape(i.x, (-1, tf.shape(i.x)[2] // 2, 8)),
    "shape in a slice": lambda i: i.x[:, : tf.shape(i.x)[1] - 1],
    "shape in broadcast_to": lambda i: tf.broadcast_to(i.x[:, :1], tf.shape(i.x)),
}


def samples() -> dict[str, np.ndarray]:
    """Values of the inputs."""
    generator = np.random.default_rng(5)
    return {
        name: (
            generator.integers(low, high + 1, (3, *shape)).astype("int32")
            if isinstance(low, int)
            else generator.uniform(low, high, (3, *shape)).astype("float32")
        )
        for name, (shape, low, high) in INPUTS.items()
    }
