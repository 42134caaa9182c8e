"""Weights of Keras 2 in the places where tf_keras loads them, if their order is another one."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.weights.attribute_graph import counterparts
from edgeattn_converters.loading.with_tf_keras import (
    graph_of_tf_keras,
    tf_keras_assignments,
    tf_keras_check,
    weights_of_tf_keras,
)
from edgeattn_converters.loading.with_tf_keras.tf_keras_worker import NotLoadedError

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


class Restored(layers.Wrapper):
    def owner(self):
        return getattr(self.layer, "cell", self.layer)

    def build(self, shape=None):
        if not self.layer.built:
            self.layer.build(shape)
        size = int(self.owner().kernel.shape[-1])
        self.g = self.add_weight(name="g", shape=(size,), initializer="ones")
        self.built = True

    def call(self, x):
        kernel = self.owner().kernel
        self.owner().kernel = tf.nn.l2_normalize(kernel, axis=0) * self.g
        y = self.layer(x)
        self.owner().kernel = kernel
        return y


class OfAddons(Restored):
    def build(self, shape=None):
        super().build(shape)
        self.v = self.layer.kernel

    def call(self, x):
        with tf.name_scope("compute_weights"):
            self.layer.kernel = tf.nn.l2_normalize(self.v, axis=0) * tf.identity(self.g)
            with tf.control_dependencies([tf.identity(self.layer.kernel)]):
                return self.layer(x)


class Block(keras.Sequential):
    def __init__(self, units):
        super().__init__()
        self.add(Restored(layers.Dense(units)))
        self.add(layers.Dense(units))


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.rest = [Restored(layers.GRU(6, return_sequences=True)) for _ in range(2)]
        self.heads = {"a": (layers.Dense(6), Block(6)), "b": keras.Sequential([layers.Dense(6)])}

    def call(self, x):
        for layer in self.rest:
            x = layer(x)
        first, second = self.heads["a"]
        return first(x) + second(x) - self.heads["b"](x)


def model(layer):
    x = keras.Input((5, 6))
    return keras.Model(x, layers.Dense(2)(layer(x)))


def convolution():
    return model(Restored(layers.Conv1D(4, 3)))


def recurrent():
    return model(Restored(layers.LSTM(6)))


def square():
    return model(Restored(layers.GRU(6, use_bias=False)))


class Doubled(layers.Dense):
    def build(self, shape):
        super().build(shape)
        self.other = self.add_weight(name="other", shape=(6, 6))

    def call(self, x):
        return super().call(x @ self.other)


def squares():
    return model(Restored(Doubled(6)))


def addons():
    return model(OfAddons(layers.Conv1D(4, 3)))


def twice():
    return model(keras.Sequential([Restored(layers.Dense(6)), OfAddons(layers.Dense(6))]))


def nested():
    x, z = keras.Input((5, 6)), keras.Input((5, 6))
    inner = keras.Model(z, Restored(layers.Dense(6))(OfAddons(layers.Dense(6))(z)))
    twice = keras.Model(x, inner(inner(x)))
    y = keras.Input((5, 6))
    shared, inside = Restored(layers.Dense(6)), Restored(layers.Dense(6))
    return keras.Model(y, twice(layers.TimeDistributed(inside)(shared(shared(y)))))


def subclass():
    return Net()
"""
NAMES = ("convolution", "recurrent", "square", "squares", "addons", "twice", "nested")
NOTE = "The weights were assigned as tf_keras"


def saved(name: str, path: Path, stored: str) -> tuple[Any, Any]:
    """Save a model of the program, with random weights, and return samples with its outputs."""
    model, generator = run_in_tf_keras(PROGRAM)[name](), np.random.default_rng(2)
    x = generator.normal(size=(8, 5, 6)).astype("float32")
    model(x)
    model.set_weights([generator.uniform(0.2, 1, size=w.shape) for w in model.get_weights()])
    (model.save_weights if stored == "weights" else model.save)(path)
    return x, np.asarray(model(x))


def options(folder: Path, name: str, stored: str) -> dict[str, Any]:
    own = folder / "own.py"
    own.write_text(PROGRAM)
    return {"architecture": f"{own}:{name}"} if stored == "weights" else {"custom_objects": own}


@pytest.mark.compared
@pytest.mark.parametrize("name", only(NAMES, "addons"))
@pytest.mark.parametrize("file", only(("m.h5", "m.weights.h5", "whole.h5", "whole.keras"), "m.h5"))
def test_weights_are_in_the_places_of_tf_keras(name: str, file: str, tmp_path: Path) -> None:
    stored = "model" if file.startswith("whole") else "weights"
    x, expected = saved(name, tmp_path / file, stored)
    if (name, file) == ("square", "m.weights.h5"):
        # Keras 3 assigns them, in another order, and the file may be one of Keras 3.
        with pytest.raises(UnsupportedModelError, match="does not contain its Keras version"):
            load_model(audit_file(tmp_path / file), **options(tmp_path, name, stored))
        return
    loaded = load_model(audit_file(tmp_path / file), **options(tmp_path, name, stored))
    np.testing.assert_allclose(loaded.model(x), expected, rtol=1e-4, atol=1e-5)
    moved = name != "addons" or file in ("m.weights.h5", "whole.keras")
    assert any(NOTE in note for note in loaded.notes) == moved


@pytest.mark.compared
def test_weights_with_the_same_shape_are_not_swapped(tmp_path: Path) -> None:
    x, expected = saved("square", tmp_path / "m.h5", "weights")
    loaded = load_model(audit_file(tmp_path / "m.h5"), **options(tmp_path, "square", "weights"))
    np.testing.assert_allclose(loaded.model(x), expected, rtol=1e-4, atol=1e-5)
    assert any(NOTE in note for note in loaded.notes)


@pytest.mark.long
@pytest.mark.compared
@pytest.mark.parametrize("file", ["m.h5", "m.weights.h5"])
def test_lists_and_dictionaries_lead_to_weights(file: str, tmp_path: Path) -> None:
    x, expected = saved("subclass", tmp_path / file, "weights")
    np.savez(tmp_path / "x.npz", x=x)
    loaded = load_model(
        audit_file(tmp_path / file),
        samples=tmp_path / "x.npz",
        **options(tmp_path, "subclass", "weights"),
    )
    np.testing.assert_allclose(loaded.model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.compared
def test_weights_of_another_program_are_an_error(tmp_path: Path) -> None:
    saved("recurrent", tmp_path / "m.h5", "weights")
    with pytest.raises(UnsupportedModelError, match="has 3 weight arrays"):
        load_model(audit_file(tmp_path / "m.h5"), **options(tmp_path, "convolution", "weights"))


REASONS = {
    "convolution": r"has weights of shape \(3, 6, 4\)",
    "square": r"Several have the shape \(6, 18\)",
    "squares": r"has weights of shape \(6, 6\)",
}


IN_LISTS = """
from tensorflow import keras
from tensorflow.keras import layers


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.parts = [[layers.LayerNormalization(), layers.Dense(4)] for _ in range(2)]

    def call(self, x):
        for norm, dense in self.parts:
            x = x + dense(norm(x))
        return x


def build():
    x = keras.Input((3, 4))
    return keras.Model(x, layers.Dense(2)(Block()(x)))
"""


@pytest.mark.compared
@pytest.mark.parametrize("name", only(["m.weights.h5", "m.h5"], "m.weights.h5"))
def test_layers_that_keras_2_does_not_save(name: str, tmp_path: Path) -> None:
    """Layers of a list in a list are in no group of objects, and tf_keras does not miss them."""
    build = run_in_tf_keras(IN_LISTS)["build"]
    model, other = build(), build()
    generator = np.random.default_rng(7)
    x = generator.normal(size=(2, 3, 4)).astype("float32")
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    path = tmp_path / name
    model.save_weights(path)
    other.load_weights(path)
    has_all = np.allclose(other(x), model(x), atol=1e-5)
    assert has_all == (name == "m.h5")
    (tmp_path / "own.py").write_text(IN_LISTS)
    load = partial(load_model, audit_file(path), architecture=f"{tmp_path}/own.py:build")
    if has_all:
        np.testing.assert_allclose(load().model(x), model(x), rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(UnsupportedModelError, match="none for 8 of 10 variables either") as error:
        load()
    assert "model.save_weights('model.h5')" in str(error.value.hint)


@pytest.mark.compared
@pytest.mark.parametrize("name", only(REASONS, "square"))
def test_a_model_that_is_not_compared_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise tf_keras_check.NotComparedError("it fails")

    saved(name, tmp_path / "m.h5", "weights")
    monkeypatch.setattr(tf_keras_check, "_answer", fail)
    monkeypatch.setattr(graph_of_tf_keras, "load_graph", lambda *_: None)
    with pytest.raises(UnsupportedModelError, match=REASONS[name]):
        load_model(audit_file(tmp_path / "m.h5"), **options(tmp_path, name, "weights"))


@pytest.mark.compared
@pytest.mark.parametrize("version", only(["2.3.1", "2.2.4"], "2.2.4"))
def test_keras_without_tensorflow_has_its_own_order(version: str, tmp_path: Path) -> None:
    import h5py

    saved("convolution", tmp_path / "m.h5", "weights")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = version.encode()
    with pytest.raises(UnsupportedModelError, match="has weights of shape"):
        load_model(audit_file(tmp_path / "m.h5"), **options(tmp_path, "convolution", "weights"))


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_in_another_order_than_their_names(frozen: bool, tmp_path: Path) -> None:
    """tf_keras would assign the weights of a layer that was frozen to another one."""
    import tf_keras

    def build(*, trainable: bool) -> Any:
        layers = tf_keras.layers
        parts = [layers.Dense(3, trainable=trainable), layers.LayerNormalization(center=False)]
        x = tf_keras.Input((3,))
        return tf_keras.Model(x, tf_keras.Sequential(parts)(x))

    build(trainable=not frozen).save_weights(tmp_path / "m.h5")
    expected = pytest.raises(NotLoadedError, match="in another order") if frozen else nullcontext()
    with expected:
        tf_keras_assignments._require_order(str(tmp_path / "m.h5"), build(trainable=True))


def test_counterparts() -> None:
    # The kernel of the inner layer is only in an attribute of the outer one in the other graph.
    ours = [{"layers#0": 1, "layers:a": 1}, {"layer": 2, "v": -1}, {"kernel": -1, "bias": -2}]
    theirs = [{"layers#0": 1, "layers:b": 1, "layers:a": 2}, {"layer": 3, "v": -3}, {"v": -4},
              {"bias": -2}]  # fmt: skip
    assert counterparts(ours, theirs) == {0: {2}, 1: {1}}
    # Two variables at the places of one.
    theirs[3]["kernel"] = -5
    assert counterparts(ours, theirs) == {0: {2, 4}, 1: {1}}
    assert counterparts([{"a": 0, "b": -1}], [{"a": 0, "b": -1}]) == {0: {0}}


def test_each_variable_needs_one_value() -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    kernel, bias = np.ones((2, 3), "float32"), np.ones(3, "float32")

    def pairs(edges: Any, weights: set[int], values: Any) -> Any:
        answer = weights_of_tf_keras._Answer("2", edges, frozenset(weights), values)
        return weights_of_tf_keras._pairs(model, answer)

    edges = [{"layers#0": 1}, {"kernel": -1, "bias": -2}]
    assert len(pairs(edges, {0, 1}, {0: kernel, 1: bias})) == 2
    assert pairs(edges, {0, 1}, {0: kernel}) is None  # not from the file
    assert pairs(edges, {0, 1}, {0: kernel.T, 1: bias}) is None
    assert pairs(edges, {0, 1, 2}, {0: kernel, 1: bias, 2: bias}) is None  # one is left over
    assert pairs([{"layers#0": 1}, {"kernel": -1}], {0}, {0: kernel}) is None
