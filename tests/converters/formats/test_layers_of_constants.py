"""Layers whose input is made of weights alone, such as normalized positions or learned queries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
LAYERS: dict[str, Callable[[], Any]] = {
    "LayerNormalization": layers.LayerNormalization,
    "LSTM": lambda: layers.LSTM(8, return_sequences=True),
    "GRU": lambda: layers.Bidirectional(layers.GRU(4, return_sequences=True)),
}


class Positions(layers.Layer):
    """Adds what ``layer`` computes from embedded positions."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.embedding = layers.Embedding(6, 8)
        self.layer = layer

    def call(self, x: Any) -> Any:
        return x + self.layer(self.embedding(ops.arange(6)[None]))


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
@pytest.mark.parametrize("name", only(LAYERS, "LayerNormalization"))
def test_layers_of_weights_alone(name: str, format: str, tmp_path: Path) -> None:
    inputs = keras.Input((6, 8), name="x")
    hidden = Positions(LAYERS[name]())(inputs)
    hidden = layers.MultiHeadAttention(2, 4)(hidden, hidden)
    model = keras.Model(inputs, layers.Dense(3, name="y")(hidden))
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    runner = open_runner(path, format, file.inputs, file.outputs)
    actual = np.asarray(runner.run({"x": x})["y"])
    np.testing.assert_allclose(actual, np.asarray(model(x)), rtol=1e-4, atol=1e-5)
