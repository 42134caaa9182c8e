"""Sizes of images that a factor in float32 does not give: 7 * (9 / 7) and 7 * (31 / 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FIRST = {"data_format": "channels_first"}
OUTPUTS: dict[str, Any] = {
    "bilinear": lambda x: layers.Resizing(9, 5, name="bilinear")(x),
    "nearest": lambda x: layers.Resizing(31, 10, "nearest", name="nearest")(x),
    "smaller": lambda x: ops.image.resize(x, (5, 2)),
    "one_axis": lambda x: ops.image.resize(x, (7, 14)),
    "factor": lambda x: layers.UpSampling2D((2, 3), interpolation="bilinear", name="factor")(x),
    "channels_first": lambda x: ops.image.resize(ops.transpose(x, (0, 3, 1, 2)), (62, 7), **FIRST),
    "convolved": lambda x: layers.Conv2D(2, 3, name="convolved")(ops.image.resize(x, (9, 17))),
}


@pytest.mark.parametrize("opset", only([13, 18, 21], 18))
def test_sizes_of_images(opset: int, tmp_path: Path) -> None:
    x = keras.Input((7, 3, 2), name="x")
    model = keras.Model(x, {name: call(x) for name, call in OUTPUTS.items()})
    interface, path = interface_of(model), tmp_path / "m.onnx"
    file = onnx.convert(
        model,
        interface,
        recipe_for("float32"),
        path,
        quantization=QuantizationOptions(opset=opset),
    )
    values = np.random.default_rng(0).normal(size=(3, 7, 3, 2)).astype("float32")
    actual = open_runner(path, "onnx", file.inputs, file.outputs).run({"x": values})
    for name, expected in model.predict(values, verbose=0).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
