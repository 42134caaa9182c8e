"""Transposed convolutions in ONNX files: one node with constant padding, whatever the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

SHAPES = {1: (7, 3), 2: (5, 4, 3), 3: (3, 4, 2, 3)}
LAYERS = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}
# Rank, kernel size, stride, padding and further arguments.
CASES = {
    "signal": (1, 3, 2, "same", {}),
    "signal, valid": (1, 5, 3, "valid", {}),
    "signal, kernel less than stride": (1, 1, 3, "same", {}),
    "signal, kernel less than stride, valid": (1, 2, 4, "valid", {}),
    "signal, output padding": (1, 3, 2, "same", {"output_padding": 1}),
    "image": (2, 4, 2, "same", {}),
    "image, kernel less than stride": (2, (1, 2), (2, 3), "same", {}),
    "image, kernel less than one stride": (2, (3, 1), (2, 3), "valid", {}),
    "image, output padding": (2, 3, 2, "valid", {"output_padding": 1}),
    "volume": (3, 2, 2, "same", {}),
    "volume, kernel less than stride": (3, 1, 2, "same", {}),
}


@pytest.mark.parametrize("name", only(CASES, *list(CASES)[::6]))
def test_outputs_match_keras(name: str, tmp_path: Path) -> None:
    rank, kernel, strides, padding, options = CASES[name]
    keras.utils.set_random_seed(2)
    x = keras.Input(SHAPES[rank], name="x")
    layer = LAYERS[rank](4, kernel, strides, padding, name="y", **options)
    model = keras.Model(x, layer(x))
    layer.bias.assign([0.1, -0.2, 0.3, 0.4])
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    values = np.random.default_rng(0).normal(size=(3, *SHAPES[rank])).astype("float32")
    outputs = open_runner(tmp_path / "m.onnx", "onnx", file.inputs, file.outputs).run({"x": values})
    np.testing.assert_allclose(outputs["y"], model.predict(values, verbose=0), atol=1e-5)
    operators: Any = file.achieved["operators"]
    assert operators["ConvTranspose"] == 1
    assert not {"Shape", "Slice", "Pad", "Div"} & set(operators)
