"""Operations whose results the converters get wrong for some values, or do not write at all.

All of them are in one model, and Keras computes the expected values.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
GENERATOR = np.random.default_rng(4)
NUMBERS = np.array([-7, -3, -2.5, -1, -0.3, -1e-3, 1e-3, 0.3, 0.7, 1, 3, 7, 123456.8], "float32")
INTEGERS = np.array([-100, -7, -3, -1, 1, 2, 7, 12345], "int32")

EXPONENTS = np.array(
    [[[-np.inf, -np.inf, 90, -200, 0, 89.5, 3], [1, 2, -3, 0.5, 0, 1e30, 7]]], "float32"
)


def every_pair(values: np.ndarray) -> list[np.ndarray]:
    """Two arrays of one row: each value and 0, and each value."""
    pairs = np.meshgrid(np.append(values, values.dtype.type(0)), values)
    return [pair.reshape(1, -1) for pair in pairs]


def vectors() -> np.ndarray:
    """A row of vectors, among them zeros, tiny ones, and one with a single nonzero element."""
    tiny = np.full(3, 1e-25), np.full(3, -1e-13), np.array([0, 1e-7, 0])
    return np.array([[np.zeros(3), *tiny, *GENERATOR.normal(size=(2, 3))]], "float32")


def _dot(axes: int) -> Callable[..., Any]:
    return lambda x: keras.layers.Dot(axes, normalize=True)([x, x * 2])


def _resize(shape: tuple[int, int], method: str, **options: Any) -> Callable[..., Any]:
    return lambda x: tf.image.resize(x, shape, method, **options)


def _bicubic(**options: bool) -> Callable[..., Any]:
    return lambda x: tf.raw_ops.ResizeBicubic(images=x, size=[7, 9], **options)


def lengths() -> np.ndarray:
    """Rows of vectors with lengths from 0 to 3."""
    vectors = GENERATOR.normal(size=(1, 6, 5))
    return np.float32(vectors * np.array([0, 1e-4, 3e-3, 0.01, 1, 3])[:, None])


def _squares(x: Any, axis: int | tuple[int, ...] = -1) -> Any:
    return ops.sum(ops.square(x), axis=axis, keepdims=True)


Functions = Mapping[str, Callable[..., Any]]
GROUPS: Mapping[str, tuple[list[np.ndarray], Functions]] = {
    "counts of tokens": (
        [np.array([[5, 0, 2, 5, 5, 1]], "int32"), np.array([[1, 2, 0.5, 0.25, -3, 0]], "float32")],
        {
            "counts": lambda x, _: keras.layers.CategoryEncoding(6, "count")(x),
            "any": lambda x, _: keras.layers.CategoryEncoding(7)(x),
            "weighted": lambda x, w: keras.layers.CategoryEncoding(6, "count")(x, count_weights=w),
        },
    ),
    "indices outside": (
        [
            np.array([[-1, 0, 3, 4, -4, 9]], "int32"),
            GENERATOR.normal(size=(1, 6, 4)).astype("float32"),
        ],
        {
            "code": lambda n, _: ops.one_hot(n, 4),
            "code_first": lambda n, _: ops.one_hot(n, 4, axis=1),
            "code_of_integers": lambda n, _: ops.one_hot(ops.cast(n, "int64"), 4, dtype="int32"),
            "code_of_two_numbers": lambda n, _: tf.one_hot(n, 4, 2.5, -0.5),
            "codes": lambda n, _: ops.multi_hot(n, 4),
            "in_top": lambda n, x: ops.cast(ops.in_top_k(n[0], x[0], 2), "int32")[None],
        },
    ),
    "new axes": (
        [
            GENERATOR.normal(size=(1, 6, 4, 5)).astype("float32"),
            np.array([[2]], "int32"),
        ],
        {
            "ahead_of_an_ellipsis": lambda x, _: x[:, 1:-1:2, tf.newaxis, ..., ::-1],
            "behind_it": lambda x, _: x[:, ..., tf.newaxis, 1:3],
            "on_both_sides": lambda x, _: x[:, tf.newaxis, 2, ..., tf.newaxis, 1::2],
            "last": lambda x, _: x[..., tf.newaxis],
            "of_no_axis": lambda x, _: x[:, :, 1, ..., tf.newaxis, 0],
            "at_a_step": lambda x, n: x[:, n[0, 0], tf.newaxis, ..., ::-2],
            "from_the_end": lambda x, _: x[..., -3:-1, tf.newaxis, -2],
        },
    ),
    "vectors of zeros": (
        [vectors()],
        {
            "unit": keras.layers.UnitNormalization(),
            "normalize": lambda x: ops.normalize(x, axis=1),
            "first_order": lambda x: ops.normalize(x, order=1),
            "cosine": lambda x: keras.losses.cosine_similarity(x, x + 1e-3),
            "dot": _dot(2),
            "dot_of_steps": _dot(1),
            "reciprocal": lambda x: ops.minimum(ops.rsqrt(ops.abs(x)), 5.0),
            "power": lambda x: ops.minimum(ops.power(ops.abs(x), -0.5), 5.0),
            "quotient": lambda x: ops.minimum(2.0 / ops.sqrt(ops.abs(x)), 5.0),
            "no_infinity": lambda x: ops.where(ops.isinf(ops.rsqrt(ops.abs(x))), 0.0, x),
        },
    ),
    "norms with a limit": (
        [lengths()],
        {
            "maximum_of_square": lambda x: x * ops.rsqrt(ops.maximum(_squares(x), 8e-4)),
            "epsilon": lambda x: x / ops.sqrt(_squares(x) + 1e-6),
            "epsilon_first": lambda x: x / ops.sqrt(5e-4 + ops.sum(x**2, axis=2, keepdims=True)),
            "root_of_power": lambda x: x * ops.power(_squares(x) + 1e-5, -0.5),
            "reciprocal_root": lambda x: x * ops.reciprocal(ops.sqrt(_squares(x) + 1e-5)),
            "tensorflow": lambda x: tf.math.l2_normalize(x, axis=-1, epsilon=1e-4),
            "default": lambda x: tf.math.l2_normalize(x, axis=-1),
            "of_matrix": lambda x: tf.math.l2_normalize(x, axis=(-1, -2)),
            "euclidean": lambda x: tf.math.reduce_euclidean_norm(x, axis=-1),
            "euclidean_of_matrix": lambda x: tf.math.reduce_euclidean_norm(
                tf.reshape(x, (-1, 2, 3, 5)), axis=(1, -1), keepdims=True
            ),
            "of_matrix_with_epsilon": lambda x: x / ops.sqrt(_squares(x, (2, 1)) + 1e-6),
        },
    ),
    "rolls": (
        [lengths()],
        {
            "by_lists_of_one": lambda x: tf.roll(x, shift=[1], axis=[1]),
            "back_by_lists_of_one": lambda x: tf.roll(x, shift=[-2], axis=[-1]),
            "twice_along_an_axis": lambda x: tf.roll(x, shift=[1, 1], axis=[2, 2]),
            "by_a_number": lambda x: tf.roll(x, shift=2, axis=1),
            "half_of_the_axis": lambda x: tf.signal.ifftshift(x, axes=(1,)),
        },
    ),
    "remainders of floats": (
        every_pair(NUMBERS),
        {
            "mod": ops.mod,
            "fmod": ops.fmod,
            "truncated": lambda x, y: tf.raw_ops.TruncateMod(x=x, y=y),
            "of_constant": lambda x, y: ops.mod(5.5, y),
            "by_constant": lambda x, y: ops.mod(x, -0.1),
            "floor_divide": ops.floor_divide,
            "angle": lambda x, y: ops.mod(x + 3.0, 6.0) - 3.0,
        },
    ),
    "remainders of integers": (
        every_pair(INTEGERS),
        {
            "integer_mod": ops.mod,
            "integer_fmod": ops.fmod,
            "integer_truncated": lambda x, y: tf.raw_ops.TruncateMod(x=x, y=y),
            "integer_quotient": lambda x, y: tf.raw_ops.TruncateDiv(x=x, y=y),
            "integer_floor_divide": ops.floor_divide,
            "integer_by_constant": lambda x, y: ops.mod(x, -7),
        },
    ),
    "angles": (
        [GENERATOR.normal(size=(1, 5, 3)).astype("float32")],
        {
            "angle_of_number": lambda x: ops.arctan2(-0.5, x),
            "angle_by_number": lambda x: tf.math.atan2(x, -0.5),
            "angle_by_vector": lambda x: ops.arctan2(x, np.float32([0.3, -1.0, 2.0])),
            "angle_of_steps": lambda x: ops.arctan2(ops.sum(x, -1, keepdims=True), x),
            "angle_of_rows": lambda x: ops.arctan2(np.ones((2, 1, 1), "float32"), x[:, None]),
        },
    ),
    "interpolations": (
        [GENERATOR.normal(size=(1, 5, 6, 2)).astype("float32")],
        {
            **{
                method.replace("3", "three").replace("5", "five"): _resize((7, 9), method)
                for method in ("bicubic", "lanczos3", "lanczos5", "area", "gaussian")
            },
            "mitchell": _resize((3, 11), "mitchellcubic"),
            "smaller": _resize((3, 2), "bicubic", antialias=True),
            "bilinear": _resize((3, 4), "bilinear", antialias=True),
            "nearest": _resize((3, 11), "nearest"),
            "upsampling": keras.layers.UpSampling2D((2, 3), interpolation="bicubic"),
            "resizing": keras.layers.Resizing(7, 4, "bicubic", crop_to_aspect_ratio=True),
            "aligned": _bicubic(align_corners=True, half_pixel_centers=False),
            "from_corners": _bicubic(align_corners=False, half_pixel_centers=False),
        },
    ),
    "pooling over volumes": (
        [GENERATOR.normal(size=(1, 5, 5, 7, 2)).astype("float32")],
        {
            "adaptive_average": keras.layers.AdaptiveAveragePooling3D((2, 2, 3)),
            "adaptive_maximum": keras.layers.AdaptiveMaxPooling3D(2),
            "max_pool": lambda x: ops.max_pool(x, (2, 3, 2), 2, padding="same"),
            "average_pool": lambda x: ops.average_pool(x, (1, 2, 2), (1, 2, 1), padding="same"),
        },
    ),
    "cumulative sums of exponentials": (
        [EXPONENTS],
        {
            "logsumexp": lambda x: tf.math.cumulative_logsumexp(x, axis=-1),
            "logsumexp_before": lambda x: tf.math.cumulative_logsumexp(x, axis=2, exclusive=True),
            "logsumexp_of_rows": lambda x: tf.math.cumulative_logsumexp(x, axis=1, reverse=True),
        },
    ),
    "special functions": (
        [np.array([[-0.99999, -0.95, -0.3, -1e-5, 0, 1e-3, 0.7, 0.999, 0.9999999]], "float32")],
        {
            "erfinv": ops.erfinv,
            "bessel": lambda x: ops.i0(x * 80.0),
            "bessel_of_small": lambda x: ops.i0(x * 9.0),
            "xlogy": lambda x: tf.math.xlogy(ops.relu(x), ops.relu(x)),
            "xlog1py": lambda x: tf.math.xlog1py(ops.relu(x), x),
            "xdivy": lambda x: tf.math.xdivy(ops.relu(x), ops.relu(x)),
            "multiply_no_nan": lambda x: tf.math.multiply_no_nan(1 / ops.relu(x), ops.relu(x)),
        },
    ),
}


class Function(keras.layers.Layer):
    """A function of TensorFlow as a layer."""

    def __init__(self, function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def feeds() -> dict[str, np.ndarray]:
    return {
        f"{group} {position}".replace(" ", "_"): array
        for group, (arrays, _) in GROUPS.items()
        for position, array in enumerate(arrays)
    }


@pytest.fixture(scope="module")
def model() -> Any:
    inputs = {
        name: keras.Input(array.shape[1:], name=name, dtype=array.dtype.name)
        for name, array in feeds().items()
    }
    outputs = {}
    for group, (arrays, functions) in GROUPS.items():
        names = [f"{group} {position}".replace(" ", "_") for position in range(len(arrays))]
        operands = [inputs[name] for name in names]
        for name, function in functions.items():
            layer = function if isinstance(function, keras.layers.Layer) else Function(function)
            outputs[name] = layer(*operands)
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def expected(model: Any) -> Mapping[str, Any]:
    return {name: np.asarray(value) for name, value in model(feeds()).items()}


@pytest.fixture(scope="module", params=only(CONVERTERS, "tflite"))
def actual(
    request: pytest.FixtureRequest, model: Any, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    format = request.param
    path = tmp_path_factory.mktemp("special") / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    return runner.run(feeds())


@pytest.mark.parametrize("group", GROUPS)
def test_results_as_in_keras(
    group: str, actual: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    for name in GROUPS[group][1]:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_normalization_with_an_epsilon_keeps_its_operator(tmp_path: Path) -> None:
    """A sum of squares and an epsilon is not zero, so one RSQRT is enough."""
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.LayerNormalization()(inputs))
    path = tmp_path / "model.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    assert file.achieved["operators"]["RSQRT"] == 1
    assert "SQRT" not in file.achieved["operators"]


def test_default_normalization_keeps_its_operator(tmp_path: Path) -> None:
    inputs = keras.Input((4, 3))
    layer = Function(lambda x: tf.math.l2_normalize(x, axis=-1))
    model = keras.Model(inputs, layer(inputs))
    path = tmp_path / "model.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    assert file.achieved["operators"] == {"L2_NORMALIZATION": 1}
