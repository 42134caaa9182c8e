"""Loops and conditions on tensors in ``call``, and methods that are a ``tf.function``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(0).normal(size=(5, 7, 3)).astype("float32")
HEAD = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class Gate(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = layers.Dense(3)

    def call(self, x):
        if tf.reduce_sum(x) > -1e6:
            return self.scale(x)
        return x
"""
LOOP = """
        h = tf.zeros((tf.shape(x)[0], 3))
        for t in tf.range(tf.shape(x)[1]):
            y, h = self.cell(x[:, t], h)
        return self.dense(h)
"""
STORED = """
        steps = tf.shape(x)[1]
        h = tf.zeros((tf.shape(x)[0], 3))
        results = tf.TensorArray(tf.float32, size=steps)
        x = self.dense(x)
        for t in tf.range(steps):
            y, h = self.cell(self.gate(x[:, t]), h)
            results = results.write(t, y)
        return tf.transpose(results.stack(), [1, 0, 2])
"""
METHOD = """
        return self.dense(self.last(x))

    def last(self, x):
        h, t = tf.zeros((tf.shape(x)[0], 3)), 0
        while t < tf.shape(x)[1]:
            y, h = self.cell(x[:, t], h)
            t += 1
        return h
"""
WHILE = """
        h = tf.zeros((tf.shape(x)[0], 3))
        def step(t, h):
            return t + 1, self.cell(x[:, t], h)[0]
        return self.dense(tf.while_loop(lambda t, h: t < tf.shape(x)[1], step, (0, h))[1])
"""
OTHERS = """
        y = tf.cond(tf.reduce_sum(x) > -1e6, lambda: self.dense(x), lambda: x)
        return tf.map_fn(self.gate, y)
"""
FUNCTION = """
        return self.dense(self.gate(x))
"""
# The body of call, and a line before it.
CALLS = {
    "loop": (LOOP, ""),
    "loop in a tf.function": (LOOP, "@tf.function"),
    "stored results": (STORED, ""),
    "loop in another method": (METHOD, ""),
    "while_loop": (WHILE, ""),
    "cond and map_fn": (OTHERS, ""),
    "tf.function": (FUNCTION, "@tf.function"),
    "tf.function with a signature": (
        FUNCTION,
        "@tf.function(input_signature=[tf.TensorSpec([None, 7, 3])])",
    ),
}


def program(name: str) -> str:
    body, line = CALLS[name]
    parts = """
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cell, self.dense, self.gate = layers.GRUCell(3), layers.Dense(3), Gate()
"""
    call = f"{parts}\n    {line}\n    def call(self, x):{body}"
    return f"""{HEAD}
class Net(keras.Model):{call}
class Block(layers.Layer):{call}
def functional():
    x = keras.Input((7, 3))
    return keras.Model(x, Block()(x))
"""


def of_tf_keras(name: str, folder: Path) -> Any:
    """The module of a program; AutoGraph needs its file."""
    file = folder / "twin.py"
    file.write_text(
        program(name)
        .replace("from tensorflow import keras", "import tf_keras as keras")
        .replace("tensorflow.keras", "tf_keras")
    )
    spec = importlib.util.spec_from_file_location("twin", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", only(CALLS, "loop", "tf.function"))
@pytest.mark.parametrize("build", only(["Net", "functional"], "Net"))
def test_calls_of_programs_for_keras_2(name: str, build: str, tmp_path: Path) -> None:
    model = getattr(of_tf_keras(name, tmp_path), build)()
    expected = model(X).numpy()
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "own.py").write_text(program(name))
    np.savez(tmp_path / "samples.npz", x=X)
    loaded = load_model(
        audit_file(tmp_path / "w.h5"),
        architecture=f"{tmp_path}/own.py:{build}",
        samples=tmp_path / "samples.npz",
    )
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)
    predicted = loaded.model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", only(["loop", "tf.function"], "tf.function"))
def test_calls_of_classes_in_files_of_keras_2(name: str, tmp_path: Path) -> None:
    model = of_tf_keras(name, tmp_path).functional()
    model.save(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(program(name))
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


def test_a_function_of_tensorflow_in_a_file_of_keras_3(tmp_path: Path) -> None:
    """Its graph must not contain the values that the weights had before they were loaded."""
    text = """
import keras
import tensorflow as tf

class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2, bias_initializer="ones")
    LINE
    def call(self, x):
        return self.dense(x)
"""
    names: dict[str, object] = {"__name__": "own"}
    exec(text.replace("LINE", ""), names)
    x = keras.Input((7, 3))
    model = keras.Model(x, names["Block"]()(x))  # type: ignore[operator]
    model.save(tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(text.replace("LINE", "@tf.function"))
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    kernel = model.get_weights()[0]
    np.testing.assert_allclose(loaded.model(X), X @ kernel + 1, rtol=1e-4, atol=1e-5)
