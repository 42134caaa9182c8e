"""Integer files of attention whose softmax is written as exponentials divided by their sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only
from quantized_models import CONVERTERS, filled

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.quantizer import NO_ATTENTION
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 24
WEIGHTS = {
    "plain": lambda s: _share(ops.exp(s)),
    "without_the_largest": lambda s: _share(ops.exp(s - ops.max(s, axis=1, keepdims=True))),
    "with_a_small_number": lambda s: (
        ops.exp(s) / (ops.sum(ops.exp(s), axis=1, keepdims=True) + 1e-7)
    ),
    "sigmoids": lambda s: _share(ops.sigmoid(s - 4.0)),
    "reciprocal": lambda s: ops.exp(s) * ops.reciprocal(_sum(ops.exp(s))),
    # Values up to e**24, whose products with their reciprocals are at most 1.
    "large_powers": lambda s: ops.exp(3.0 * s) * ops.reciprocal(_sum(ops.exp(3.0 * s))),
    "power": lambda s: ops.exp(s) * _sum(ops.exp(s)) ** -1,
    "log_sum_exp": lambda s: ops.exp(s - ops.logsumexp(s, axis=1, keepdims=True)),
    "log_softmax": lambda s: ops.exp(ops.log_softmax(s, axis=1)),
}
MAPS = {f"attention/{name}" for name in WEIGHTS}
# The operators that divide, by format; a power is a reciprocal in ONNX too.
QUOTIENTS = {"DIV", "POW", "RECIPROCAL"}


def _sum(values: Any) -> Any:
    return ops.sum(values, axis=1, keepdims=True)


def _share(values: Any) -> Any:
    return values / _sum(values)


class Weights(layers.Layer):
    """Attention weights of scores, ``(batch, steps, 1)``."""

    def call(self, scores: Any) -> Any:
        # Large scores: some sums of exponentials are a thousandth of others.
        return WEIGHTS[self.name](ops.clip(scores * 6.0, -30.0, 8.0))

    def compute_output_spec(self, scores: Any) -> Any:
        return keras.KerasTensor(scores.shape)


def attention(*names: str) -> Any:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    keys = layers.Dense(32, activation="tanh")(inputs)
    contexts = []
    for name in names:
        weights = Weights(name=name)(layers.Dense(1)(layers.Dense(32, activation="tanh")(keys)))
        contexts.append(layers.Flatten()(layers.Dot(axes=1)([weights, keys])))
    joined = layers.Concatenate()(contexts) if contexts else layers.Flatten()(keys)
    return filled(keras.Model(inputs, layers.Dense(32, name="y")(joined)))


SAMPLES = {"x": np.random.default_rng(4).normal(size=(64, STEPS, FEATURES)).astype("float32")}


@pytest.fixture(scope="module")
def model() -> Any:
    return attention(*WEIGHTS)


def _convert(model: Any, format: str, scheme: str, path: Path, precision: str) -> Any:
    options = QuantizationOptions(attention_precision=precision)
    return CONVERTERS[format].convert(
        model,
        interface_of(model),
        recipe_for(scheme),
        path,
        quantization=options,
        samples=SAMPLES,
    )


@pytest.mark.parametrize(
    ("format", "scheme", "precision"),
    [
        ("tflite", "int8", "auto"),
        pytest.param("tflite", "int8", "int8", marks=pytest.mark.long),
        pytest.param("tflite", "int8", "float32", marks=pytest.mark.long),
        pytest.param("onnx", "int8", "auto", marks=pytest.mark.long),
        pytest.param("onnx", "int8", "float32", marks=pytest.mark.long),
        pytest.param("tflite", "int16x8", "auto", marks=pytest.mark.long),
        pytest.param("onnx", "int16x8", "auto", marks=pytest.mark.long),
    ],
)
def test_quotients_stay_float32(
    model: Any, format: str, scheme: str, precision: str, tmp_path: Path
) -> None:
    file = _convert(model, format, scheme, tmp_path / "model", precision)
    runner = open_runner(tmp_path / "model", format, file.inputs, file.outputs, as_deployed=True)
    actual = runner.run(SAMPLES)
    assert set(file.attention) == MAPS
    for name in file.attention:
        assert np.isfinite(actual[name]).all()
        np.testing.assert_allclose(actual[name].sum(-1), 1, atol=0.1)
    assert metrics.snr_db(model.predict(SAMPLES, verbose=0), actual["y"]) > 12
    floats = {kind.upper(): n for kind, n in file.achieved["computes_in"]["float32"].items()}
    assert sum(floats.get(kind, 0) for kind in QUOTIENTS) == len(WEIGHTS) - 2
    assert floats["LOG"] == floats["LOG_SOFTMAX" if format == "tflite" else "LOGSOFTMAX"] == 1
    assert NO_ATTENTION not in file.achieved["notes"]
    if precision == "float32":
        assert "in float32: softmax, scores" in file.achieved["summary"]


class Context(layers.Layer):
    """The weighted sum of a sequence, normalized afterwards."""

    def call(self, scores: Any, sequence: Any) -> Any:
        weights = ops.exp(ops.clip(scores * 6.0, -30.0, 8.0))
        if self.name == "products":
            return ops.sum(weights * sequence, axis=1) / ops.sum(weights, axis=1)
        weighted = ops.matmul(ops.transpose(weights, (0, 2, 1)), sequence)
        return ops.squeeze(weighted, 1) / ops.sum(weights, axis=1)

    def compute_output_spec(self, scores: Any, sequence: Any) -> Any:
        return keras.KerasTensor((sequence.shape[0], sequence.shape[2]))


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_weighted_sums_that_are_normalized_afterwards(format: str, tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    keys = layers.Dense(32, activation="tanh")(inputs)
    contexts = [
        Context(name=name)(layers.Dense(1)(layers.Dense(32, activation="tanh")(keys)), keys)
        for name in ("products", "matrices")
    ]
    model = filled(keras.Model(inputs, layers.Dense(32, name="y")(layers.Concatenate()(contexts))))
    file = _convert(model, format, "int8", tmp_path / "model", "auto")
    assert set(file.attention) == {"attention/products", "attention/matrices"}
    runner = open_runner(tmp_path / "model", format, file.inputs, file.outputs, as_deployed=True)
    actual = runner.run(SAMPLES)
    for name in file.attention:
        np.testing.assert_allclose(actual[name].sum(-1), 1, atol=0.1)
    assert metrics.snr_db(model.predict(SAMPLES, verbose=0), actual["y"]) > 12


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_requested_precision_without_attention_is_reported(format: str, tmp_path: Path) -> None:
    model = attention()
    file = _convert(model, format, "int8", tmp_path / "model", "float32")
    assert NO_ATTENTION in file.achieved["notes"]
    assert (
        NO_ATTENTION
        not in _convert(model, format, "int8", tmp_path / "m", "auto").achieved["notes"]
    )
