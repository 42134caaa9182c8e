"""Reshapes that tf2onnx merges."""

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

STEPS, FEATURES = 5, 3


class Scores(layers.Layer):
    """Scores of pairs as in graph attention, a sum of a column and a row."""

    def build(self, shape: Any) -> None:
        self.left = self.add_weight(shape=(shape[-1], 1), name="left")
        self.right = self.add_weight(shape=(shape[-1], 1), name="right")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.left) + ops.swapaxes(ops.matmul(x, self.right), 1, 2)


def test_transposed_products_with_a_vector(tmp_path: Path) -> None:
    """The product ends with a reshape, and the transposition of its single feature is one, whose
    sizes were those of the samples and steps together."""
    weights = np.random.default_rng(1).normal(size=(FEATURES, 1)).astype("float32")
    x = keras.Input((STEPS, FEATURES), name="x")
    column = ops.tensordot(x, weights, axes=1)
    outputs = {
        "pairs": Scores()(x),
        "row": ops.transpose(column, (0, 2, 1)) - x[..., :1],
        "permuted": layers.Permute((2, 1))(column),
        "first": ops.moveaxis(ops.matmul(x, weights), 2, 0)[0],
        "rows": ops.transpose(ops.reshape(x, (-1, STEPS, FEATURES, 1)), (0, 1, 3, 2)),
        "columns": ops.transpose(ops.reshape(x, (-1, 1, FEATURES * STEPS)), (0, 2, 1)),
    }
    model = keras.Model(x, outputs)
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", file.inputs, file.outputs)
    for rows in (1, 4):
        values = np.random.default_rng(rows).normal(size=(rows, STEPS, FEATURES)).astype("float32")
        actual = runner.run({"x": values})
        for name, expected in model.predict(values, verbose=0).items():
            np.testing.assert_allclose(actual[name], expected, atol=1e-5, err_msg=name)
