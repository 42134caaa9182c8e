"""Patches of images, and diagonals of matrices.

Keras computes patches by a convolution with ones and zeros, TensorFlow by an operation that the
formats lack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FORMATS = {"tflite": tflite, "onnx": onnx}
# Arguments, and whether the patches are next to each other.
CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "squares": ({"size": 2}, True),
    "pixels are left out": ({"size": (3, 2), "strides": (3, 2)}, True),
    "same padding of whole patches": ({"size": (4, 2), "padding": "same"}, True),
    "same padding": ({"size": (3, 2), "padding": "same"}, False),
    "overlapping": ({"size": 3, "strides": 1}, False),
}


FILES = [(name, format) for name in CASES for format in FORMATS]
QUICK = [
    ("squares", "tflite"),
    ("pixels are left out", "onnx"),
    ("same padding of whole patches", "tflite"),
    ("same padding", "tflite"),
    ("overlapping", "onnx"),
]


@pytest.mark.parametrize("case", only(FILES, *QUICK), ids="-".join)
def test_patches_match_keras(case: tuple[str, str], tmp_path: Path) -> None:
    name, format = case
    options, adjacent = CASES[name]
    x = keras.Input((8, 6, 3), name="x")
    layer = keras.layers.Lambda(lambda v: keras.ops.image.extract_patches(v, **options), name="y")
    model = keras.Model(x, layer(x))
    path = tmp_path / "model"
    file = FORMATS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    values = np.random.default_rng(0).normal(size=(1, 8, 6, 3)).astype("float32")
    outputs = open_runner(path, format, file.inputs, file.outputs).run({"x": values})
    np.testing.assert_array_equal(outputs["y"], model.predict(values, verbose=0))
    operators = file.achieved["operators"]
    assert not adjacent or {"CONV_2D", "Conv"}.isdisjoint(operators)


def _patches(
    size: tuple[int, int], strides: tuple[int, int], rates: tuple[int, int], pad: str
) -> Any:
    def call(x: Any) -> Any:
        arguments = ([1, *values, 1] for values in (size, strides, rates))
        return tf.image.extract_patches(x, *arguments, pad)

    return call


OF_TENSORFLOW = {
    "of a vision transformer": _patches((2, 2), (2, 2), (1, 1), "VALID"),
    "adjacent same": _patches((3, 4), (3, 4), (1, 1), "SAME"),
    "overlapping": _patches((3, 3), (1, 2), (1, 1), "VALID"),
    "overlapping same": _patches((3, 2), (2, 1), (1, 1), "SAME"),
    "dilated": _patches((2, 3), (1, 2), (3, 1), "SAME"),
    "with gaps": _patches((1, 2), (3, 3), (1, 1), "VALID"),
    "matrix": lambda x: tf.linalg.set_diag(x, x[:, :, 0, :]),
    "upper": lambda x: tf.linalg.set_diag(x, x[:, :, 0, 1:], k=1),
    "lower": lambda x: tf.linalg.set_diag(x, x[:, :, 0, :], k=-2),
    "wide": lambda x: tf.linalg.set_diag(tf.transpose(x, (0, 1, 3, 2)), x[:, :, 0, :]),
    "raw": lambda x: tf.raw_ops.MatrixSetDiag(input=x, diagonal=x[:, :, 5, :]),
    # With one sample, tf2onnx loses the axis of the samples of such matrices.
    "of rows": lambda x: tf.linalg.diag(x[:, 0, 0]),
    "above": lambda x: tf.linalg.diag(x[:, 0, 0], k=1),
    "below": lambda x: tf.linalg.diag(x[:, 0, 0], k=-2, padding_value=3.0),
    "with rows": lambda x: tf.linalg.diag(x[:, 0], k=-1, num_rows=5),
    "with sizes": lambda x: tf.linalg.diag(x[:, 0], num_rows=3, num_cols=5, padding_value=-1.0),
    "old diagonal": lambda x: tf.raw_ops.MatrixDiag(diagonal=x[:, 0, 0]),
}


@pytest.mark.parametrize("format", only(FORMATS, "tflite"))
def test_operations_of_tensorflow(format: str, tmp_path: Path) -> None:
    x = keras.Input((8, 6, 3), name="x")
    outputs = {
        name: keras.layers.Lambda(call, name=name.replace(" ", "_"))(x)
        for name, call in OF_TENSORFLOW.items()
    }
    model = keras.Model(x, outputs)
    path = tmp_path / "model"
    file = FORMATS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    values = np.random.default_rng(0).normal(size=(1, 8, 6, 3)).astype("float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": values})
    for name, expected in model.predict(values, verbose=0).items():
        np.testing.assert_array_equal(actual[name], expected, err_msg=name)
    assert {"CONV_2D", "Conv"}.isdisjoint(file.achieved["operators"])
