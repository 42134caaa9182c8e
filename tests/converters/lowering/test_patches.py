"""Patches of images, which Keras computes by a convolution with ones and zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_patches_match_keras(name: str, format: str, tmp_path: Path) -> None:
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
