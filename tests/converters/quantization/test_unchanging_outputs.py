"""Integer files of models with an output that is the same for every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import CONVERTERS, filled

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.verdict import INCONCLUSIVE, PASS
from edgeattn.runners import open_runner
from edgeattn.validation.recommendation import recommend_reported
from edgeattn_converters import ConversionOptions, ModelSource, QuantizationOptions, convert
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


@pytest.mark.parametrize("factor", only([1.0, 1000.0], 1.0))
def test_integer_files_that_lose_small_values_are_not_recommended(
    factor: float, tmp_path: Path
) -> None:
    """One of 8 units is ``factor`` times as large as the others.

    The signal-to-noise ratio of the output, which is that of the largest unit, is above 30 dB.
    """
    inputs = keras.Input((16,), name="x")
    hidden = layers.Dense(32, activation="tanh")(inputs)
    model = filled(keras.Model(inputs, layers.Dense(8, name="y")(hidden)))
    kernel, bias = model.get_layer("y").get_weights()
    model.get_layer("y").set_weights([kernel * np.where(np.arange(8) == 2, factor, 1), bias])
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(3).normal(size=(200, 16)).astype("float32")
    np.savez(tmp_path / "calibration.npz", x=x)
    converted = convert(
        ModelSource(tmp_path / "m.keras"),
        tmp_path / "m.edge",
        options=ConversionOptions(schemes=("float16", "int8")),
        quantization=QuantizationOptions(calibration=tmp_path / "calibration.npz"),
    )
    reports = converted.report.artifacts
    recommended = recommend_reported(reports, converted.bundle.manifest).artifact
    assert recommended is not None
    assert recommended.scheme == ("int8" if factor == 1 else "float16")
    samples = {"x": np.random.default_rng(4).normal(size=(64, 16)).astype("float32")}
    expected = model.predict(samples, verbose=0)
    assert np.ptp(expected, axis=0).min() > 0.5
    for report in reports:
        artifact = report.artifact
        path = converted.bundle.artifact_path(artifact)
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        actual = runner.run(samples)["y"]
        runner.close()
        constant = int((np.ptp(actual, axis=0) == 0).sum())
        assert metrics.snr_db(expected, actual) > 25
        lost = artifact.scheme == "int8" and factor > 1
        assert constant == (7 if lost else 0)
        assert report.verdict == (INCONCLUSIVE if lost else PASS)
