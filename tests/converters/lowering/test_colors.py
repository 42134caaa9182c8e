"""Operations on the colors of images, compared with TensorFlow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "contrast": lambda x: tf.image.adjust_contrast(x, 1.7),
    "hue": lambda x: tf.image.adjust_hue(x, 0.2),
    "hue_backwards": lambda x: tf.image.adjust_hue(x, -0.35),
    "saturation": lambda x: tf.image.adjust_saturation(x, 2.5),
    "half_the_saturation": lambda x: tf.image.adjust_saturation(x, 0.5),
    "gray": lambda x: tf.image.adjust_saturation(x, 0.0),
    "to_hsv": tf.image.rgb_to_hsv,
    "from_hsv": tf.image.hsv_to_rgb,
}
OF_SIGMOIDS: Mapping[str, Callable[[Any], Any]] = {
    "saturation_of_sigmoid": lambda x: tf.image.adjust_saturation(tf.sigmoid(20 * x), 2.5),
    "hsv_of_sigmoid": lambda x: tf.image.rgb_to_hsv(tf.sigmoid(20 * x)),
}
QUICK = ("contrast", "hue", "saturation")
OTHERS = tuple(name for name in FUNCTIONS if name not in QUICK)


class Colors(keras.layers.Layer):
    """Functions of an image."""

    def __init__(self, functions: Mapping[str, Callable[[Any], Any]]) -> None:
        super().__init__()
        self.functions = functions

    def call(self, x: Any) -> Any:
        return {name: function(x) for name, function in self.functions.items()}


def images() -> Mapping[str, np.ndarray]:
    """All colors of full and half brightness, others, and those of a saturated sigmoid."""
    levels = np.stack(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1]), -1).reshape(1, 3, 9, 3)
    drawn = np.random.default_rng(1).normal(size=(1, 5, 9, 3))
    saturated = 1 / (1 + np.exp(-60 * drawn))
    arrays = {"corners": levels, "negative": 3 * drawn, "saturated": saturated}
    return {name: array.astype("float32") for name, array in arrays.items()}


@pytest.mark.parametrize(
    "files",
    [
        {"onnx": QUICK},
        pytest.param({"onnx": OTHERS, "tflite": tuple(FUNCTIONS)}, marks=pytest.mark.long),
    ],
    ids=["quick", "others"],
)
def test_colors_are_those_of_tensorflow(
    files: Mapping[str, tuple[str, ...]], tmp_path: Path
) -> None:
    for format, names in files.items():
        check(format, {name: FUNCTIONS[name] for name in names}, tmp_path)


def check(format: str, functions: Mapping[str, Callable[[Any], Any]], folder: Path) -> None:
    samples, path = images(), folder / format
    inputs = {name: keras.Input(array.shape[1:], name=name) for name, array in samples.items()}
    outputs = {
        f"{name}_{key}": value
        for name, tensor in inputs.items()
        for key, value in Colors(functions)(tensor).items()
    } | Colors(OF_SIGMOIDS)(inputs["negative"])
    model = keras.Model(inputs, outputs)
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run(samples)
    for name, expected in model(samples).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=5e-6, err_msg=name)
