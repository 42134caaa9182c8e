"""Normalization layers that were adapted to data, and layers inside TimeDistributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

STEPS = (6, 4)
OPTIONS: Mapping[str, dict[str, Any]] = {
    "features": {},
    "all values": {"axis": None},
    "steps and features": {"axis": (1, 2)},
    "steps": {"axis": 1},
    "inverted": {"invert": True},
    "inverted, all values": {"invert": True, "axis": None},
}


@pytest.mark.parametrize(
    ("library", "suffix"),
    [
        pytest.param(tf_keras, ".h5", marks=pytest.mark.long),
        pytest.param(tf_keras, ".keras", marks=pytest.mark.long),
        pytest.param(keras, ".h5", marks=pytest.mark.long),
        (keras, ".keras"),
    ],
)
def test_normalization_that_was_adapted(library: Any, suffix: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    data = generator.normal([3, -2, 0.5, 100], [2, 0.1, 5, 30], (40, *STEPS)).astype("float32")
    inputs = library.Input(STEPS, name="x")
    normalized = []
    for options in OPTIONS.values():
        layer = library.layers.Normalization(**options)
        layer.adapt(data)
        normalized.append(layer(inputs))
    nested = library.Sequential([library.Input(STEPS), library.layers.Normalization()])
    nested.layers[-1].adapt(data)
    model = library.Model(inputs, [*normalized, nested(inputs)])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    expected, actual = (
        [np.asarray(value) for value in item.predict(data[:3], verbose=0)]
        for item in (model, load_model(audit_file(path)).model)
    )
    for name, value, result in zip((*OPTIONS, "nested"), expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-4, err_msg=name)
    by_hand = (data[:3] - data.mean((0, 1))) / data.std((0, 1))
    np.testing.assert_allclose(actual[0], by_hand, rtol=1e-3, atol=1e-3)


layers = tf_keras.layers
WRAPPED: Mapping[str, Callable[[], Any]] = {
    "lambda": lambda: layers.Lambda(lambda x: x * 2 + 1),
    "mean": lambda: layers.Lambda(lambda x: tf_keras.backend.mean(x, axis=1)),
    "last step": lambda: layers.Lambda(lambda x: x[:, -1]),
    "local": lambda: layers.LocallyConnected1D(2, 3, strides=2),
    "local, same size": lambda: layers.LocallyConnected1D(
        2, 3, padding="same", implementation=3
    ),
    "threshold": lambda: layers.ThresholdedReLU(0.2),
    "hard sigmoid": lambda: layers.GRU(2, recurrent_activation="hard_sigmoid"),
    "lambda in a model": lambda: tf_keras.Sequential(
        [layers.Lambda(lambda x: x[:, 1:]), layers.Dense(2)]
    ),
}  # fmt: skip


@pytest.mark.long
def test_layers_of_edgeattn_in_time_distributed(tmp_path: Path) -> None:
    inputs = tf_keras.Input((3, *STEPS))
    images = layers.Reshape((3, 6, 4, 1))(inputs)
    outputs = [layers.TimeDistributed(make())(inputs) for make in WRAPPED.values()]
    outputs.append(layers.TimeDistributed(layers.LocallyConnected2D(2, (3, 2)))(images))
    model = tf_keras.Model(inputs, outputs)
    path = tmp_path / "model.h5"
    model.save(path)
    x = np.random.default_rng(4).normal(size=(2, 3, *STEPS)).astype("float32")
    loaded = load_model(audit_file(path)).model
    for name, value, result in zip(
        (*WRAPPED, "local images"), model.predict(x, verbose=0), loaded.predict(x, verbose=0),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)
