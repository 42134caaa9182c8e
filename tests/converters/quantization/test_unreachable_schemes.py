"""Schemes that a format has no operator for, which are reported instead of written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from quantized_models import CONVERTERS

from edgeattn.errors import SchemeError
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, WORDS = 6, 3, 9
LAYERS: dict[str, Any] = {
    "GRU": lambda x: layers.GRU(4)(x),
    "two directions": lambda x: layers.Bidirectional(layers.SimpleRNN(3))(x),
    "cells": lambda x: layers.RNN([layers.LSTMCell(3), layers.LSTMCell(2)])(x),
    "maximum": lambda x: layers.MaxPooling1D(2)(x),
    "words": lambda x: layers.Embedding(WORDS, 4)(x),
}
CASES = [
    *((kind, "onnx", "int8", "int8") for kind in ("GRU", "two directions", "cells", "words")),
    ("GRU", "onnx", "int16x8", "int16"),
    ("maximum", "tflite", "int16x8", "int16"),
    ("words", "tflite", "int16x8", "int16"),
]


@pytest.mark.parametrize(("kind", "format", "scheme", "dtype"), CASES)
def test_unreachable_schemes_write_no_file(
    kind: str, format: str, scheme: str, dtype: str, tmp_path: Path
) -> None:
    words, generator = kind == "words", np.random.default_rng(4)
    inputs = keras.Input((STEPS,) if words else (STEPS, FEATURES), name="x")
    model = keras.Model(inputs, LAYERS[kind](inputs))
    x = generator.integers(0, WORDS, (32, STEPS)) if words else generator.normal(
        size=(32, STEPS, FEATURES)
    )  # fmt: skip
    path = tmp_path / "model"
    with pytest.raises(SchemeError, match=f"no operator computes in {dtype}") as error:
        CONVERTERS[format].convert(
            model, interface_of(model), recipe_for(scheme), path,
            samples={"x": x.astype("float32")},
        )  # fmt: skip
    assert error.value.exit_code == 3
    assert not path.exists()
