"""``tf.squeeze(x)`` keeps the axis of the samples, as in batches of several, in tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(3).normal(size=(9, 6, 4)).astype("float32")
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras import backend as K

class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv1D(5, 3)
        self.pool = layers.AveragePooling1D(4)

    def call(self, x):
        return tf.squeeze(self.pool(self.conv(x)))

def subclass():
    m = Subclass()
    m(tf.zeros((10, 6, 4)))
    return m

class Squeezed(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(1, 4), initializer="uniform")

    def call(self, x):
        return tf.squeeze(tf.reduce_max(x, 1, keepdims=True)) * tf.squeeze(self.kernel)

class OfTensorFlow1(Squeezed):
    def call(self, x):
        return tf.compat.v1.squeeze(tf.reduce_sum(x * self.kernel, -1, keepdims=True))

class ByTimeSteps(Squeezed):
    def call(self, x):
        steps = tf.transpose(x, (1, 0, 2))[:1]
        return tf.squeeze(steps) * self.kernel

class OfSamples(Squeezed):
    def call(self, x):
        return tf.map_fn(lambda s: tf.squeeze(s[:1] * self.kernel) + s[1], x)

class Nothing(Squeezed):
    def call(self, x):
        return tf.squeeze(x) * self.kernel

def layer(cls, shape=(6, 4)):
    x = keras.Input(shape, name="x")
    return keras.Model(x, cls(name="y")(x))

def function():
    x = keras.Input((6, 4), name="x")
    return keras.Model(x, tf.squeeze(layers.Conv1D(5, 6)(x)))

squeezed = lambda: layer(Squeezed)
of_tensorflow_1 = lambda: layer(OfTensorFlow1)
by_time_steps = lambda: layer(ByTimeSteps)
of_samples = lambda: layer(OfSamples)
nothing = lambda: layer(Nothing)
free_time = lambda: layer(OfTensorFlow1, (None, 4))
"""
NAMES = ["subclass", "squeezed", "of_tensorflow_1", "by_time_steps", "of_samples",
         "nothing", "free_time", "function"]  # fmt: skip


def files_compute(model: Any, expected: Any, folder: Path) -> None:
    """Compare files, and batches of one sample among others, with outputs of all samples."""
    interface = interface_of(model, time_steps=6)
    [x], [y] = interface.inputs, interface.outputs
    assert y.shape == (None, *expected.shape[1:])
    for rows in (9, 1):
        found = predict(model, interface, {x.name: X[:rows]}, batch_size=8)[y.name]
        np.testing.assert_allclose(found, expected[:rows], rtol=1e-5, atol=1e-6)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = folder / f"file.{format}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        for sample, value in zip(X, expected, strict=True):
            found = runner.run({x.name: sample[None]})[y.name]
            np.testing.assert_allclose(found, value[None], rtol=1e-5, atol=1e-6, err_msg=format)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("name", only(NAMES, "squeezed"))
def test_programs_of_keras_2(name: str, tmp_path: Path) -> None:
    model = run_in_tf_keras(PROGRAM)[name]()
    generator = np.random.default_rng(5)
    model.set_weights([generator.uniform(-1, 1, w.shape) for w in model.get_weights()])
    (tmp_path / "own.py").write_text(PROGRAM)
    model.save_weights(tmp_path / "w.h5")
    np.savez(tmp_path / "x.npz", x=X)
    loaded = load_model(
        audit_file(tmp_path / "w.h5"),
        architecture=f"{tmp_path / 'own.py'}:{name}",
        time_steps=6,
        samples=tmp_path / "x.npz",
    )
    assert not loaded.is_graph
    files_compute(loaded.model, model.predict(X, verbose=0), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_files_of_keras_2(name: str, tmp_path: Path) -> None:
    model = run_in_tf_keras(PROGRAM)["squeezed"]()
    (tmp_path / "own.py").write_text(PROGRAM)
    model.save(tmp_path / name)
    loaded = load_model(audit_file(tmp_path / name), custom_objects=tmp_path / "own.py")
    files_compute(loaded.model, model.predict(X, verbose=0), tmp_path)


def test_functions_of_keras_3(tmp_path: Path) -> None:
    x = keras.Input((6, 4), name="x")
    y = keras.layers.Conv1D(5, 6)(x)
    model = keras.Model(x, keras.ops.squeeze(y))
    model.save(tmp_path / "m.keras")
    expected = np.asarray(keras.Model(x, y)(X))[:, 0]
    files_compute(load_model(audit_file(tmp_path / "m.keras")).model, expected, tmp_path)


def test_models_of_one_sample_compute_as_in_tensorflow(tmp_path: Path) -> None:
    class Single(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.expand_dims(tf.squeeze(x[:, :1]), 0) * 2.0

    x = keras.Input(batch_shape=(1, 6, 4), name="x")
    model = keras.Model(x, Single(name="y")(x))
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    for sample in X:
        found = runner.run({"x": sample[None]})["y"]
        np.testing.assert_allclose(found, 2 * sample[:1], rtol=1e-6)
