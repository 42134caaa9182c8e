"""What rounding of weights costs in Keras, and artifacts that cost as much."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn.cli.conversion import conversion_lines
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.rounding import rounded_weights, rounding_costs
from edgeattn_converters.tracing.trace import Interface, interface_of

SIZE = 32


def difference() -> Any:
    """Two large weights whose difference is the result, so that their rounding errors are large."""
    inputs = keras.Input((SIZE // 2,), name="x")
    twice = keras.layers.Concatenate()([inputs, inputs])
    model = keras.Model(inputs, keras.layers.Dense(SIZE, use_bias=False, name="answer")(twice))
    generator = np.random.default_rng(5)
    large = generator.normal(size=(SIZE // 2, SIZE))
    small = 0.05 * generator.normal(size=(SIZE // 2, SIZE))
    model.layers[-1].set_weights([np.concatenate([large, small - large]).astype("float32")])
    return model


def signal_to_noise(kernel: np.ndarray, rounded: np.ndarray, x: np.ndarray) -> float:
    signal, noise = x @ kernel, x @ (rounded - kernel)
    return float(10 * math.log10((signal**2).sum() / (noise**2).sum()))


def costs_of(model: Any, x: np.ndarray, schemes: tuple[str, ...]) -> tuple[Any, Interface]:
    interface = interface_of(model)
    run = lambda inputs: predict(model, interface, inputs)  # noqa: E731
    inputs = {"x": x}
    costs = rounding_costs(
        model, interface, run, inputs, run(inputs), ordinary=len(x), schemes=schemes
    )
    return costs, interface


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    values = np.random.default_rng(6).uniform(-1, 1, (64, SIZE // 2))
    return values.astype("float32")


def test_the_cost_is_the_error_of_keras_with_rounded_weights(samples: np.ndarray) -> None:
    model = difference()
    kernel = model.layers[-1].get_weights()[0].astype(np.float64)
    costs, _ = costs_of(model, samples, ("float32", "float16", "dynamic_int8", "int16x8"))
    assert set(costs) == {"float16", "int8"}
    twice = np.concatenate([samples, samples], axis=1).astype(np.float64)
    expected = signal_to_noise(kernel, kernel.astype(np.float16).astype(np.float64), twice)
    # The largest of three samples of the same rounding, which differ by about 1 dB here.
    assert expected - 1.5 <= costs["float16"]["answer"]["snr_db"] <= expected + 0.01
    # int8: one scale per output channel, the largest magnitude of which is 127.
    scale = np.abs(kernel).max(0) / 127
    expected = signal_to_noise(kernel, np.rint(kernel / scale) * scale, twice)
    assert expected - 1.5 <= costs["int8"]["answer"]["snr_db"] <= expected + 0.01


def test_weights_are_restored(samples: np.ndarray) -> None:
    model = difference()
    before = model.get_weights()
    costs_of(model, samples, ("float16", "int8"))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with (
        pytest.raises(ZeroDivisionError),
        rounded_weights(model, "float16", 0, np.random.default_rng(1)),
    ):
        1 / 0  # noqa: B018
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_small_weights_and_weights_beyond_float16_are_not_rounded() -> None:
    inputs = keras.Input((32,))
    hidden = keras.layers.Dense(16, name="large")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="small")(hidden))
    kernels = [layer.kernel for layer in model.layers[1:]]
    for kernel in kernels:
        kernel.assign(np.full(kernel.shape, 1 / 3))
    generator = np.random.default_rng(1)
    with rounded_weights(model, "float16", 0, generator):
        assert [float(kernel.numpy()[0, 0]) for kernel in kernels] == [
            float(np.float16(1 / 3)),
            float(np.float32(1 / 3)),
        ]
    kernels[0].assign(np.full(kernels[0].shape, 70001.0))
    with rounded_weights(model, "float16", 0, generator):
        assert float(kernels[0].numpy()[0, 0]) == 70001.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("rounding") / "difference.keras"
    difference().save(path)
    np.save(path.with_name("samples.npy"), samples)
    return path


def test_a_float16_file_below_50_db_is_converted_right(saved: Path, tmp_path: Path) -> None:
    result = convert(
        ModelSource(saved, samples=saved.with_name("samples.npy")),
        tmp_path / "out.edge",
        options=ConversionOptions(schemes=["float32", "float16"]),
    )
    assert result.exit_code == 0
    assert [item.conversion for item in result.report.artifacts] == ["right"] * 4
    for item in result.report.artifacts[2:]:
        (check,) = item.explained
        assert check.metric == "snr_db"
        assert 40 < check.value < check.limit == 50
        assert check.value == pytest.approx(item.rounding["answer"]["snr_db"], abs=2)
        assert item.verdict == "pass"
    text = "\n".join(conversion_lines(result, verbose=False))
    assert "onnx float16: converted right; snr_db of answer is 4" in text
    assert "Converted right: 4 of 4." in text
