"""Classes of the user that copy a layer in their constructor, as wrappers for several heads do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class Heads(layers.Layer):
    def __init__(self, layer, heads=3, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.layer = layer
        self.heads = heads
        self.parts = []
        for index in range(heads):
            config = layer.get_config()
            config["name"] = f"{layer.name}_{index + 1}"
            self.parts.append(type(layer).from_config(config))

    def build(self, input_shape):
        for part in self.parts:
            with tf.name_scope(part.name):  # an HDF5 file needs different names
                part.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, mask=None):
        named = {} if mask is None else {"mask": mask}
        return tf.stack([part(inputs, **named) for part in self.parts], axis=-1)

    def compute_output_shape(self, shape):
        return (*self.parts[0].compute_output_shape(shape), self.heads)

    def compute_mask(self, inputs, mask=None):
        return mask

    def get_config(self):
        layer = keras.layers.serialize(self.layer)
        return {**super().get_config(), "layer": layer, "heads": self.heads}

    @classmethod
    def from_config(cls, config):
        return cls(keras.layers.deserialize(config.pop("layer")), **config)

def parts():
    lstm = layers.LSTM(2, return_sequences=True)
    both = layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="sum")
    return {
        "both directions": layers.Bidirectional(lstm),
        "two in one": layers.Bidirectional(layers.RNN(
            [layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True)),
        "over time": layers.TimeDistributed(layers.Dense(3)),
        "cells": layers.RNN([layers.GRUCell(2), layers.GRUCell(2)], return_sequences=True),
        "heads of heads": Heads(both, heads=2),
    }

def build(name):
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    return keras.Model(tokens, Heads(parts()[name])(x))

def both_directions():
    return build("both directions")

def heads_of_heads():
    return build("heads of heads")
"""
KINDS = ["both directions", "two in one", "over time", "cells", "heads of heads"]
OF_KERAS_3 = ["both directions", "two in one", "cells", "over time"]
TOKENS = np.array([[3, 1, 4, 0, 0], [0, 0, 0, 0, 0], [5, 8, 2, 6, 7]], dtype="int32")


def _set_random(model: Any) -> None:
    generator = np.random.default_rng(7)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.6, variable.shape))


def _model_of_tf_keras(kind: str) -> Any:
    model = run_in_tf_keras(PROGRAM)["build"](kind)
    _set_random(model)
    return model


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("kind", only(KINDS, "over time"))
def test_copies_in_files_of_tf_keras(kind: str, suffix: str, tmp_path: Path) -> None:
    """Keras lets parts of a copy share the layers of the copy before it, when it loads a file."""
    model = _model_of_tf_keras(kind)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    (tmp_path / "own.py").write_text(PROGRAM)
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py").model
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["both_directions", "heads_of_heads"])
@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5"])
def test_weights_of_copies(name: str, kind: str, tmp_path: Path) -> None:
    model = _model_of_tf_keras(kind.replace("_", " "))
    model.save_weights(tmp_path / name)
    (tmp_path / "own.py").write_text(PROGRAM)
    path = f"{tmp_path}/own.py:{kind}"
    loaded = load_model(audit_file(tmp_path / name), architecture=path).model
    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("kind", only(OF_KERAS_3, "both directions"))
def test_copies_in_files_of_keras_3(kind: str, suffix: str, tmp_path: Path) -> None:
    """Keras 3 itself does not load the ``.keras`` file of both directions."""
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    program = PROGRAM.replace("from tensorflow import keras", "import keras")
    program = program.replace("from tensorflow.keras import", "from keras import")
    exec(program, names)
    model = names["build"](kind)
    _set_random(model)
    model.save(tmp_path / f"m{suffix}")
    (tmp_path / "own.py").write_text(program)
    file = audit_file(tmp_path / f"m{suffix}")
    loaded = load_model(file, custom_objects=tmp_path / "own.py").model
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


# As in keras-multi-head 0.29: a list of layers in the config, of which the attribute has the first.
LISTS = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class MultiHead(layers.Wrapper):
    def __init__(self, layer, layer_num=1, **kwargs):
        self.layers = layer if type(layer) is list else []
        self.layer_num = len(self.layers) or layer_num
        self.layer = layer[0] if self.layers else layer
        super().__init__(self.layer, **kwargs)

    def build(self, input_shape):
        if isinstance(input_shape, list):
            raise ValueError("one input only")
        if not self.layers:
            self.layer.build(input_shape)
            config = self.layer.get_config()
            self.layers = [
                type(self.layer).from_config({**config, "name": f"{config['name']}_{i + 1}"})
                for i in range(self.layer_num)
            ]
        for i, layer in enumerate(self.layers):
            with tf.name_scope(f"sub_{i}"):
                layer.build(input_shape)
        super().build(input_shape)

    def call(self, x):
        return tf.stack([layer.call(x) for layer in self.layers], axis=-1)

    def compute_output_shape(self, shape):
        return (*self.layers[0].compute_output_shape(shape), self.layer_num)

    def get_config(self):
        parts = [{"class_name": type(p).__name__, "config": p.get_config()} for p in self.layers]
        config = {**super().get_config(), "layers": parts}
        config.pop("layer")
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = config.pop("layers")
        return cls([layers.deserialize(p, custom_objects=custom_objects) for p in parts], **config)
"""
BESIDE = ["dense.keras", "lstm.keras", "list.keras", "list.h5"]


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("name", only(BESIDE, "dense.keras"))
def test_copies_beside_the_layer_that_was_copied(name: str, tmp_path: Path) -> None:
    """The file of one layer has its weights, which no output depends on, and those of the copies.

    Classes may also tell several inputs from one by a list, in place of a shape.
    """
    layers = tf_keras.layers
    x = tf_keras.Input((5, 4))
    given: dict[str, Any] = {
        "dense": layers.Dense(3),
        "lstm": layers.LSTM(3),
        "list": [layers.Conv1D(3, 1, padding="same"), layers.Conv1D(3, 3, padding="same")],
    }
    model = tf_keras.Model(
        x, run_in_tf_keras(LISTS)["MultiHead"](given[Path(name).stem], layer_num=2)(x)
    )
    _set_random(model)
    model.save(tmp_path / name)
    (tmp_path / "own.py").write_text(LISTS)
    file = audit_file(tmp_path / name)
    loaded = load_model(file, custom_objects=tmp_path / "own.py").model
    samples = np.random.default_rng(4).normal(size=(3, 5, 4)).astype("float32")
    np.testing.assert_allclose(loaded(samples), model(samples), rtol=1e-4, atol=1e-5)


OWN = """
import keras

class Twice(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        first = keras.layers.{layer}
        self.parts = [first, first if {shared} else keras.layers.{layer}]

    def build(self, shape):
        for part in self.parts:
            if not part.built:
                part.build(shape)

    def call(self, x):
        return self.parts[0](x) - 2.0 * self.parts[1](x)
"""
PARTS = ["Dense(4)", "LayerNormalization()"]


def _save_twice(path: Path, layer: str, *, shared: bool) -> Any:
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(OWN.format(layer=layer, shared=shared), names)
    x = keras.Input((4,))
    model = keras.Model(x, names["Twice"]()(x))
    _set_random(model)
    model.save(path)
    return model


@pytest.mark.parametrize("layer", PARTS)
def test_one_layer_for_two_of_the_file_is_refused(layer: str, tmp_path: Path) -> None:
    """The class of the file has two layers, and one would get the weights of the other."""
    _save_twice(tmp_path / "m.keras", layer, shared=False)
    (tmp_path / "own.py").write_text(OWN.format(layer=layer, shared=True))
    with pytest.raises(UnsupportedModelError, match="several times, with different weights"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")


@pytest.mark.parametrize("layer", only(PARTS, "Dense(4)"))
def test_one_layer_that_is_used_twice(layer: str, tmp_path: Path) -> None:
    model = _save_twice(tmp_path / "m.keras", layer, shared=True)
    (tmp_path / "own.py").write_text(OWN.format(layer=layer, shared=True))
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py").model
    x = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_tf_keras_loads_the_copies_one_by_one(tmp_path: Path) -> None:
    """Which the tests above expect."""
    model = _model_of_tf_keras("both directions")
    model.save(tmp_path / "m.keras")
    objects = {"Heads": type(model.layers[-1])}
    again = tf_keras.models.load_model(tmp_path / "m.keras", custom_objects=objects)
    np.testing.assert_allclose(again(TOKENS), model(TOKENS), rtol=1e-6)
