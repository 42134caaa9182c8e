"""Operations of images: parts that are resized, SSIM, and integers, compared with TensorFlow."""

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
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
INNER, OUTER = [0.1, 0.2, 0.8, 0.9], [-0.3, 1.0, 1.3, 0.1]
_Functions = Mapping[str, Callable[..., Any]]


def _part(box: list[float], size: tuple[int, int], *options: Any) -> Callable[..., Any]:
    def part(images: Any) -> Any:
        count = tf.shape(images)[0]
        boxes = tf.tile([box], [count, 1])
        return tf.image.crop_and_resize(images, boxes, tf.range(count), size, *options)

    return part


PARTS: _Functions = {
    "inner": _part(INNER, (5, 7)),
    "outer": _part(OUTER, (5, 7), "bilinear", 2.0),
    "single": _part(INNER, (1, 1)),
    "nearest": _part(INNER, (5, 7), "nearest"),
    "nearest_outer": _part(OUTER, (9, 31), "nearest", 2.0),
}
INTEGERS: _Functions = {
    "part": _part(INNER, (5, 7)),
    "resized": lambda x: tf.image.resize(x, [8, 8]),
    "nearest": lambda x: tf.image.resize(x, [8, 8], "nearest"),
    "rounded": lambda x: ops.image.resize(x, (8, 8)),
    "padded": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "selected": lambda x: tf.where(x > 100, x, tf.zeros_like(x)),
    "pooled": lambda x: ops.max_pool(x, 2, 2),
    "codes": lambda x: tf.one_hot(x[..., 0], 100),
    "depth": lambda x: tf.nn.space_to_depth(x, 2),
    "flipped": lambda x: tf.image.flip_up_down(x),
    "split": lambda x: tf.split(x, 3, -1)[1],
}


class Function(keras.layers.Layer):
    def __init__(self, functions: _Functions) -> None:
        super().__init__()
        self.functions = functions

    def call(self, *images: Any) -> Any:
        return {name: function(*images) for name, function in self.functions.items()}


def _compare(functions: _Functions, images: list[np.ndarray], format: str, path: Path) -> None:
    inputs = [
        keras.Input(image.shape[1:], dtype=image.dtype.name, name=f"image_{k}")
        for k, image in enumerate(images)
    ]
    model = keras.Model(inputs, Function(functions)(*inputs))
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    feeds = {f"image_{k}": image for k, image in enumerate(images)}
    actual = open_runner(path, format, file.inputs, file.outputs).run(feeds)
    for name, value in model(images).items():
        assert actual[name].dtype == value.dtype.as_numpy_dtype, name
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def _similarity(x: Any, y: Any) -> Any:
    return tf.image.ssim_multiscale(x, y, 1.0, power_factors=(0.4, 0.6), filter_size=5)


def _images(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).random((count, 1, 16, 12, 3)).astype("float32"))


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_parts_of_images(format: str, tmp_path: Path) -> None:
    _compare(PARTS, _images(1), format, tmp_path / "model")


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_similarity_of_images(format: str, tmp_path: Path) -> None:
    functions = {"ssim": lambda x, y: tf.image.ssim(x, y, 1.0)}
    _compare(functions, _images(2), format, tmp_path / "model")


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_similarity_at_several_scales(format: str, tmp_path: Path) -> None:
    """Images of an odd size are padded."""
    even = {"even": lambda x, y: _similarity(x[:, :, :12], y[:, :, :12])}
    odd = {"odd": lambda x, y: _similarity(x[:, :15, :13], y[:, :15, :13])}
    x, y = np.random.default_rng(1).random((2, 1, 16, 14, 3)).astype("float32")
    _compare({**even, **odd}, [x, np.clip(x + y / 5, 0, 1)], format, tmp_path / "model")


@pytest.mark.long
def test_similarity_at_several_scales_in_a_saved_graph(tmp_path: Path) -> None:
    specs = [tf.TensorSpec((None, 15, 13, 3), name=name) for name in ("x", "y")]
    module = tf.Module()
    module.call = tf.function(lambda x, y: {"similarity": _similarity(x, y)}, specs)
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.call)
    model = load_model(audit_file(tmp_path / "saved")).model
    images = dict(zip("xy", np.random.default_rng(1).random((2, 1, 15, 13, 3)), strict=True))
    feeds = {name: image.astype("float32") for name, image in images.items()}
    for format, converter in CONVERTERS.items():
        path = tmp_path / format
        file = converter.convert(model, interface_of(model), recipe_for("float32"), path)
        actual = open_runner(path, format, file.inputs, file.outputs).run(feeds)
        expected = _similarity(feeds["x"], feeds["y"])
        np.testing.assert_allclose(actual["similarity"], expected, rtol=1e-5)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
@pytest.mark.parametrize("dtype", only(("uint8", "int8"), "uint8"))
def test_images_of_integers(dtype: str, format: str, tmp_path: Path) -> None:
    images = [(image * 127).astype(dtype) for image in _images(1)]
    _compare(INTEGERS, images, format, tmp_path / "model")


@pytest.mark.long
def test_parts_of_tensors_of_uint16(tmp_path: Path) -> None:
    """TFLite moves them as int32."""
    functions = {
        "reversed": lambda x: x[:, ::-1, 1:],
        "turned": lambda x: tf.transpose(x, [0, 2, 1, 3]),
        "joined": lambda x: tf.concat([x, x], -1),
        "stacked": lambda x: tf.stack([x, x], 1),
        "rolled": lambda x: tf.roll(x, 1, 1),
        "split": lambda x: tf.split(x, 3, -1)[1],
    }
    images = [(image * 65535).astype("uint16") for image in _images(1)]
    _compare(functions, images, "tflite", tmp_path / "model")
