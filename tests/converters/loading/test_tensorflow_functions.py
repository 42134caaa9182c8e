"""Functional models of Keras 2 that call functions of TensorFlow, saved by tf_keras."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.lambdas import tensorflow_functions
from edgeattn_converters.loading.load import load_model

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
    "signal.dct": lambda i: tf.signal.dct(i.signal),
    "signal.idct": lambda i: tf.signal.idct(i.signal),
    "signal.overlap_and_add": lambda i: tf.signal.overlap_and_add(i.x, 3),
    "shape in a reshape": lambda i: tf.reshape(i.x, [tf.shape(i.x)[0], tf.shape(i.x)[1] * 6]),
    "shape in arithmetic": lambda i: tf.reshape(i.x, (-1, tf.shape(i.x)[2] // 2, 8)),
    "shape in a slice": lambda i: i.x[:, : tf.shape(i.x)[1] - 1],
    "shape in broadcast_to": lambda i: tf.broadcast_to(i.x[:, :1], tf.shape(i.x)),
}


# Names that other versions of tf.keras store, and what they are in NumPy.
OTHER_VERSIONS = {"math.floordiv": np.floor_divide, "math.mod": np.mod, "math.divide": np.divide}


def _inputs() -> SimpleNamespace:
    return SimpleNamespace(
        **{
            name: tf_keras.Input(
                shape, dtype="int32" if isinstance(low, int) else "float32", name=name
            )
            for name, (shape, low, _) in INPUTS.items()
        }
    )


def _samples() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    return {
        name: (
            generator.integers(low, high + 1, (3, *shape)).astype("int32")
            if isinstance(low, int)
            else generator.uniform(low, high, (3, *shape)).astype("float32")
        )
        for name, (shape, low, high) in INPUTS.items()
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[np.ndarray]]:
    """A file with every call, the names of the calls by output, and what tf_keras computes."""
    inputs = _inputs()
    outputs, names = [], []
    for name, call in CALLS.items():
        results = tf.nest.flatten(call(inputs))
        outputs += results
        names += [name] * len(results)
    model = tf_keras.Model(list(vars(inputs).values()), outputs)
    path = tmp_path_factory.mktemp("functions") / "model.h5"
    model.save(path)
    return path, names, [np.asarray(value) for value in model(list(_samples().values()))]


def test_every_function_computes_the_same(saved: tuple[Path, list[str], list[np.ndarray]]) -> None:
    path, names, expected = saved
    actual = load_model(audit_file(path)).model(list(_samples().values()))
    for name, value, result in zip(names, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)


def _functions(path: Path) -> set[str]:
    """The functions that a file names, without operators such as ``x + y``."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    names = {
        str(layer["config"]["function"]) for layer in layers if layer["class_name"] == "TFOpLambda"
    }
    return {name for name in names if not name.startswith("__operators__")}


def test_every_function_of_the_table_is_called(
    saved: tuple[Path, list[str], list[np.ndarray]],
) -> None:
    stored = {name.removeprefix("compat.v1.") for name in _functions(saved[0])}
    assert stored | set(OTHER_VERSIONS) == set(tensorflow_functions.FUNCTIONS)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("math.unheard_of", UnsupportedModelError),
        ("random.normal", UnsupportedModelError),
        ("io.read_file", UnsafeModelError),
        ("numpy_function", UnsafeModelError),
    ],
)
def test_other_functions_are_named(function: str, error: type[Exception], tmp_path: Path) -> None:
    inputs = tf_keras.Input((3,))
    model = tf_keras.Model(inputs, tf.math.bessel_i0(inputs))
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        config = config.decode() if isinstance(config, bytes) else config
        file.attrs["model_config"] = config.replace("math.bessel_i0", function)
    with pytest.raises(error, match=function):
        load_model(audit_file(path))


def test_operands_that_the_file_does_not_contain(tmp_path: Path) -> None:
    """tf_keras stores the first argument of ``tf.einsum`` only, the equation."""
    inputs = tf_keras.Input((4, 6))
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, tf.einsum("bij,bkj->bik", inputs, inputs)).save(path)
    with pytest.raises(UnsupportedModelError, match=r"'einsum'.* does not contain its tensors"):
        load_model(audit_file(path))


@pytest.mark.parametrize("name", OTHER_VERSIONS)
def test_names_of_other_versions(name: str) -> None:
    values = np.array([-3.0, 2.5, 7.0], "float32")
    result = tensorflow_functions.call(name, [tf.constant(values), 2.0], {})
    np.testing.assert_allclose(result, OTHER_VERSIONS[name](values, 2.0), rtol=1e-6)
