"""Functions of TensorFlow that only compute on tensors, which a stored graph may call by name.

They read no files, keep no state, draw no random numbers and take no Python functions, except the
windows of ``tf.signal`` by name. The table is
tested: a file of tf_keras with a call of each loads, and computes the same. To support another
function add it here, and a call to the test.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_TABLE = """
: argsort batch_gather batch_to_space_nd bitcast boolean_mask broadcast_to cast
  clip_by_global_norm clip_by_norm clip_by_value concat convert_to_tensor dynamic_partition
  dynamic_stitch einsum ensure_shape expand_dims extract_volume_patches eye fill floor_div gather
  gather_nd
  histogram_fixed_width histogram_fixed_width_bins identity identity_n linspace meshgrid norm
  one_hot ones ones_like pad range rank realdiv repeat reshape reverse reverse_sequence roll
  scatter_nd searchsorted sequence_mask shape shape_n size slice sort space_to_batch_nd
  sparse_to_dense split squeeze stack stop_gradient strided_slice tensor_scatter_nd_add
  tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update
  tensordot tile transpose truncatediv truncatemod unique unique_with_counts unravel_index unstack
  where zeros zeros_like
bitwise: bitwise_and bitwise_or bitwise_xor invert left_shift right_shift
dtypes: complex saturate_cast
image: adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop
  combined_non_max_suppression convert_image_dtype crop_and_resize crop_to_bounding_box
  draw_bounding_boxes extract_glimpse extract_image_patches extract_patches flip_left_right
  flip_up_down grayscale_to_rgb hsv_to_rgb non_max_suppression non_max_suppression_with_scores
  pad_to_bounding_box per_image_standardization psnr resize resize_area resize_bicubic
  resize_bilinear resize_images resize_nearest_neighbor resize_with_crop_or_pad resize_with_pad
  rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 ssim ssim_multiscale transpose
  yiq_to_rgb yuv_to_rgb
linalg: adjoint band_part cholesky cholesky_solve cross det diag diag_part eigh eigvalsh expm
  global_norm inv lstsq lu matmul matrix_rank matrix_transpose normalize pinv qr set_diag solve
  sqrtm svd tensor_diag tensor_diag_part trace triangular_solve tridiagonal_matmul
  tridiagonal_solve
math: abs accumulate_n acos acosh add add_n angle argmax argmin asin asinh atan atan2 atanh
  bessel_i0 bessel_i0e bessel_i1 bessel_i1e betainc bincount ceil confusion_matrix conj cos cosh
  count_nonzero cumprod cumsum cumulative_logsumexp digamma divide divide_no_nan equal erf erfc
  erfcinv erfinv exp expm1 floor floordiv floormod greater greater_equal igamma igammac imag
  in_top_k invert_permutation is_finite is_inf is_nan is_non_decreasing is_strictly_increasing
  l2_normalize lbeta less less_equal lgamma log log1p log_sigmoid logical_and logical_not
  logical_or maximum minimum mod multiply multiply_no_nan ndtri negative nextafter not_equal
  polygamma polyval pow real reciprocal reciprocal_no_nan reduce_all reduce_any
  reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_std
  reduce_sum reduce_variance rint round rsqrt scalar_mul segment_max segment_mean segment_min
  segment_prod segment_sum sigmoid sign sin sinh softplus sqrt square squared_difference subtract
  tan tanh top_k truediv unsorted_segment_max unsorted_segment_mean unsorted_segment_min
  unsorted_segment_prod unsorted_segment_sqrt_n unsorted_segment_sum xdivy xlog1py xlogy
  zero_fraction zeta
math.special: bessel_j0 bessel_j1 bessel_k0 bessel_k0e bessel_k1 bessel_k1e bessel_y0 bessel_y1
  dawsn expint fresnel_cos fresnel_sin spence
nn: avg_pool avg_pool1d avg_pool2d avg_pool3d bias_add collapse_repeated conv1d conv1d_transpose
  conv2d conv2d_transpose conv3d conv3d_transpose convolution crelu depth_to_space
  depthwise_conv2d dilation2d elu embedding_lookup erosion2d fused_batch_norm gelu l2_loss
  leaky_relu local_response_normalization log_poisson_loss log_softmax max_pool max_pool1d
  max_pool2d max_pool3d max_pool_with_argmax pool relu relu6 relu_layer selu separable_conv2d
  sigmoid_cross_entropy_with_logits silu softmax softmax_cross_entropy_with_logits_v2 softsign
  space_to_depth sparse_softmax_cross_entropy_with_logits weighted_cross_entropy_with_logits
  weighted_moments xw_plus_b
quantization: fake_quant_with_min_max_args fake_quant_with_min_max_vars
  fake_quant_with_min_max_vars_per_channel quantize_and_dequantize_v2
signal: dct fft fft2d fft3d fftshift frame idct ifft ifft2d ifft3d ifftshift inverse_mdct
  inverse_stft irfft irfft2d irfft3d mdct mfccs_from_log_mel_spectrograms overlap_and_add rfft
  rfft2d rfft3d stft
"""
# Other names of these functions, which code of Lambda layers calls. A stored graph has those above.
# They are called in ``tf.compat.v1``, which has all of them; ``nn.in_top_k`` is not one of them,
# because TensorFlow 1 and 2 take its arguments in different orders.
_ALIASES_TABLE = """
: accumulate_n acos acosh add_n angle asin asinh atan atan2 atanh betainc bincount cholesky
  cholesky_solve complex confusion_matrix conj cosh count_nonzero cross cumprod depth_to_space diag
  diag_part digamma div_no_nan erfc expm1 extract_image_patches fake_quant_with_min_max_args
  fake_quant_with_min_max_vars fake_quant_with_min_max_vars_per_channel fft fft2d fft3d floordiv
  floormod global_norm ifft ifft2d ifft3d igamma igammac imag invert_permutation is_finite is_inf
  is_nan is_non_decreasing is_strictly_increasing lbeta lgamma lin_space log_sigmoid
  matrix_band_part matrix_determinant matrix_diag matrix_diag_part matrix_inverse matrix_set_diag
  matrix_solve matrix_solve_ls matrix_square_root matrix_transpose matrix_triangular_solve mod
  polygamma qr real reciprocal reverse_v2 rint saturate_cast scalar_mul segment_max segment_mean
  segment_min segment_prod segment_sum self_adjoint_eig self_adjoint_eigvals sinh space_to_depth svd
  tan tensor_scatter_add tensor_scatter_sub tensor_scatter_update trace unsorted_segment_max
  unsorted_segment_mean unsorted_segment_min unsorted_segment_prod unsorted_segment_sqrt_n
  unsorted_segment_sum where_v2 zeta
dtypes: cast
image: resize_image_with_crop_or_pad transpose_image
linalg: einsum eye norm tensordot
math.special: bessel_i0 bessel_i0e bessel_i1 bessel_i1e
nn: avg_pool_v2 lrn max_pool_v2 top_k zero_fraction
"""


def _parse(text: str) -> frozenset[str]:
    names, module = set(), ""
    for word in text.split():
        if word.endswith(":"):
            module = word[:-1]
        else:
            names.add(f"{module}.{word}".lstrip("."))
    return frozenset(names)


FUNCTIONS = _parse(_TABLE)
ALIASES = _parse(_ALIASES_TABLE)
# A file contains the name of a function in ``tf.signal``, or that of a function without a name.
WINDOWS = frozenset({"hamming_window", "hann_window", "kaiser_window", "vorbis_window"})
# Arguments that are names of types in a file, and that not all functions accept as names.
_OF_DTYPES = frozenset({"dtype", "dtype_hint", "out_type", "output_type", "Tout"})
# These names, which no argument in place has for another reason.
DTYPES = frozenset(
    {"float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
     "uint16", "bool"}
)  # fmt: skip
_WITH_TABLE = "nn.embedding_lookup"
_VERSIONS = ("compat.v1.", "compat.v2.")


def is_known(path: str) -> bool:
    """Whether the name, such as ``math.top_k`` or ``compat.v1.pad``, is in one of the tables."""
    return _without_version(path) in FUNCTIONS | ALIASES


def _without_version(path: str) -> str:
    return next((path.removeprefix(item) for item in _VERSIONS if path.startswith(item)), path)


def call(path: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The result of the function of TensorFlow with this name, which must be known.

    Tuples become lists, which more functions accept.
    """
    import tensorflow as tf

    if not is_known(path):
        raise ValueError(f"{path} is not a known function of TensorFlow")
    function: Any = tf
    if path in ALIASES:
        path = f"compat.v1.{path}"
    for part in path.split("."):
        function = getattr(function, part)
    if isinstance(named.get("window_fn"), str):
        named = {**named, "window_fn": getattr(tf.signal, named["window_fn"])}
    values = [_dtype(value) if _is_dtype(value) else _as_list(value) for value in arguments]
    if path.endswith(_WITH_TABLE):
        # Lists of several tables are refused before; TensorFlow would take a list as one.
        values[0] = tf.convert_to_tensor(values[0])
    named = {
        key: _dtype(value) if key in _OF_DTYPES and isinstance(value, str) else value
        for key, value in named.items()
    }
    return function(*values, **{key: _as_list(value) for key, value in named.items()})


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def _dtype(name: str) -> Any:
    import tensorflow as tf

    return tf.as_dtype(name)


def _as_list(value: Any) -> Any:
    is_tuple = type(value) is tuple
    return [_as_list(item) for item in value] if is_tuple else value
