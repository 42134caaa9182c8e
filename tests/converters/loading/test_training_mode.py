"""Layers that a model calls with ``training=True``: a note says what the artifacts compute."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

SHAPE = (6, 4)


def sequence(layer: Any) -> Any:
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layer(inputs, training=True))


def images(layer: Any) -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layer(inputs, training=True))


def nested() -> Any:
    inner = keras.Sequential([keras.Input(SHAPE), layers.Dropout(0.4)], name="inner")
    return sequence(inner)


RANDOM = {
    "dropout": lambda: sequence(layers.Dropout(0.4)),
    "spatial": lambda: sequence(layers.SpatialDropout1D(0.4)),
    "alpha": lambda: sequence(layers.AlphaDropout(0.4)),
    "gaussian": lambda: sequence(layers.GaussianDropout(0.4)),
    "noise": lambda: sequence(layers.GaussianNoise(0.4)),
    "lstm": lambda: sequence(layers.LSTM(5, dropout=0.4)),
    "recurrent": lambda: sequence(layers.GRU(5, recurrent_dropout=0.4)),
    "bidirectional": lambda: sequence(layers.Bidirectional(layers.LSTM(5, dropout=0.4))),
    "every_step": lambda: sequence(layers.TimeDistributed(layers.Dropout(0.4))),
    "nested": nested,
    "flip": lambda: images(layers.RandomFlip()),
    "rotation": lambda: images(layers.RandomRotation(0.5)),
    "brightness": lambda: images(layers.RandomBrightness(0.5)),
}
NOT_RANDOM = {
    "rate_zero": lambda: sequence(layers.Dropout(0.0)),
    "lstm": lambda: sequence(layers.LSTM(5)),
    "inference": lambda: keras.Sequential([keras.Input(SHAPE), layers.Dropout(0.4)]),
}


def notes(model: Any, folder: Path) -> tuple[str, ...]:
    model.save(folder / "m.keras")
    return load_model(audit_file(folder / "m.keras")).notes


def call_twice(model: Any) -> tuple[Any, Any]:
    shape = (2, *model.inputs[0].shape[1:])
    x = np.random.default_rng(1).uniform(0.1, 0.9, shape).astype("float32")
    return np.asarray(model(x)), np.asarray(model(x))


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_layer_at_inference_is_noted(name: str, tmp_path: Path) -> None:
    model = RANDOM[name]()
    assert not np.array_equal(*call_twice(model)), "Keras' own outputs are random"
    (note,) = notes(model, tmp_path)
    assert "called with training=True, so the model's own outputs are random" in note
    assert note.startswith(f"{model.layers[1].name}: ")


@pytest.mark.parametrize("name", list(NOT_RANDOM))
def test_layer_that_is_not_random_is_not_noted(name: str, tmp_path: Path) -> None:
    model = NOT_RANDOM[name]()
    assert np.array_equal(*call_twice(model))
    assert notes(model, tmp_path) == ()


def test_normalization_by_the_batch_is_noted(tmp_path: Path) -> None:
    model = sequence(layers.BatchNormalization())
    (note,) = notes(model, tmp_path)
    assert "depend on the other samples of a batch" in note
