"""Models that programs and classes for Keras 2 create with a list of one tensor.

In Keras 2, such a model returns a tensor; in Keras 3, a list of one.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(9).normal(size=(5, 3, 4)).astype("float32")
PROGRAM = """
from tensorflow import keras
from tensorflow.keras.layers import Add, Dense, Input, Lambda, Layer, TimeDistributed
from tensorflow.keras.models import Model, Sequential


def encoder(*args, **named):
    x = Input((3, 4))
    return Model([x], [Dense(3)(x)])


def called():
    encode, a = encoder(), Input((3, 4))
    return Model([a], [Add()([encode(a), Lambda(lambda t: -t * t)(encode(a))])])


def named():
    a, b = Input((3, 4)), Input((3, 4))
    encode = Model(inputs=[a], outputs=[Dense(3)(a)])
    return Model(inputs=[b], outputs=[2 * encode(b) + 1])


class Encoder(Model):
    def __init__(self):
        x = Input((3, 4))
        super().__init__(inputs=[x], outputs=[Dense(3)(x)])


def derived():
    a = Input((3, 4))
    return Model(a, Lambda(lambda t: t[:, 1:] * 2)(Encoder()(a)))


def continued():
    encode = encoder()
    return Model(encode.input, Lambda(lambda t: t + 1)(encode.output))


def over_time():
    x = Input((4,))
    step = Model([x], [Dense(3)(x)])
    a = Input((3, 4))
    return Model(a, Lambda(lambda t: t / 2)(TimeDistributed(step)(a)))


def in_sequential():
    return Sequential([encoder(), Lambda(lambda t: t * 3)])


class Block(Layer):
    def build(self, shape):
        x = Input(shape[1:])
        self.encode = Model([x], [Dense(3)(x)])
        super().build(shape)

    def call(self, x):
        return self.encode(x) * self.encode(x)


def in_class():
    a = Input((3, 4))
    return Model([a], [Dense(2)(Block()(a))])
"""
KINDS = ["called", "named", "derived", "continued", "over_time", "in_sequential", "in_class"]


def _saved(kind: str, path: Path, *, weights_only: bool) -> np.ndarray:
    """Save a model with random weights and return what it computes for ``X``."""
    model = run_in_tf_keras(PROGRAM)[kind]()
    generator = np.random.default_rng(8)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    (model.save_weights if weights_only else model.save)(path)
    (path.parent / "own.py").write_text(PROGRAM)
    return np.asarray(model(X))


@pytest.mark.long
@pytest.mark.parametrize("version", only(["2.0.4", "2.3.1", "2.9.0"], "2.0.4"))
@pytest.mark.parametrize("kind", KINDS)
def test_programs(kind: str, version: str, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    expected = _saved(kind, path, weights_only=True)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = version.encode()
    loaded = load_model(audit_file(path), architecture=f"{tmp_path}/own.py:{kind}")
    assert not loaded.is_graph
    np.testing.assert_allclose(np.asarray(loaded.model(X)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("name", only(["m.h5", "m.keras"], "m.keras"))
def test_classes_of_files(name: str, tmp_path: Path) -> None:
    expected = _saved("in_class", tmp_path / name, weights_only=False)
    loaded = load_model(audit_file(tmp_path / name), custom_objects=tmp_path / "own.py")
    assert not loaded.is_graph
    np.testing.assert_allclose(np.asarray(loaded.model(X)), expected, rtol=1e-4, atol=1e-5)


def test_arguments_of_keras_1(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    expected = _saved("named", path, weights_only=True)
    program = PROGRAM.replace("inputs=", "input=").replace("outputs=", "output=")
    (tmp_path / "own.py").write_text(program)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = b"1.2.2"
    loaded = load_model(audit_file(path), architecture=f"{tmp_path}/own.py:named")
    np.testing.assert_allclose(np.asarray(loaded.model(X)), expected, rtol=1e-4, atol=1e-5)


def test_programs_for_keras_3_get_a_list(tmp_path: Path) -> None:

    program = PROGRAM.replace("encode.output)", "encode(encode.input)[0])")
    program = program.replace("from tensorflow.keras", "from keras").replace(
        "from tensorflow import keras", "import keras"
    )
    names: dict = {"__name__": "of_keras_3"}
    exec(program, names)
    model = names["continued"]()
    model.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in model.weights])
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    (tmp_path / "own.py").write_text(program)
    loaded = load_model(audit_file(path), architecture=f"{tmp_path}/own.py:continued")
    np.testing.assert_allclose(
        np.asarray(loaded.model(X)), np.asarray(model(X)), rtol=1e-4, atol=1e-5
    )
