"""Dilated convolutions over volumes, which TensorFlow computes on blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.file_structure.tflite import read_tflite
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
X = np.random.default_rng(5).normal(size=(3, 7, 9, 8, 2)).astype("float32")


def _conv(dilation: Any, padding: str = "same", size: Any = 3, **options: Any) -> Any:
    return layers.Conv3D(4, size, padding=padding, dilation_rate=dilation, **options)


LAYERS = {
    "same": lambda: _conv(2),
    "valid": lambda: _conv(2, "valid"),
    "of_one_axis": lambda: _conv((1, 3, 1)),
    "of_each_axis": lambda: _conv((2, 1, 3), "valid", (2, 4, 3), activation="relu"),
    "even_kernel": lambda: _conv((3, 2, 2), size=2, use_bias=False),
    "over_time": lambda: layers.TimeDistributed(layers.Conv2D(4, 3, dilation_rate=(2, 3))),
    "none": lambda: _conv(1),
}


def _model(name: str) -> Any:
    x = keras.Input(X.shape[1:], name="x")
    model = keras.Model(x, LAYERS[name]()(x))
    generator = np.random.default_rng(6)
    model.set_weights([generator.normal(0, 0.5, weight.shape) for weight in model.weights])
    return model


CASES = [(name, kind) for name in LAYERS for kind in CONVERTERS]
QUICK = [("same", "tflite"), ("of_each_axis", "onnx")]


@pytest.mark.parametrize("case", only(CASES, *QUICK), ids="-".join)
def test_files_compute_as_keras(case: tuple[str, str], tmp_path: Path) -> None:
    name, kind = case
    model = _model(name)
    path = tmp_path / f"m.{kind}"
    file = CONVERTERS[kind].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, kind, file.inputs, file.outputs)
    for sample in X:
        (actual,) = runner.run({"x": sample[None]}).values()
        expected = np.asarray(model(sample[None]))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    if kind == "tflite" and name != "over_time":
        operators = read_tflite(path.read_bytes()).to_json()["operators"]
        assert "CONV_3D" in operators
