"""Arguments of types that Keras 2 accepts and Keras 3 does not, compared with tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(2).normal(size=(8, 8, 4)).astype("float32")
PROGRAM = """
import numpy as np
from tensorflow import keras
from tensorflow.keras import layers

def numbers():
    x = keras.Input((8, 4), name="in/x")
    y = layers.Conv1D(8 / 2, 3, padding="SAME", name="conv1/conv")(x)
    y = layers.BatchNormalization(name="conv1/bn", virtual_batch_size=None)(y)
    y = layers.SeparableConv1D(filters=np.float64(4), kernel_size=3, name="conv2/conv")(y)
    y = layers.Dense(np.prod([2, 2]), dynamic=False, name="second")(y)
    y = layers.MaxPooling1D(2, padding="SAME", data_format="Channels_Last")(y)
    y = layers.GRU(np.int32(4), return_sequences=True)(y)
    y = layers.RNN(layers.LSTMCell(np.int64(4)), return_sequences=True)(y)
    lstm = layers.LSTM(units=np.int64(3), return_sequences=True, name="rnn/lstm")
    y = layers.Bidirectional(lstm, name="rnn/both")(y)
    y = layers.MultiHeadAttention(np.int64(2), np.int64(3))(y, y)
    y = layers.Lambda(lambda z: z[:, 0], output_shape=[6], name="first/step")(y)
    y = layers.GaussianNoise(2.5)(y)
    y = layers.RepeatVector(2)(layers.Lambda(lambda z: z * 2.0, output_shape=6)(y))
    m = keras.Model(x, layers.Dense(np.array(4), name="out/dense")(y))
    return keras.Model(m.input, [m.get_layer("out/dense").output, m.get_layer("conv1/bn").output])

def noise():
    x = keras.Input((8, 4))
    return keras.Model(x, layers.Dense(3)(layers.GaussianNoise(stddev=20)(x)))

def tokens():
    t = keras.Input((8,), dtype="int32")
    y = layers.Embedding(np.max([3, 8]) + 1, np.int64(4))(t)
    return keras.Model(t, layers.UpSampling1D(np.int64(2))(y))

class Block(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv1D(filters / 2, 3, padding="SAME", name="block/conv")
        self.dense = layers.Dense(np.int64(4), name="block/dense")
        self.norm = layers.BatchNormalization(name="block/bn")

    def call(self, x):
        return self.norm(self.dense(self.conv(x)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}

def own():
    x = keras.Input((8, 4), name="x")
    return keras.Model(x, Block(8, name="top")(x))
"""
CASES = [
    *(("numbers", "w.h5"), ("numbers", "w.weights.h5"), ("tokens", "w.h5")),
    *(("noise", "m.h5"), ("noise", "m.keras")),
    *(("own", name) for name in ("w.h5", "w.weights.h5", "m.h5", "m.keras")),
]


@pytest.mark.parametrize("case", only(CASES, ("noise", "m.h5"), CASES[-2]), ids="-".join)
def test_layers_of_programs_and_classes(case: tuple[str, str], tmp_path: Path) -> None:
    function, name = case
    tf_keras.backend.clear_session()  # the names of layers are those of a new process
    model = run_in_tf_keras(PROGRAM)[function]()
    generator = np.random.default_rng(5)
    model.set_weights([generator.uniform(0.2, 1.2, w.shape) for w in model.get_weights()])
    (tmp_path / "own.py").write_text(PROGRAM)
    options: dict[str, Any] = {}
    if function == "own":
        options = {"custom_objects": tmp_path / "own.py"}
    if name.startswith("w"):
        model.save_weights(tmp_path / name)
        options = {"architecture": f"{tmp_path / 'own.py'}:{function}"}
    else:
        model.save(tmp_path / name)
    loaded = load_model(audit_file(tmp_path / name), **options)
    assert not loaded.is_graph
    # The names with slashes are those of the file.
    assert not any("assigned in order" in note for note in loaded.notes)
    inputs = np.arange(64).reshape(8, 8) % 9 if function == "tokens" else X
    outputs = (tf.nest.flatten(item(inputs)) for item in (loaded.model, model))
    for found, expected in zip(*outputs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
