"""Parts whose shapes tf2onnx does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


class Cell(layers.Layer):
    state_size = output_size = 3

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="glorot_uniform")
        self.built = True

    def call(self, inputs: Any, states: Any) -> Any:
        state = ops.tanh(ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return state, [state]


def test_last_states_of_both_directions_of_a_cell(tmp_path: Path) -> None:
    x = keras.Input((7, 2), name="x")
    with keras.saving.custom_object_scope({"Cell": Cell}):
        model = keras.Model(x, layers.Bidirectional(layers.RNN(Cell()), name="y")(x))
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    values = np.random.default_rng(0).normal(size=(3, 7, 2)).astype("float32")
    outputs = open_runner(tmp_path / "m.onnx", "onnx", file.inputs, file.outputs).run({"x": values})
    np.testing.assert_allclose(outputs["y"], model.predict(values, verbose=0), atol=1e-5)
