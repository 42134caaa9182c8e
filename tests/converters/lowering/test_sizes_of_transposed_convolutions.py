"""Transposed convolutions of inputs whose sizes the graph does not show, behind an STFT."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

# Kernel, strides and padding.
CASES = [
    (3, 2, "same"),
    (2, 2, "same"),
    (4, 3, "same"),
    (3, (1, 2), "same"),
    (2, 3, "same"),
    (3, 2, "valid"),
    (4, 3, "valid"),
]


def test_results_as_in_keras(tmp_path: Path) -> None:
    signal = keras.Input((3, 360), name="signal")
    parts = ops.stft(signal, 100, 24, 126)
    x = ops.transpose(ops.concatenate(parts, axis=1), (0, 2, 3, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    outputs = [
        layers.Conv2DTranspose(2, kernel, strides, padding=padding, name=f"y{k}")(x)
        for k, (kernel, strides, padding) in enumerate(CASES)
    ]
    model = keras.Model(signal, outputs)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(0, 0.3, value.shape) for value in model.get_weights()])
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", "onnx", file.inputs, file.outputs, as_deployed=True)
    sample = generator.normal(size=(1, 3, 360)).astype("float32")
    actual = runner.run({"signal": sample})
    for k, expected in enumerate(model(sample)):
        np.testing.assert_allclose(actual[f"y{k}"], expected, rtol=1e-3, atol=1e-3)
