"""Maps of attention whose weighted sequence is the input of a recurrent layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

import models
from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 7, 5
CONVERTERS = {"tflite": tflite, "onnx": onnx}


def _weighted(sequence: Any) -> Any:
    scores = layers.Dense(1, activation="tanh", name="scores")(sequence)
    return layers.Multiply()([sequence, layers.Softmax(axis=1, name="weights")(scores)])


def ahead() -> Any:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    return keras.Model(inputs, layers.Dense(2, name="y")(layers.LSTM(3)(_weighted(inputs))))


def repeated() -> Any:
    """A Dense softmax over the steps, repeated for every feature."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    scores = layers.Flatten()(layers.Dense(1, activation="tanh", name="scores")(inputs))
    weights = layers.Activation("softmax", name="weights")(scores)
    weights = layers.Permute((2, 1))(layers.RepeatVector(FEATURES)(weights))
    states = layers.GRU(3)(layers.Multiply()([inputs, weights]))
    return keras.Model(inputs, layers.Dense(2, name="y")(states))


def between() -> Any:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    states = layers.LSTM(4, return_sequences=True, name="states")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="y")(layers.LSTM(3)(_weighted(states))))


def decoder() -> Any:
    """The weighted sum is the input of every step of a decoder."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    states = layers.LSTM(4, return_sequences=True, name="states")(inputs)
    scores = layers.Dense(1, activation="tanh", name="scores")(states)
    weights = layers.Softmax(axis=1, name="weights")(scores)
    context = layers.Flatten()(layers.Dot((1, 1))([weights, states]))
    decoded = layers.LSTM(3, return_sequences=True)(layers.RepeatVector(2)(context))
    return keras.Model(inputs, layers.Dense(2, name="y")(decoded))


MODELS: list[Callable[[], Any]] = [ahead, repeated, between, decoder]


def expected_map(model: Any, x: Array) -> Array:
    layer = model.get_layer("scores")
    scores = keras.Model(model.inputs, layer.output).predict(x, verbose=0).astype(np.float64)
    powers = np.exp(scores[..., 0])
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("build", only(MODELS, ahead), ids=lambda build: build.__name__)
def test_weights_of_the_input_of_a_recurrent_layer(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    model = models.filled(build())
    interface = interface_of(model)
    assert [spec.name for spec in interface.attention] == ["attention/weights"]
    assert interface.doubtful == ()
    x = np.random.default_rng(3).normal(0, 2, (4, STEPS, FEATURES)).astype("float32")
    for format, converter in CONVERTERS.items():
        path = tmp_path / f"model.{format}"
        inputs, outputs, _, _ = converter.convert(model, interface, recipe_for("float32"), path)
        actual = open_runner(path, format, inputs, outputs).run({"x": x})
        np.testing.assert_allclose(
            actual["attention/weights"], expected_map(model, x), atol=1e-5, err_msg=format
        )
        np.testing.assert_allclose(
            actual["y"], model.predict(x, verbose=0), atol=1e-5, err_msg=format
        )
