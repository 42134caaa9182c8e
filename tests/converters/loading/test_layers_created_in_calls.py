"""Classes of Keras 2 create layers without weights in ``call``.

The results are those of tf_keras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

STEPS, FEATURES = 6, 3
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import backend as K
from tensorflow.keras.layers import *


class Own(Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))

    def call(self, x):
        x = LeakyReLU(alpha=0.2)(tf.matmul(x, self.kernel))
        x = AlphaDropout(0.2)(GaussianDropout(0.1)(GaussianNoise(0.3)(Dropout(0.5)(x))))
        x = SpatialDropout1D(0.1)(AveragePooling1D()(x))
        x = Lambda(lambda t: K.l2_normalize(t, axis=-1))(x)
        x = Concatenate(axis=-1)([x, Permute((2, 1))(Reshape((4, 3))(x))])
        return Softmax(axis=1)(Activation("tanh")(ThresholdedReLU(theta=0.1)(x)))


class Weighted(Layer):
    def call(self, x):
        return Dense(2)(x)


class Constant(Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))

    def call(self, x):
        x = PReLU()(BatchNormalization()(tf.matmul(x, self.kernel)))
        return LayerNormalization()(x)


class Replaced(Constant):
    def call(self, x):
        x = tf.nn.relu(tf.matmul(x, self.kernel) / (1 + 1e-3) ** 0.5)
        return LayerNormalization(center=False, scale=False)(x)


class Both(Layer):
    def call(self, x):
        return LayerNormalization()(Dense(2)(x))


class Random(Layer):
    def call(self, x):
        return Dropout(0.5)(x, training=True)


def model(call):
    x = keras.Input((6, 3))
    return keras.Model(x, call(x))


def created():
    return model(lambda x: Dense(2)(Own()(x)))


def weighted():
    return model(lambda x: Dense(2)(Weighted()(x)))


def constant():
    return model(lambda x: Dense(2)(Constant()(x)))


def replaced():
    return model(lambda x: Dense(2)(Replaced()(x)))


def both():
    return model(lambda x: Dense(2)(Both()(x)))


def random():
    return model(lambda x: Dense(2)(Random()(x)))
"""


def _saved(name: str, path: Path, *, weights: bool = False) -> Any:
    """Save a model of tf_keras."""
    program = run_in_tf_keras(PROGRAM)
    tf_keras.utils.set_random_seed(3)
    model = program[name]()
    (model.save_weights if weights else model.save)(path)
    path.with_name("own.py").write_text(PROGRAM)
    return model


@pytest.mark.parametrize("weights", only([False, True], False), ids=["whole", "weights"])
def test_layers_created_in_calls(weights: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    x = np.random.default_rng(1).normal(size=(4, STEPS, FEATURES)).astype("float32")
    expected = _saved("created", path, weights=weights).predict(x, verbose=0)
    own = tmp_path / "own.py"
    options = {"architecture": f"{own}:created"} if weights else {"custom_objects": own}
    model = load_model(audit_file(path), **options).model
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    # A graph may create no variable when it is traced again.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    for rows in (1, 4):
        np.testing.assert_allclose(function(x[:rows]), expected[:rows], rtol=1e-5, atol=1e-6)
    assert keras.layers.Dropout(0.5).seed_generator.state.shape == (2,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weighted", r"creates layers with weights in call\(\): .*dense.*/kernel"),
        ("both", "Each call has new ones, and no file contains them"),
        ("constant", "which always have their initial values, 0 or 1"),
        ("random", "draws random numbers at inference"),
    ],
)
def test_layers_that_no_file_describes(name: str, message: str, tmp_path: Path) -> None:
    _saved(name, tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")


def test_constant_weights_need_no_layer(tmp_path: Path) -> None:
    """What the error proposes computes what tf_keras does, with the same file."""
    path = tmp_path / "m.h5"
    trained = _saved("constant", path, weights=True)
    x = np.random.default_rng(1).normal(size=(4, STEPS, FEATURES)).astype("float32")
    own = tmp_path / "own.py"
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(path), architecture=f"{own}:constant")
    assert "LayerNormalization(center=False, scale=False)" in error.value.hint
    model = load_model(audit_file(path), architecture=f"{own}:replaced").model
    expected = np.asarray(trained(x, training=False))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


# Of both Keras; in Keras 3, such a layer runs outside of graphs of TensorFlow.
REGULARIZED = """
import keras
from keras.layers import Dense, Dropout, GaussianNoise, Layer, LeakyReLU, SpatialDropout1D


@keras.saving.register_keras_serializable("own")
class Noisy(Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))

    def call(self, x):
        x = SpatialDropout1D(0.1)(Dropout(0.5)(LeakyReLU(0.2)(x @ self.kernel)))
        return GaussianNoise(0.3)(x)


def build():
    x = keras.Input((6, 3))
    return keras.Model(x, Dense(2)(Noisy()(x)))
"""


@pytest.mark.compared
@pytest.mark.parametrize(
    ("library", "suffix"),
    [
        pytest.param(keras, ".weights.h5", marks=pytest.mark.long),
        pytest.param(keras, ".keras", marks=pytest.mark.long),
        (tf_keras, ".weights.h5"),
        pytest.param(tf_keras, ".keras", marks=pytest.mark.long),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_layers_created_in_calls_of_unknown_versions(
    suffix: str, library: Any, tmp_path: Path
) -> None:
    """Weights only do not contain their version; whole files of Keras 3 have it."""
    text = REGULARIZED.replace("import keras", f"import {library.__name__} as keras")
    names: dict[str, Any] = {"__name__": "of_another_program"}
    exec(text.replace("from keras.", f"from {library.__name__}."), names)
    model, generator = names["build"](), np.random.default_rng(1)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    x = generator.normal(size=(4, STEPS, FEATURES)).astype("float32")
    path = tmp_path / f"m{suffix}"
    (model.save_weights if "weights" in suffix else model.save)(path)
    own = tmp_path / "own.py"
    own.write_text(REGULARIZED)
    options = {"architecture": f"{own}:build"} if "weights" in suffix else {"custom_objects": own}
    loaded = load_model(audit_file(path), **options).model
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model(x), rtol=1e-5, atol=1e-6)
    function = tf.function(lambda x: loaded(x, training=False), autograph=False)
    for rows in (1, 4):
        np.testing.assert_allclose(function(x[:rows]), model(x)[:rows], rtol=1e-5, atol=1e-6)
