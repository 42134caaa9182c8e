"""Programs import names of Keras 1 and 2 that only concern training or data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UsageError
from edgeattn_converters.loading.architecture import function_model
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.load import load_model

IMPORTS = """
from tensorflow.keras.losses import mean_squared_error, kl_divergence
from tensorflow.keras.metrics import mean_absolute_error
from tensorflow.keras.optimizers.legacy import Nadam, Adamax, Adadelta
from tensorflow.keras.wrappers.scikit_learn import KerasClassifier
from tensorflow.keras.experimental import CosineDecay, LinearModel
from tensorflow.keras.mixed_precision import experimental as mixed_precision
from tensorflow.keras.utils import Progbar, GeneratorEnqueuer, OrderedEnqueuer, Sequence
from tensorflow.keras.estimator import model_to_estimator
from keras.wrappers.scikit_learn import KerasRegressor
from keras.optimizers import Adam, SGD, adam, rmsprop
from keras.metrics import categorical_accuracy, fbeta_score
from keras.preprocessing.image import random_rotation, ImageDataGenerator
from keras.preprocessing.sequence import pad_sequences, skipgrams
from keras.preprocessing.text import Tokenizer
from keras.engine.network import Network
from keras.engine.topology import Container, InputSpec
from keras.layers import Dense, Model, Sequential
from keras.layers.merge import _Merge
from keras.utils.io_utils import HDF5Matrix
import keras
"""
PROGRAM = (
    IMPORTS
    + """

class Difference(_Merge):
    def _merge_function(self, inputs):
        return inputs[0] - inputs[1]

class Batches(GeneratorEnqueuer):
    pass

class Board(keras.callbacks.TensorBoard):
    def __init__(self, **named):
        super().__init__(**named)

def build():
    x = keras.layers.Input((3,))
    policy = mixed_precision.Policy("float32")
    model = Model(x, Difference()([Dense(4)(x), Dense(4)(x)]))
    model.compile(loss=mean_squared_error, optimizer=adam(lr=0.1), metrics=[fbeta_score])
    assert isinstance(model, Container)
    assert isinstance(model, Network)
    KerasClassifier(build_fn=build, epochs=3)
    keras.utils.print_summary(model)
    keras.utils.layer_utils.print_summary(model, line_length=100)
    assert keras.utils.to_categorical([1, 2], 3, dtype="int32").dtype == "int32"
    keras.callbacks.ModelCheckpoint("w.{epoch:02d}.hdf5", save_best_only=True, period=1)
    Board(log_dir="logs", write_grads=True, batch_size=32)
    keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.2, epsilon=0.001)
    keras.backend.function([x], [model.output])
    return model

def computed():
    x = keras.layers.Input((3,))
    return Model(x, fbeta_score(x, x) * 2)
"""
)


def test_programs_that_import_them(tmp_path: Path) -> None:
    x = tf_keras.Input((3,))
    dense = tf_keras.layers.Dense
    model = tf_keras.Model(x, tf_keras.layers.Subtract()([dense(4)(x), dense(4)(x)]))
    model.save_weights(tmp_path / "m.h5")
    own = tmp_path / "own.py"
    own.write_text(PROGRAM)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{own}:build")
    samples = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(loaded.model(samples), model(samples), rtol=1e-5, atol=1e-6)


DIAGRAMS = [
    "from keras.utils import plot_model; plot_model(model, 'm.png', show_shapes=True)",
    "tf.keras.utils.plot_model(model, to_file='m.png')",
    "from keras.utils.vis_utils import plot_model; plot_model(model)",
    "from keras.utils.vis_utils import model_to_dot; model_to_dot(model).create(prog='dot')",
    "from keras.utils.visualize_util import plot; plot(model, to_file='m.png')",
    "from tensorflow.python.keras.utils.vis_utils import plot_model; plot_model(model)",
]
WITH_DIAGRAM = """
import tensorflow as tf
import keras

class Halves(tf.keras.layers.Layer):
    def call(self, x):
        return x * 0.5

def build():
    x = tf.keras.Input((3,))
    model = tf.keras.Model(x, Halves()(tf.keras.layers.Dense(4)(x)))
    {line}
    return model
"""


@pytest.mark.parametrize("version", only(["2.11.0", "3.3.0", ""], "2.11.0"))
@pytest.mark.parametrize("line", only(DIAGRAMS, DIAGRAMS[0], DIAGRAMS[3]))
def test_diagrams_are_not_drawn(line: str, version: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    x = tf_keras.Input((3,))
    model = tf_keras.Model(x, tf_keras.layers.Dense(4)(x))
    model.save_weights(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = version
        if not version:
            del file.attrs["keras_version"]
    own = tmp_path / "own.py"
    own.write_text(WITH_DIAGRAM.format(line=line))
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{own}:build")
    samples = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(loaded.model(samples), model(samples) * 0.5, rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "m.png").exists()


def test_nothing_is_computed_with_them(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(PROGRAM)
    with pytest.raises(UsageError, match="Unused") as error:
        function_model(f"{own}:computed", {}, Program((2, 11), of_tensorflow=True))
    assert "(own.py, line" in str(error.value)


@pytest.mark.parametrize("name", ["keras.metrics", "keras.optimizers", "tensorflow.keras.losses"])
def test_keras_is_unchanged_behind_a_program(name: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(PROGRAM)
    function_model(f"{own}:build", {}, Program((2, 11), of_tensorflow=True))
    module = __import__(name, fromlist=["x"])
    assert not hasattr(module, "fbeta_score")
