"""Layers that a model calls with ``training=True``: a note says what the artifacts compute."""

import contextlib
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers
from twin_programs import run_in_tf_keras

from edgeattn.bundle.model_digest import digest
from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

SHAPE = (6, 4)


def sequence(layer: Any) -> Any:
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layer(inputs, training=True))


def nested() -> Any:
    inner = keras.Sequential([keras.Input(SHAPE), layers.Dropout(0.4)], name="inner")
    return sequence(inner)


RANDOM = {
    "dropout": lambda: sequence(layers.Dropout(0.4)),
    "spatial": lambda: sequence(layers.SpatialDropout1D(0.4)),
    "alpha": lambda: sequence(layers.AlphaDropout(0.4)),
    "gaussian": lambda: sequence(layers.GaussianDropout(0.4)),
    "noise": lambda: sequence(layers.GaussianNoise(0.4)),
    "lstm": lambda: sequence(layers.LSTM(5, dropout=0.4)),
    "recurrent": lambda: sequence(layers.GRU(5, recurrent_dropout=0.4)),
    "bidirectional": lambda: sequence(layers.Bidirectional(layers.LSTM(5, dropout=0.4))),
    "every_step": lambda: sequence(layers.TimeDistributed(layers.Dropout(0.4))),
    "nested": nested,
}
# Their calls are in training mode unless an argument says otherwise.
RANDOM_BY_DEFAULT = {
    "flip": layers.RandomFlip,
    "rotation": lambda: layers.RandomRotation(0.5),
    "brightness": lambda: layers.RandomBrightness(0.5),
}
NOT_RANDOM = {
    "rate_zero": lambda: sequence(layers.Dropout(0.0)),
    "lstm": lambda: sequence(layers.LSTM(5)),
    "inference": lambda: keras.Sequential([keras.Input(SHAPE), layers.Dropout(0.4)]),
}


def notes(model: Any, folder: Path) -> tuple[str, ...]:
    model.save(folder / "m.keras")
    return load_model(audit_file(folder / "m.keras")).notes


def is_random(model: Any) -> bool:
    """Whether outputs differ between calls; a flip of few images may repeat by chance."""
    shape = (16, *model.inputs[0].shape[1:])
    x = np.random.default_rng(1).uniform(0.1, 0.9, shape).astype("float32")
    first = np.asarray(model(x))
    return any(not np.array_equal(first, np.asarray(model(x))) for _ in range(4))


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_layer_at_inference_is_noted(name: str, tmp_path: Path) -> None:
    model = RANDOM[name]()
    assert is_random(model)
    (note,) = notes(model, tmp_path)
    assert "called with training=True, so the model's own outputs are random" in note
    assert note.startswith(f"{model.layers[1].name}: ")


@pytest.mark.parametrize("name", list(RANDOM_BY_DEFAULT))
def test_layer_that_is_random_by_default_is_noted(name: str, tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, RANDOM_BY_DEFAULT[name]()(inputs))
    assert is_random(model)
    (note,) = notes(model, tmp_path)
    assert note.startswith(
        f"{model.layers[1].name}: random unless it is called with training=False"
    )


@pytest.mark.parametrize("name", list(NOT_RANDOM))
def test_layer_that_is_not_random_is_not_noted(name: str, tmp_path: Path) -> None:
    model = NOT_RANDOM[name]()
    assert not is_random(model)
    assert notes(model, tmp_path) == ()


def test_normalization_by_the_batch_is_noted(tmp_path: Path) -> None:
    model = sequence(layers.BatchNormalization())
    (note,) = notes(model, tmp_path)
    assert "depend on the other samples of a batch" in note


OWN = """
import keras

class Sampled(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))

class Plain(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

class AlwaysDropped(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.drop(x, training=True)

class Generator(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)
"""


def save_own(name: str, folder: Path) -> Any:
    """Write a model with a class of ``OWN``, and return the model."""
    (folder / "own.py").write_text(OWN)
    classes: dict[str, Any] = {"__name__": "own"}
    exec(OWN, classes)
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, classes[name](name="mine")(inputs))
    model.save(folder / "m.keras")
    return model


@pytest.mark.parametrize(
    ("name", "random"),
    [("Sampled", True), ("AlwaysDropped", True), ("Generator", True), ("Plain", False)],
)
def test_own_layer_that_draws_random_numbers(name: str, random: bool, tmp_path: Path) -> None:
    model = save_own(name, tmp_path)
    x = np.random.default_rng(1).normal(size=(2, *SHAPE))
    assert np.array_equal(model(x, training=False), model(x, training=False)) is not random
    expected = (
        pytest.raises(UnsupportedModelError, match=r"random numbers at inference .*: mine\)")
        if random
        else contextlib.nullcontext()
    )
    with expected:
        loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
        assert loaded.notes == ()


def test_own_function_that_draws_random_numbers(tmp_path: Path) -> None:
    """As a variational autoencoder of Keras 2 samples, with a variable of its program."""
    code = """
        from keras import backend as K
        WIDTH = 4

        def sampling(arguments):
            mean, scale = arguments
            return mean + K.exp(scale) * K.random_normal((K.shape(mean)[0], WIDTH))
    """
    program: dict[str, Any] = {"K": tf_keras.backend, "WIDTH": 4}
    exec(textwrap.dedent(code).replace("from keras import backend as K", ""), program)
    inputs = tf_keras.Input(SHAPE)
    # Until Keras 2.2, that of every LSTM; it draws none.
    states = tf_keras.layers.LSTM(4, recurrent_activation="hard_sigmoid")(inputs)
    drawn = tf_keras.layers.Lambda(program["sampling"], name="drawn")([states, states])
    tf_keras.Model(inputs, drawn).save(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(f"{textwrap.dedent(code)}\ndrawn = sampling\n")
    file = audit_file(tmp_path / "m.h5", trust=digest(tmp_path / "m.h5"))
    with pytest.raises(UnsupportedModelError, match=r"random numbers at inference .*: drawn\)"):
        load_model(file, custom_objects=tmp_path / "own.py")


def test_stored_code_that_draws_random_numbers(tmp_path: Path) -> None:
    """As in variational autoencoders of keras.io; a function that returns the mean replaces it."""
    program: dict[str, Any] = {"K": tf_keras.backend}
    code = """
        def sampling(arguments):
            mean, scale = arguments
            noise = K.random_normal(shape=(K.shape(mean)[0], K.int_shape(mean)[1]))
            return mean + K.exp(0.5 * scale) * noise
    """
    exec(textwrap.dedent(code), program)
    inputs = tf_keras.Input(SHAPE)
    states = tf_keras.layers.LSTM(4)(inputs)
    drawn = tf_keras.layers.Lambda(program["sampling"], name="drawn")([states, states])
    tf_keras.Model(inputs, drawn).save(tmp_path / "m.h5")
    with pytest.raises(UnsafeModelError, match="which draws random numbers") as error:
        load_model(audit_file(tmp_path / "m.h5"))
    assert "by something without random numbers, such as the mean, and" in str(error.value.hint)
    (tmp_path / "own.py").write_text("def drawn(arguments):\n    return arguments[0]\n")
    file = audit_file(tmp_path / "m.h5", trust=digest(tmp_path / "m.h5"))
    loaded = load_model(file, custom_objects=tmp_path / "own.py")
    x = np.random.default_rng(3).normal(size=(2, *SHAPE)).astype("float32")
    means = tf_keras.Model(inputs, states)(x)
    np.testing.assert_allclose(loaded.model(x), means, atol=1e-6)


BY_DEFAULT = """
from tensorflow import keras
from tensorflow.keras import layers

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(6, activation="tanh")
        self.trained = layers.{layer}
        self.head = layers.Dense(3)

    def call(self, x, training=True):
        return self.head(self.trained(self.hidden(x), training=training))

def build():
    return Net()
"""


@pytest.mark.compared
@pytest.mark.parametrize(
    ("layer", "start"),
    [
        pytest.param(
            "Dropout(0.5)",
            "random unless it is called with training=False",
            marks=pytest.mark.long,
        ),
        ("BatchNormalization()", "its outputs depend on the other samples of a batch unless"),
    ],
)
def test_programs_that_train_by_default_are_compared(
    layer: str, start: str, tmp_path: Path
) -> None:
    """``predict`` of Keras 2 calls the model in inference mode."""
    program = BY_DEFAULT.format(layer=layer)
    x = np.random.default_rng(2).normal(size=(9, 4)).astype("float32")
    model = run_in_tf_keras(program)["build"]()
    model(x)
    for weight in model.weights:
        weight.assign(np.random.default_rng(3).uniform(0.2, 1, weight.shape))
    assert not np.allclose(model(x), model.predict(x, verbose=0), atol=1e-3)
    model.save_weights(tmp_path / "w.h5")
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "own.py").write_text(program)
    loaded = load_model(
        audit_file(tmp_path / "w.h5"),
        architecture=f"{tmp_path}/own.py:build",
        samples=tmp_path / "x.npz",
    )
    expected = model.predict(x, verbose=0)
    actual = np.asarray(loaded.model(x, training=False))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    (note,) = [note for note in loaded.notes if "training" in note]
    assert note.partition(": ")[2].startswith(start)
