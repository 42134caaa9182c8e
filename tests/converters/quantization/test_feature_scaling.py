"""Inputs whose values differ by orders of magnitude, in integer files, against Keras."""

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

from edgeattn.metrics.limits import LIMITS
from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS = 6
Generator = np.random.Generator


def dense(x: Any) -> Any:
    return layers.Dense(3)(layers.Dense(24, activation="relu")(layers.Flatten()(x)))


def normalized(x: Any) -> Any:
    """A temperature, a pressure in Pa and a humidity."""
    return layers.Normalization(mean=[20.0, 101325.0, 0.5], variance=[25.0, 4e5, 0.01])(x)


def weather(generator: Generator, rows: int) -> Array:
    values = generator.normal(0, 1, (rows, STEPS, 3))
    return (values * [5, 632, 0.1] + [20, 101325, 0.5]).astype("float32")


def small_and_large(generator: Generator, rows: int) -> Array:
    return np.exp(2 * generator.normal(0, 1, (rows, STEPS, 3))).astype("float32")


def waves(x: Any) -> Any:
    """A time of day in seconds, and two features that are small beside it."""
    angle = x[..., :1] * (2 * np.pi / 86400)
    return layers.Concatenate()([ops.sin(angle), ops.cos(angle), x[..., 1:]])


def times(generator: Generator, rows: int) -> Array:
    values = generator.uniform(-1, 1, (rows, STEPS, 3))
    return (values * [40000, 1, 1] + [43200, 0, 0]).astype("float32")


def masked(x: Any) -> Any:
    """Values of 0.001 are no padding."""
    return layers.LSTM(12)(layers.Masking(0.0)(x)) * 4.0


def padded(generator: Generator, rows: int) -> Array:
    scale = np.where(generator.random((rows, 1, 1)) < 0.5, 1e-3, 1.0)
    values = generator.normal(0, 1, (rows, STEPS, 3)) * scale
    values[::3, 4:] = 0
    return values.astype("float32")


def prices(x: Any) -> Any:
    return dense(x) * 2e5


def ordinary(generator: Generator, rows: int) -> Array:
    return generator.normal(0, 1, (rows, STEPS, 3)).astype("float32")


MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[Generator, int], Array]]] = {
    "normalized": (lambda x: dense(normalized(x)), weather),
    "columns": (
        lambda x: dense(normalized(layers.Concatenate()([x[..., :1], x[..., 1:]]))),
        weather,
    ),
    "logarithm": (lambda x: dense(ops.log(x + 0.01)), small_and_large),
    "log1p": (lambda x: dense(ops.log1p(x)), small_and_large),
    "root": (lambda x: dense(ops.sqrt(x)), small_and_large),
    "threshold": (lambda x: dense(ops.cast(x > 0.5, "float32") + 0.1 * x), small_and_large),
    "waves": (lambda x: dense(waves(x)), times),
    "masked": (lambda x: dense(masked(x)), padded),
    "prices": (prices, ordinary),
}
CASES = [
    (name, format, scheme)
    for name in MODELS
    for format in CONVERTERS
    for scheme in ("int8", "int16x8")
    if (name, format) != ("masked", "onnx")  # whose LSTM has no integer kernel
]
QUICK = [("normalized", "tflite", "int8"), ("normalized", "onnx", "int8")]
QUICK += [("log1p", "tflite", "int8"), ("prices", "tflite", "int8")]


@pytest.mark.parametrize("case", only(CASES, *QUICK), ids=" ".join)
def test_values_of_all_magnitudes(case: tuple[str, str, str], tmp_path: Path) -> None:
    name, format, scheme = case
    keras.utils.set_random_seed(3)
    call, values = MODELS[name]
    x = keras.Input((STEPS, 3), name="x")
    model = keras.Model(x, call(x))
    if name != "normalized" and name != "columns":
        filled(model)
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(
        model, interface_of(model), recipe_for(scheme), path,
        samples={"x": values(np.random.default_rng(1), 100)},
    )  # fmt: skip
    data = {"x": values(np.random.default_rng(2), 40)}
    (actual,) = open_runner(path, format, file.inputs, file.outputs).run(data).values()
    expected = model.predict(data, verbose=0)
    noise = ((actual - expected) ** 2).sum()
    assert 10 * np.log10((expected**2).sum() / noise) > LIMITS[scheme].snr_db - 3


def test_the_normalization_alone_computes_in_integers(tmp_path: Path) -> None:
    """Nothing would be left of the scheme."""
    x = keras.Input((STEPS, 3), name="x")
    model = keras.Model(x, layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x))
    samples = {"x": ordinary(np.random.default_rng(1), 40)}
    for format, module in CONVERTERS.items():
        file = module.convert(
            model, interface_of(model), recipe_for("int8"), tmp_path / format, samples=samples
        )
        assert set(file.achieved["computes_in"]["int8"]) & {"MUL", "Mul", "SUB", "Sub"}
