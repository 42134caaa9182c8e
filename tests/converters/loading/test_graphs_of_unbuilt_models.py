"""Subclassed models that only tf_keras runs, with a Sequential that has no shape inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# Copies of layers with a Sequential are none of Keras 3.
PROGRAM = """
import copy

import tensorflow as tf


class Block(tf.keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.inner = tf.keras.Sequential(
            [tf.keras.layers.Dense(6, activation="relu"), tf.keras.layers.Dense(units)])

    def call(self, x):
        return x + self.inner(x)


class Net(tf.keras.Model):
    def __init__(self):
        super().__init__()
        block = Block(5)
        self.blocks = [copy.deepcopy(block) for _ in range(2)]
        ATTRIBUTE
        self.final = tf.keras.layers.Dense(4)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.final(HEAD)


def build():
    return Net()
"""
KINDS = {
    "in_layers": ("pass", "x"),
    "in_the_model": ("self.head = tf.keras.Sequential([tf.keras.layers.Dense(3)])", "self.head(x)"),
    "nested": (
        "self.head = tf.keras.Sequential([tf.keras.Sequential([tf.keras.layers.Dense(3)])])",
        "self.head(x)",
    ),
}
G = np.random.default_rng(2)
X = G.normal(size=(9, 6, 5)).astype("float32")


def written(kind: str, folder: Path) -> Path:
    path = folder / "nets.py"
    attribute, head = KINDS[kind]
    path.write_text(PROGRAM.replace("ATTRIBUTE", attribute).replace("HEAD", head))
    return path


def model_of(path: Path) -> Any:
    """The model as its program builds it with tf_keras."""
    names: dict[str, Any] = {"__name__": "nets"}
    source = path.read_text().replace("tf.keras", "tf_keras")
    exec(compile("import tf_keras\n" + source, str(path), "exec"), names)
    model = names["build"]()
    model(X)
    model.set_weights([G.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("kind", only(list(KINDS), "in_layers"))
def test_the_graph_is_that_of_the_built_model(kind: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    model, file = model_of(path), tmp_path / "w.weights.h5"
    model.save_weights(file)
    np.save(tmp_path / "x.npy", X)
    loaded = load_model(audit_file(file), architecture=f"{path}:build", samples=tmp_path / "x.npy")
    [actual] = loaded.model(dict.fromkeys(loaded.model.input, X), training=False).values()
    np.testing.assert_allclose(actual, model(X).numpy(), rtol=1e-5, atol=1e-5)
    assert any("is the graph that tf_keras" in note for note in loaded.notes)


@pytest.mark.long
def test_without_samples_they_are_named(tmp_path: Path) -> None:
    path = written("in_layers", tmp_path)
    model_of(path).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UsageError, match="no samples have the shapes of its inputs"):
        load_model(audit_file(tmp_path / "w.weights.h5"), architecture=f"{path}:build")
