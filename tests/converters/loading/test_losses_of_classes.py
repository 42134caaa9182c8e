"""Classes for Keras 2 that add losses or compute ``training``, and calls that Keras 3 lacks.

The results are those of tf_keras with the same text, in which ``tf.keras`` is tf_keras.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.with_tf_keras import graph_of_tf_keras

X = np.random.default_rng(5).normal(size=(4, 5, 3)).astype("float32")
IMPORTS = "import tensorflow as tf\nfrom keras import backend as K\nkeras = tf.keras\n"
PROGRAM = """
def build():
    x = keras.Input((5, 3))
    return keras.Model(x, Own(**ARGUMENTS)(keras.layers.Dense(3)(x)))
"""
LAYER = """
class Own(keras.layers.Layer):
    def build(self, shape):
        self.k = self.add_weight(name="k", shape=(3, 3))
        super().build(shape)

    def call(self, x):
        {}
        return y
"""
FROZEN = """
class Own(keras.layers.{}):
    def call(self, x, training=False):
        if training is None:
            training = tf.constant(False)
        return super().call({})
"""
INNER = """
class Own(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x, training=False):
        training = tf.logical_and(training, self.trainable)
        return {}
"""
INNER_WITHOUT = """
class Own(keras.layers.Layer):
    def __init__(self, rate=None, **kwargs):
        super().__init__(**kwargs)
        self.drop = keras.layers.SpatialDropout1D(rate=rate)
        self.noise = keras.layers.GaussianNoise(rate)
        self.attention = keras.layers.MultiHeadAttention(2, 3, dropout=rate)

    def call(self, x):
        return self.attention(self.drop(x), self.noise(x))
"""
FROZEN_CALL = "x, tf.logical_and(training, self.trainable)"
LOSS = "y = K.dot(x, self.k)\n        self.{}"
WEIGHT = """
class Own(keras.layers.Layer):
    def build(self, shape):
        self.k = self.{}
        super().build(shape)

    def call(self, x):
        return K.dot(x, self.k)
"""
OF_VARIABLE = (
    "use_resource=True, aggregation=tf.VariableAggregation.MEAN, "
    "synchronization=tf.VariableSynchronization.AUTO, caching_device=None"
)
TEXTS = {
    "autocast": WEIGHT.format("add_weight('k', shape=[3, 3], experimental_autocast=False)"),
    "variable": WEIGHT.format(f"add_weight('k', (3, 3), {OF_VARIABLE})"),
    "add_variable with type": WEIGHT.format("add_variable('k', (3, 3), 'float32', 'uniform')"),
    "add_variable": WEIGHT.format("add_variable('k', shape=[int(shape[-1]), 3])"),
    "loss of inputs": LAYER.format(LOSS.format("add_loss(K.mean(y), inputs=x)")),
    "losses": LAYER.format(LOSS.format("add_loss([K.mean(y), K.sum(x)], inputs=[x])")),
    "function as loss": LAYER.format(LOSS.format("add_loss(lambda: K.mean(self.k))")),
    "metric": LAYER.format(LOSS.format("add_metric(K.mean(y), name='m', aggregation='mean')")),
    "update": LAYER.format(LOSS.format("add_update([self.k.assign(self.k)])")),
    "frozen normalization": FROZEN.format("BatchNormalization", FROZEN_CALL),
    "by name": FROZEN.format(
        "BatchNormalization", "x, training=tf.cast(0 * tf.cast(training, 'int32'), 'bool')"
    ),
    "dropout": FROZEN.format("Dropout", FROZEN_CALL),
    "noise": FROZEN.format("GaussianNoise", FROZEN_CALL),
    "layers inside": INNER.format("self.drop(self.norm(x, training), training=training)"),
    "get_shape": LAYER.format("y = x * self.k.get_shape().as_list()[0] * self.k.get_shape()[1]"),
    "rank": LAYER.format("y = K.dot(x, self.k) * self.k.get_shape().rank"),
    "shape": LAYER.format("y = K.dot(x, self.k) * self.k.shape.as_list()[0] * self.k.shape.rank"),
    "call of Layer": LAYER.format("y = K.dot(super().call(x), self.k)"),
    "call with arguments": LAYER.format("y = K.dot(super().call(x, training=False), self.k)"),
    "learning phase": LAYER.format("y = K.dot(x, self.k) if K.learning_phase() == 0 else x"),
    "random binomial": LAYER.format("y = K.dot(x, self.k) * K.random_binomial((3,), p=1.0)"),
    "training": INNER.format("self.drop(self.norm(x, training=training), training=training)")
    .replace("training=False):", "training):")
    .replace("tf.logical_and(training, self.trainable)", "training or False"),
    "training and mask": LAYER.format("y = K.dot(x, self.k) * (2 if mask is None else 3)").replace(
        "call(self, x)", "call(self, x, training, mask=None)"
    ),
    "layers without dropout": INNER_WITHOUT,
    "read_value": LAYER.format("y = K.dot(x, self.k.read_value())"),
}  # fmt: skip
OFTEN = ("add_variable", "loss of inputs", "frozen normalization", "layers inside", "get_shape",
         "training")  # fmt: skip
CASES = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in TEXTS]


def saved(name: str, path: Path, version: str, *, whole: bool) -> np.ndarray:
    """Save the model or its weights with tf_keras as ``version`` did; return its outputs."""
    names: dict[str, Any] = {
        "__name__": "own", "keras": tf_keras, "K": tf_keras.backend, "tf": tf,
    }  # fmt: skip
    arguments = {"stddev": 0.5} if name == "noise" else {"rate": 0.5} if name == "dropout" else {}
    exec(f"ARGUMENTS = {arguments}\n{TEXTS[name]}\n{PROGRAM}", names)
    model = names["build"]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.uniform(0.5, 1.5, value.shape) for value in model.get_weights()])
    (model.save if whole else model.save_weights)(path)
    own = path.with_name("own.py")
    own.write_text(f"{IMPORTS}ARGUMENTS = {arguments}\n{TEXTS[name]}\n{PROGRAM}")
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]) if whole else (file,):
            group.attrs["keras_version"] = version
    return np.asarray(model.predict(X, verbose=0))


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_classes_compute_without_training(
    name: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_of_tf_keras, "load_graph", lambda *_: None)
    path = tmp_path / "m.h5"
    expected = saved(name, path, "2.15.0", whole=whole)
    load = functools.partial(load_model, audit_file(path))
    own = path.with_name("own.py")
    loaded = load(custom_objects=own) if whole else load(architecture=f"{own}:build")
    np.testing.assert_allclose(np.asarray(loaded.model(X)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole", [True, pytest.param(False, marks=pytest.mark.long)])
def test_layers_without_a_rate(whole: bool, tmp_path: Path) -> None:
    text = """
def build():
    x = keras.Input((5, 3))
    y = keras.layers.SpatialDropout1D(None)(keras.layers.Dense(3)(x))
    y = keras.layers.GaussianNoise(None)(y)
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Dropout(rate=None)(y)))
"""
    names: dict[str, Any] = {"keras": tf_keras}
    exec(text, names)
    model, path = names["build"](), tmp_path / "m.h5"
    (model.save if whole else model.save_weights)(path)
    own = tmp_path / "own.py"
    own.write_text(f"from tensorflow import keras\n{text}")
    loaded = load_model(audit_file(path), architecture=None if whole else f"{own}:build")
    np.testing.assert_allclose(np.asarray(loaded.model(X)), model.predict(X, verbose=0), atol=1e-5)
