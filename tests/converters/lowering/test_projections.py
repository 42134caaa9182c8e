"""Projective transforms of images, compared with TensorFlow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
# A rotation, one that reaches several times the image, a perspective, and one with a division by 0.
TRANSFORMS: Mapping[str, list[float]] = {
    "rotation": [0.8, -0.3, 1.2, 0.4, 0.9, -2.1, 0, 0],
    "far": [2.3, 0.4, -9.7, -0.7, 2.2, 8.6, 0, 0],
    "perspective": [1.1, 0.2, -0.6, 0.1, 0.8, 0.3, 0.03, -0.02],
    "undefined": [1, 0, 0.3, 0, 1, 0.2, -0.25, 0],
}
START = np.array([[0, 0], [0, 4], [6, 0], [6, 4]], "float32")
END = np.array([[1, 0.3], [0, 4], [5, 0], [6, 3]], "float32")


def _transform(interpolation: str, mode: str, values: list[float]) -> Callable[[Any], Any]:
    return lambda x: tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=[values],
        output_shape=[6, 8],
        fill_value=0.7,
        interpolation=interpolation,
        fill_mode=mode,
    )


FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    **{
        f"{interpolation}_{mode}_{name}": _transform(interpolation, mode, values)
        for interpolation in ("NEAREST", "BILINEAR")
        for mode in ("CONSTANT", "NEAREST", "REFLECT", "WRAP")
        for name, values in TRANSFORMS.items()
    },
    "affine": lambda x: ops.image.affine_transform(
        x, np.array([1, 0.1, 0.2, 0, 1, 0.5, 0, 0], "float32"), fill_mode="reflect"
    ),
    "points": lambda x: ops.image.perspective_transform(x, START, END, fill_value=0.3),
}
# Each interpolation, mode and transform once or twice.
QUICK = (
    *("NEAREST_CONSTANT_rotation", "NEAREST_WRAP_far", "BILINEAR_NEAREST_perspective"),
    *("BILINEAR_REFLECT_undefined", "BILINEAR_CONSTANT_far", "points"),
)
OTHERS = tuple(name for name in FUNCTIONS if name not in QUICK)


class Projections(keras.layers.Layer):
    """Some transforms of an image."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names

    def call(self, x: Any) -> Any:
        return {name: FUNCTIONS[name](x) for name in self.names}


@pytest.mark.parametrize(
    "files",
    [
        {"tflite": QUICK},
        pytest.param({"tflite": OTHERS, "onnx": tuple(FUNCTIONS)}, marks=pytest.mark.long),
    ],
    ids=["quick", "others"],
)
def test_projections_are_those_of_tensorflow(
    files: Mapping[str, tuple[str, ...]], tmp_path: Path
) -> None:
    for format, names in files.items():
        check(format, names, tmp_path)


def check(format: str, names: tuple[str, ...], folder: Path) -> None:
    x = keras.Input((5, 7, 2), name="x")
    model, path = keras.Model(x, Projections(names)(x)), folder / format
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    sample = np.random.default_rng(1).normal(size=(1, 5, 7, 2)).astype("float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": sample})
    for name, expected in model(sample).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
