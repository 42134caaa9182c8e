"""Functions of --architecture that were written for Keras 2, with weights of tf_keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from twin_programs import run_in_tf_keras

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OLD = tf_keras.layers
STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
WORDS = np.random.default_rng(6).integers(0, 9, (4, STEPS))
SCRIPT = """
from keras.models import Sequential

def imported():
    from keras.layers import Bidirectional, CuDNNLSTM, Dense
    return Sequential([
        Bidirectional(CuDNNLSTM(4), input_shape=(5, 3)), Dense(2)])

def attribute():
    import keras
    return Sequential([
        keras.layers.CuDNNGRU(4, input_shape=(5, 3)), keras.layers.Dense(2)])

def of_tensorflow():
    import tensorflow as tf
    return tf.keras.Sequential([
        tf.keras.layers.CuDNNLSTM(4, batch_input_shape=(7, 5, 3)), tf.keras.layers.Dense(2)])

def arguments():
    from keras.layers.core import Dense
    from keras.layers.normalization import BatchNormalization
    from keras.layers.recurrent import LSTM
    model = Sequential()
    model.add(LSTM(4, input_dim=3, input_length=5, implementation=2, time_major=False))
    model.add(BatchNormalization(fused=True))
    model.add(Dense(2))
    return model

def words():
    from keras.layers.embeddings import Embedding
    from keras.layers import Dense, Flatten
    return Sequential([Embedding(9, 4, input_length=5), Flatten(), Dense(2)])

def experimental():
    import tensorflow as tf
    preprocessing = tf.keras.layers.experimental.preprocessing
    return tf.keras.Sequential([
        preprocessing.Rescaling(0.5, input_shape=(5, 3)), preprocessing.RandomWidth(0.1),
        tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])

def imported_and_experimental():
    import tensorflow as tf
    from tensorflow.keras.layers import Dense, Flatten
    preprocessing = tf.keras.layers.experimental.preprocessing
    rescaling = preprocessing.Rescaling(0.5, input_shape=(5, 3))
    return tf.keras.Sequential([rescaling, Flatten(), Dense(2)])

def time_major():
    from keras.layers import LSTM
    return Sequential([LSTM(4, input_shape=(5, 3), time_major=True)])

def with_argument(units):
    return None
"""


@pytest.mark.parametrize(
    ("function", "layers", "x"),
    [
        ("imported", lambda: [OLD.Bidirectional(OLD.LSTM(4)), OLD.Dense(2)], X),
        pytest.param(
            "attribute",
            lambda: [OLD.GRU(4, reset_after=True), OLD.Dense(2)],
            X,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "of_tensorflow",
            lambda: [OLD.LSTM(4), OLD.Dense(2)],
            X,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "arguments",
            lambda: [OLD.LSTM(4), OLD.BatchNormalization(), OLD.Dense(2)],
            X,
            marks=pytest.mark.long,
        ),
        (
            "imported_and_experimental",
            lambda: [OLD.Rescaling(0.5), OLD.Flatten(), OLD.Dense(2)],
            X,
        ),
        ("experimental", lambda: [OLD.Rescaling(0.5), OLD.Flatten(), OLD.Dense(2)], X),
        (
            "words",
            lambda: [OLD.Embedding(9, 4, input_length=5), OLD.Flatten(), OLD.Dense(2)],
            WORDS,
        ),
    ],
)
def test_functions_compute_as_in_keras_2(
    function: str, layers: Callable[[], list[Any]], x: Any, tmp_path: Path
) -> None:
    model = tf_keras.Sequential(layers())
    model(x)
    generator = np.random.default_rng(17)
    model.set_weights([generator.uniform(0.1, 1.5, value.shape) for value in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(SCRIPT)
    loaded = load_model(
        audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:{function}"
    )
    np.testing.assert_allclose(loaded.model(x), model(x), atol=1e-5)


# Keras 3 calls the inputs of recurrent layers ``sequences``, and looks for registered classes only.
RECURRENT = """
from tensorflow.keras import Model
from tensorflow.keras.layers import LSTM, Bidirectional, Dense, Embedding, Input

class Scaled(LSTM):
    def call(self, inputs, mask=None, training=None, initial_state=None):
        return super().call(
            inputs * 0.5, mask=mask, training=training, initial_state=initial_state)

class Built(LSTM):
    def build(self, input_shape):
        super().build(input_shape)

    def call(self, inputs, mask=None, training=None, initial_state=None):
        return super().call(inputs * 2.0, mask=mask, training=training)

def build():
    words = Input((5,))
    x = Embedding(9, 3, mask_zero=True)(words)
    x = Bidirectional(Scaled(2, return_sequences=True))(x)
    return Model(words, Dense(2)(Built(3)(Scaled(3, return_sequences=True)(x))))
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5"])
def test_recurrent_classes_with_inputs_of_another_name(name: str, tmp_path: Path) -> None:
    program = run_in_tf_keras(RECURRENT)
    model = program["build"]()
    generator = np.random.default_rng(11)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(tmp_path / name)
    (tmp_path / "own.py").write_text(RECURRENT)
    loaded = load_model(audit_file(tmp_path / name), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_allclose(loaded.model(WORDS), model(WORDS), atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        ("time_major", "time_major", "so that it runs in Keras 3"),
        ("with_argument", "missing 1 required", "callable without arguments"),
    ],
)
def test_functions_that_fail(function: str, message: str, hint: str, tmp_path: Path) -> None:
    tf_keras.Sequential([OLD.Dense(2, input_shape=(3,))]).save_weights(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(SCRIPT)
    with pytest.raises(UsageError, match=message) as error:
        load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:{function}")
    assert hint in str(error.value.hint)
