"""Bidirectional layers with more weights than a file may declare without storing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.registered_objects import SPARE

UNITS = 600
X = np.random.default_rng(2).normal(size=(2, 3, 8)).astype("float32")
LAYERS = {
    "layer": lambda: layers.LSTM(UNITS),
    "cell": lambda: layers.RNN(layers.LSTMCell(UNITS)),
    "cells": lambda: layers.RNN([layers.GRUCell(UNITS), layers.GRUCell(UNITS)]),
}
PROGRAM = """
from tensorflow import keras
from tensorflow.keras.layers import LSTM, Bidirectional, Dense

def build():
    x = keras.Input((3, 8))
    return keras.Model(x, Dense(2)(Bidirectional(LSTM(600))(x)))
"""


def _with_weights(model: Any) -> Any:
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(0, 0.1, weight.shape) for weight in model.weights])
    assert 3 * model.count_params() / 2 > model.count_params() + SPARE
    return model


@pytest.mark.long
@pytest.mark.parametrize("name", only(["m.keras", "m.h5"], "m.keras"))
@pytest.mark.parametrize("kind", only(LAYERS, "layer"))
def test_files_of_keras_3(kind: str, name: str, tmp_path: Path) -> None:
    x = keras.Input(X.shape[1:])
    y = layers.Bidirectional(LAYERS[kind]())(x)
    model = _with_weights(keras.Model(x, layers.Dense(2)(y)))
    model.save(tmp_path / name)
    loaded = load_model(audit_file(tmp_path / name)).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_programs(tmp_path: Path) -> None:
    model = _with_weights(run_in_tf_keras(PROGRAM)["build"]())
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(PROGRAM)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path}/own.py:build")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_weights_that_the_file_lacks_are_refused(tmp_path: Path) -> None:
    x = keras.Input(X.shape[1:])
    y = layers.Bidirectional(layers.LSTM(4))(x)
    keras.Model(x, layers.Dense(2)(y)).save(tmp_path / "m.h5")
    import h5py

    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = file.attrs["model_config"].replace('"units": 4', '"units": 4000')
        file.attrs["model_config"] = config
    with pytest.raises(UnsafeModelError, match="more than the file contains"):
        load_model(audit_file(tmp_path / "m.h5"))
