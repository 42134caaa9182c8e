"""Tensors that ``build`` of a layer inside another layer of the user keeps, as for positions.

Keras 2 builds layers outside of any function; Keras 3 builds them in the function of the layer that
first calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import backend as K
from tensorflow.keras import layers

class Positions(layers.Layer):
    def build(self, input_shape):
        steps, features = input_shape[-2], input_shape[-1]
        steps = K.expand_dims(K.cast_to_floatx(K.arange(0, steps)), 1)
        rates = K.exp(K.constant(-0.3) * K.cast_to_floatx(K.arange(0, features)))
        self.signal = K.sin(steps * K.expand_dims(rates, 0))
        super().build(input_shape)

    def call(self, x):
        return x + self.signal

class Causal(layers.Layer):
    def build(self, input_shape):
        self.seen = tf.linalg.band_part(tf.ones((input_shape[1], input_shape[1])), -1, 0)
        self.dense = layers.Dense(input_shape[-1])
        self.dense.build(input_shape)
        super().build(input_shape)

    def call(self, x):
        return tf.matmul(self.seen / tf.reduce_sum(self.seen, -1, keepdims=True), self.dense(x))

class Scaled(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=input_shape[-1:], initializer="ones")
        self.twice = 2.0 * self.scale
        super().build(input_shape)

    def call(self, x):
        return x * self.twice

class Around(layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = {"Positions": Positions, "Causal": Causal, "Scaled": Scaled}[inner]()
        self.name_of_inner = inner

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "inner": self.name_of_inner}

class Twice(layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.around, self.name_of_inner = Around(inner), inner

    def call(self, x):
        return self.around(x) + x

    def get_config(self):
        return {**super().get_config(), "inner": self.name_of_inner}

def build(layer, inner):
    x = keras.Input((6, 4), name="x")
    return keras.Model(x, layers.LSTM(3)(globals()[layer](inner)(x)))

def positions():
    return build("Around", "Positions")

def causal():
    return build("Twice", "Causal")

def scaled():
    return build("Twice", "Scaled")
"""
SUFFIXES = (".h5", ".keras", ".weights.h5")
X = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")


def saved(name: str, path: Path) -> Any:
    """Save the model of a function of the program beside the program."""
    model = run_in_tf_keras(PROGRAM)[name]()
    generator = np.random.default_rng(2)
    values = [generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()]
    model.set_weights(values)
    (path.parent / "own.py").write_text(PROGRAM)
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return model


def loaded_model(name: str, path: Path) -> Any:
    program = path.parent / "own.py"
    if path.name.endswith(".weights.h5"):
        return load_model(audit_file(path), architecture=f"{program}:{name}").model
    return load_model(audit_file(path), custom_objects=program).model


@pytest.mark.parametrize(
    "case",
    only(
        [(name, suffix) for name in ("positions", "causal") for suffix in SUFFIXES],
        *[("positions", ".h5"), ("causal", ".weights.h5")],
    ),
    ids="-".join,
)
def test_constants_of_layers_inside_layers(case: tuple[str, str], tmp_path: Path) -> None:
    name, suffix = case
    expected = saved(name, tmp_path / f"m{suffix}").predict(X, verbose=0)
    actual = loaded_model(name, tmp_path / f"m{suffix}").predict(X, verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def scaled(tmp_path: Path) -> Callable[[str], tuple[Path, Any]]:
    """A file of a version with weights from which ``build`` computes a tensor, and its outputs."""

    def of_version(version: str) -> tuple[Path, Any]:
        path = tmp_path / "m.h5"
        model = saved("scaled", path)
        with h5py.File(path, "a") as file:
            for group in (file, file["model_weights"]):
                group.attrs["keras_version"] = version.encode()
        [scale] = model.layers[1].get_weights()
        return path, np.asarray(model.layers[2]((X * (2 * scale + 1)).astype("float32")))

    return of_version


def test_tensors_of_weights_follow_them_in_the_graph_of_keras_2_2(scaled: Any) -> None:
    path, expected = scaled("2.2.4")
    actual = loaded_model("scaled", path).predict(X, verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_tensors_of_initial_weights_are_in_no_file(scaled: Any) -> None:
    path, _ = scaled("2.15.0")
    with pytest.raises(UnsupportedModelError, match=r"does not contain 'twice' of layer 'scaled'"):
        loaded_model("scaled", path)
