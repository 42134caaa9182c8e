"""Integer files of models with an output that is the same for every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from quantized_models import CONVERTERS, filled

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

SAMPLES = {"x": np.random.default_rng(2).normal(size=(32, 16)).astype("float32")}
CONSTANTS = {
    "zero": [0.0, 0.0, 0.0],
    "equal": [0.7, 0.7, 0.7],
    "different": [-3.0, 0.25, 40.0],
    "dead": [-1.0, -2.0, -0.5],  # under a ReLU
}


@pytest.fixture(scope="module")
def model() -> Any:
    inputs = keras.Input((16,), name="x")
    hidden = layers.Dense(32, activation="tanh")(inputs)
    outputs = {"live": layers.Dense(24, name="live")(hidden)}
    for name in CONSTANTS:
        activation = "relu" if name == "dead" else None
        outputs[name] = layers.Dense(3, activation=activation, name=name)(hidden)
    silent = layers.Dense(8, activation="relu", name="silent")(hidden)
    outputs["behind"] = layers.Dense(3, name="behind")(silent)
    model = filled(keras.Model(inputs, outputs))
    model.get_layer("silent").set_weights([np.zeros((32, 8)), np.full(8, -2.0)])
    model.get_layer("behind").set_weights([np.ones((8, 3)), np.array([0.5, 1.0, -1.0])])
    for name, bias in CONSTANTS.items():
        model.get_layer(name).set_weights([np.zeros((32, 3)), np.array(bias)])
    return model


@pytest.mark.parametrize("format", sorted(CONVERTERS))
@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_constant_outputs_keep_their_values(
    scheme: str, format: str, model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(
        model, interface_of(model), recipe_for(scheme), path, samples=SAMPLES
    )
    actual = open_runner(path, format, file.inputs, file.outputs, as_deployed=True).run(SAMPLES)
    expected = model.predict(SAMPLES, verbose=0)
    assert metrics.snr_db(expected["live"], actual["live"]) > 25
    for name in (*CONSTANTS, "behind"):
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(actual[name], expected[name], atol=0.02 * largest + 1e-6)
