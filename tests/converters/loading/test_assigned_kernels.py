"""Layers of the user for Keras 2 that assign tensors to the kernels of other layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


class Normalized(layers.Wrapper):
    attribute = "kernel"

    def build(self, shape=None):
        if not self.layer.built:
            self.layer.build(shape)
        self.v = getattr(self.layer, self.attribute)
        self.g = self.add_weight(name="g", shape=(int(self.v.shape[-1]),), initializer="ones")
        self.built = True

    def call(self, x):
        axes = list(range(len(self.v.shape) - 1))
        setattr(self.layer, self.attribute, tf.nn.l2_normalize(self.v, axis=axes) * self.g)
        y = self.layer(x)
        self.finish()
        return y

    def finish(self):
        setattr(self.layer, self.attribute, self.v)


class Kept(Normalized):
    def finish(self):
        pass


class OfBias(Normalized):
    attribute = "bias"


class OfWords(Normalized):
    attribute = "embeddings"


class Spectral(layers.Dense):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.units))
        self.u = self.add_weight(name="u", shape=(1, self.units), trainable=False)
        self.bias = self.add_weight(name="bias", shape=(int(self.kernel.shape[-1]),))
        self.built = True

    def call(self, x):
        v = tf.nn.l2_normalize(tf.matmul(self.u, self.kernel, transpose_b=True))
        sigma = tf.reduce_sum(tf.matmul(v, self.kernel) ** 2) ** 0.5
        return tf.tensordot(x, self.kernel / sigma, 1) + self.bias


class Words(layers.Embedding):
    def build(self, shape=None):
        self.embeddings = self.add_weight(name="e", shape=(self.input_dim, self.output_dim))
        self.built = True


class Sequence(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = Normalized(layers.Dense(3)), layers.Dense(3)

    def call(self, x):
        return self.first(x) + self.second(self.first(x))


def model(layer, *before):
    x = y = keras.Input((6, 3))
    for item in (*before, layer):
        y = item(y)
    return keras.Model(x, layers.Dense(2)(y))


def dense():
    return model(Normalized(layers.Dense(4)))


def convolution():
    return model(Normalized(layers.Conv1D(4, 3, padding="causal", dilation_rate=2)))


def kept():
    return model(Kept(layers.Conv1D(4, 3)))


def bias():
    return model(OfBias(layers.Dense(4)))


def spectral():
    return model(Spectral(4, activation="tanh"))


def spectral_inside():
    return model(Normalized(Spectral(4)))


def own_words():
    x = keras.Input((6,), dtype="int32")
    return keras.Model(x, layers.Dense(2)(Words(9, 4)(x)))


def inside():
    return model(Sequence())


def words():
    x = keras.Input((6,), dtype="int32")
    return keras.Model(x, layers.Dense(2)(OfWords(layers.Embedding(9, 4))(x)))
"""
CREATED = ("spectral", "spectral_inside", "own_words")
NAMES = ("dense", "convolution", "kept", "bias", "inside", "words", *CREATED)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("name", only(NAMES, "convolution"))
@pytest.mark.parametrize("stored", only(("model", "weights"), "model"))
def test_kernels_are_assigned_in_calls(stored: str, name: str, tmp_path: Path) -> None:
    model, generator = run_in_tf_keras(PROGRAM)[name](), np.random.default_rng(2)
    x: Any = generator.normal(size=(4, 6, 3)).astype("float32")
    if name.endswith("words"):
        x = generator.integers(0, 9, (4, 6)).astype("int32")
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    expected = np.asarray(model(x))
    (model.save_weights if stored == "weights" else model.save)(tmp_path / "m.h5")
    own = tmp_path / "own.py"
    own.write_text(PROGRAM)
    options = {"architecture": f"{own}:{name}"} if stored == "weights" else {"custom_objects": own}
    loaded = load_model(audit_file(tmp_path / "m.h5"), **options).model
    np.testing.assert_allclose(loaded(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(AttributeError):  # outside of the call
        keras.layers.Dense(2).kernel = x
