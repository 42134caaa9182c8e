"""Functions of TensorFlow that only compute on tensors, which a stored graph may call by name.

They read no files, keep no state, draw no random numbers and take no Python functions, except the
windows of ``tf.signal`` by name. The table is
tested: a file of tf_keras with a call of each loads, and computes the same. To support another
function add it here, and a call to the test.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_TABLE = """
: argsort broadcast_to cast clip_by_norm clip_by_value concat expand_dims floor_div gather
  gather_nd identity linspace norm one_hot ones_like pad repeat reshape reverse reverse_sequence
  roll searchsorted sequence_mask shape slice sort split squeeze stack stop_gradient
  strided_slice tensordot tile transpose unstack where zeros_like
bitwise: bitwise_and bitwise_or bitwise_xor invert left_shift right_shift
image: adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop
  crop_to_bounding_box extract_patches flip_left_right flip_up_down grayscale_to_rgb hsv_to_rgb
  pad_to_bounding_box per_image_standardization psnr resize resize_with_crop_or_pad
  rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 ssim transpose yiq_to_rgb yuv_to_rgb
linalg: adjoint band_part cholesky cross det diag diag_part inv matmul matrix_transpose
  normalize set_diag solve trace
math: abs acos acosh add add_n angle argmax argmin asin asinh atan atan2 atanh bessel_i0 bessel_i0e
  bessel_i1 bessel_i1e ceil conj cos cosh count_nonzero cumprod cumsum cumulative_logsumexp digamma
  divide divide_no_nan equal erf erfc erfinv exp expm1 floor floordiv floormod greater
  greater_equal igamma
  igammac imag is_finite is_inf is_nan l2_normalize less less_equal lgamma log log1p log_sigmoid
  logical_and logical_not logical_or maximum minimum mod multiply
  multiply_no_nan ndtri negative
  nextafter not_equal polyval pow real reciprocal reciprocal_no_nan reduce_all reduce_any
  reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod
  reduce_std reduce_sum reduce_variance rint round rsqrt scalar_mul sigmoid sign sin sinh
  softplus sqrt square squared_difference subtract tan tanh top_k truediv xdivy xlog1py xlogy
  zero_fraction
nn: avg_pool2d bias_add conv2d crelu depth_to_space depthwise_conv2d elu gelu leaky_relu
  local_response_normalization log_softmax max_pool2d relu relu6 selu
  sigmoid_cross_entropy_with_logits silu softmax softmax_cross_entropy_with_logits_v2 softsign
  space_to_depth
signal: dct fft fft2d fft3d frame idct ifft ifft2d ifft3d inverse_stft
  irfft irfft2d irfft3d mfccs_from_log_mel_spectrograms overlap_and_add rfft rfft2d rfft3d stft
dtypes: complex
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
# A file contains the name of a function in ``tf.signal``, or that of a function without a name.
WINDOWS = frozenset({"hamming_window", "hann_window", "kaiser_window", "vorbis_window"})
_VERSIONS = ("compat.v1.", "compat.v2.")


def is_known(path: str) -> bool:
    """Whether the name, such as ``math.top_k`` or ``compat.v1.pad``, is in the table."""
    return _without_version(path) in FUNCTIONS


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
    for part in path.split("."):
        function = getattr(function, part)
    if isinstance(named.get("window_fn"), str):
        named = {**named, "window_fn": getattr(tf.signal, named["window_fn"])}
    values = [_as_list(value) for value in arguments]
    return function(*values, **{key: _as_list(value) for key, value in named.items()})


def _as_list(value: Any) -> Any:
    is_tuple = type(value) is tuple
    return [_as_list(item) for item in value] if is_tuple else value
