"""TimeDistributed layers that do not know the number of steps while a function is traced."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS = 7
X = np.random.default_rng(2).normal(size=(3, STEPS, 4)).astype("float32")
# The RNN of the book by Géron, whose outputs have no known length in a graph.
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras.layers import Dense, Layer, LayerNormalization, TimeDistributed


class Recurrent(Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = Dense(units, activation="tanh"), LayerNormalization()
        self.units = units

    @tf.function
    def call(self, inputs):
        shape = tf.shape(inputs)
        state = tf.zeros([shape[0], self.units])
        sequences = tf.TensorArray(tf.float32, size=shape[1])
        for step in tf.range(shape[1]):
            state = self.norm(self.dense(tf.concat([inputs[:, step], state], 1)))
            sequences = sequences.write(step, state)
        return tf.transpose(sequences.stack(), [1, 0, 2])


def build():
    x = keras.Input((None, 4))
    inner = keras.Sequential([Dense(5, activation="relu"), Dense(2)])
    return keras.Model(x, TimeDistributed(inner)(Recurrent(3)(x)))
"""


def _with_weights(model: Any) -> Any:
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    return model


@pytest.mark.long
@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("kind", only(CONVERTERS, "tflite"))
def test_outputs_of_unknown_length(kind: str, tmp_path: Path) -> None:
    # In a file, because AutoGraph reads the source.
    text = PROGRAM.replace("from tensorflow import keras", "import tf_keras as keras")
    (tmp_path / "original_rnn.py").write_text(text.replace("tensorflow.keras", "tf_keras"))
    model = runpy.run_path(str(tmp_path / "original_rnn.py"))["build"]()
    model(X)
    _with_weights(model).save_weights(tmp_path / "w.h5")
    (tmp_path / "own.py").write_text(PROGRAM)
    loaded = load_model(
        audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path}/own.py:build", time_steps=STEPS
    )
    assert not loaded.is_graph
    predicted = loaded.model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    path = tmp_path / f"m.{kind}"
    file = CONVERTERS[kind].convert(
        loaded.model, interface_of(loaded.model, time_steps=STEPS), recipe_for("float32"), path
    )
    runner = open_runner(path, kind, file.inputs, file.outputs)
    for sample in X:
        (actual,) = runner.run({file.inputs[0].name: sample[None]}).values()
        np.testing.assert_allclose(actual, model(sample[None]), rtol=1e-4, atol=1e-5)


LAYERS = {
    "dense": lambda: layers.Dense(2),
    "masked": lambda: layers.LSTM(2),
    "images": lambda: layers.Conv1D(2, 3, padding="same"),
    "nested": lambda: layers.TimeDistributed(layers.Dense(2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_functions_for_any_number_of_steps(name: str, tmp_path: Path) -> None:
    """Keras computes the right ones if it knows their number."""
    shape = (None, 4) if name == "dense" else (None, 5, 4)
    x = keras.Input(shape)
    model = _with_weights(keras.Model(x, layers.TimeDistributed(LAYERS[name]())(x)))
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), allow_free_time=True).model
    values = np.random.default_rng(4).normal(size=(3, STEPS, *shape[1:])).astype("float32")
    function = tf.function(loaded, input_signature=[tf.TensorSpec((None, *shape))])
    np.testing.assert_allclose(function(values), model(values), rtol=1e-4, atol=1e-5)
