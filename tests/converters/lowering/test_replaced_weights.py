"""Recurrent layers to whose weights a class of the user assigns tensors in its call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from recurrent_models import FEATURES, UNITS, Converted, feed, randomise

KINDS = ["GRU", "LSTM", "SimpleRNN", "Bidirectional"]


class Normalized(keras.layers.Wrapper):
    """Weight normalization of the kernels of a recurrent layer, with a gain of 3."""

    def call(self, x: Any) -> Any:
        both = getattr(self.layer, "forward_layer", None)
        parts = [self.layer] if both is None else [both, self.layer.backward_layer]
        kernels = [part.cell.kernel for part in parts]
        for part, kernel in zip(parts, kernels, strict=True):
            part.cell.kernel = 3.0 * kernel / keras.ops.norm(kernel, axis=0)
        y = self.layer(x)
        for part, kernel in zip(parts, kernels, strict=True):
            part.cell.kernel = kernel
        return y


@pytest.mark.parametrize("kind", only(KINDS, "GRU"))
def test_calls_compute_with_assigned_weights(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"return_sequences": True}
    layer = keras.layers.LSTM(UNITS, **options)
    if kind == "Bidirectional":
        layer = keras.layers.Bidirectional(layer)
    else:
        layer = getattr(keras.layers, kind)(UNITS, **options)
    x = keras.Input((5, FEATURES), name="x")
    y = keras.layers.LSTM(UNITS)(Normalized(layer)(x))  # the second one is lowered
    converted = Converted(randomise(keras.Model(x, y)), tmp_path, ("tflite", "onnx"))
    wrong = converted.errors(feed(converted, 5))
    assert not wrong, "\n".join(wrong)


def test_the_wrapper_changes_outputs() -> None:
    """Which the test above relies on."""
    x = np.random.default_rng(1).normal(size=(4, 5, FEATURES)).astype("float32")
    layer = keras.layers.GRU(UNITS)
    assert float(np.abs(np.asarray(Normalized(layer)(x)) - np.asarray(layer(x))).max()) > 0.1
