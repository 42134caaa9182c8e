"""Calibration samples for which Keras computes NaN, such as sequences of padding alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only
from quantized_models import CONVERTERS, filled

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, ROWS = 6, 8, 70
SAMPLES = np.random.default_rng(3).normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
for row in range(ROWS):
    SAMPLES[row, 1 + row % STEPS :] = 0.0
# Every tenth sample is padding alone.
SAMPLES[::10] = 0.0
EMPTY = ~SAMPLES.any(axis=(1, 2))


class Mean(layers.Layer):
    """The mean over steps that are not zero, NaN if there are none."""

    def call(self, x: Any) -> Any:
        real, count = _real(x)
        return ops.sum(x * real, axis=1) / count


class SafeMean(layers.Layer):
    """The mean over steps that are not zero; the quotient is NaN where it is not used."""

    def call(self, x: Any) -> Any:
        real, count = _real(x)
        return ops.where(count > 0, ops.sum(x * real, axis=1) / count, 0.25)


class Shares(layers.Layer):
    """Attention weights as shares of the sum of exponentials, NaN if there are none."""

    def call(self, x: Any) -> Any:
        weights = ops.exp(ops.sum(x, axis=-1, keepdims=True) * 0.3) * _real(x)[0]
        return ops.sum(x * (weights / ops.sum(weights, axis=1, keepdims=True)), axis=1)


def _real(x: Any) -> tuple[Any, Any]:
    real = ops.cast(ops.any(ops.not_equal(x, 0.0), axis=-1, keepdims=True), "float32")
    return real, ops.sum(real, axis=1)


def masked_average(x: Any) -> Any:
    return layers.GlobalAveragePooling1D()(layers.Masking()(x))


VECTORS: dict[str, Callable[[Any], Any]] = {
    "masked average": masked_average,
    "mean": Mean(),
    "safe mean": SafeMean(),
    "shares": Shares(),
}


def model_of(vector: Callable[[Any], Any]) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    hidden = layers.Dense(24, activation="tanh")(vector(x))
    return filled(keras.Model(x, layers.Dense(16, name="y")(hidden)))


@pytest.mark.parametrize("format", sorted(CONVERTERS))
@pytest.mark.parametrize("name", only(VECTORS, "masked average", "shares"))
def test_samples_with_nan_outputs_are_not_measured(name: str, format: str, tmp_path: Path) -> None:
    model = model_of(VECTORS[name])
    file = CONVERTERS[format].convert(
        model, interface_of(model), recipe_for("int8"), tmp_path / "m", samples={"x": SAMPLES}
    )
    expected = model.predict(SAMPLES, verbose=0)
    finite = np.isfinite(expected).all(axis=1)
    assert (~finite).sum() == (0 if name == "safe mean" else EMPTY.sum())
    notes = [note for note in file.achieved["notes"] if "outputs are NaN" in note]
    assert notes == (
        []
        if finite.all()
        else [f"not used for calibration, because outputs are NaN: 7 of {ROWS} samples"]
    )
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs, as_deployed=True)
    actual = runner.run({"x": SAMPLES[finite]})["y"]
    assert metrics.snr_db(expected[finite], actual) > 20
    assert file.achieved["computes_in"]["int8"]


def test_no_sample_has_finite_outputs(tmp_path: Path) -> None:
    model = model_of(masked_average)
    with pytest.raises(ConversionError, match=r"NaN for all calibration samples \(7\)"):
        CONVERTERS["onnx"].convert(
            model,
            interface_of(model),
            recipe_for("int8"),
            tmp_path / "m",
            samples={"x": SAMPLES[EMPTY]},
        )
