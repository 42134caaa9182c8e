"""Weights of Keras 2 in programs: layers have the order of Keras 2, whose paths have no masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
from tensorflow import keras
from tensorflow.keras import layers

def merged():
    a, b = keras.Input((7,)), keras.Input((7,))
    x = layers.Embedding(12, 4, mask_zero=True)(a)
    y = layers.Embedding(12, 4, mask_zero=True)(b)
    z = layers.Embedding(12, 4)(b)
    both = layers.Concatenate()([x, z])
    joined = layers.Concatenate(axis=1)([x, y])
    return keras.Model([a, b], [layers.LSTM(3)(both), layers.GRU(3)(joined)])

def tagger():
    a, b = keras.Input((7,)), keras.Input((7,))
    words = layers.Dense(4)(layers.Embedding(12, 4, mask_zero=True)(a))
    tags = layers.Dense(4)(layers.Embedding(12, 4)(b))
    both = layers.Concatenate()([tags, words])
    return keras.Model([a, b], layers.Bidirectional(layers.LSTM(3))(both))

def nested():
    inner = merged()
    a, b = keras.Input((7,)), keras.Input((7,))
    return keras.Model([a, b], layers.Dense(2)(layers.Add()(inner([a, b]))))

class Scale(layers.Layer):
    def call(self, x):
        return 2.0 * x

def with_a_class():
    inner = merged()
    a, b = keras.Input((7,)), keras.Input((7,))
    return keras.Model([a, b], Scale()(layers.Add()(inner([a, b]))))
"""
NAMES = ("merged", "tagger", "nested", "with_a_class")


def saved(name: str, suffix: str, folder: Path) -> Any:
    """Save the program and the weights of its model in tf_keras; return the model."""
    program = run_in_tf_keras(PROGRAM)
    tf_keras.layers.Embedding(2, 2)  # the next one has another name than in the program
    tf_keras.layers.LSTM(2)
    model = program[name]()
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(folder / f"m{suffix}")
    (folder / "program.py").write_text(PROGRAM)
    return model


@pytest.mark.long
@pytest.mark.parametrize("name", only(NAMES, "merged"))
def test_weights_of_layers_with_masks(name: str, tmp_path: Path) -> None:
    model = saved(name, ".h5", tmp_path)
    tokens = np.random.default_rng(2).integers(1, 12, size=(2, 5, 7)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path}/program.py:{name}")
    expected = model(list(tokens))
    for one, other in zip(listed(loaded.model(list(tokens))), listed(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("not_compared")
@pytest.mark.parametrize("name", only(NAMES))
def test_a_note_says_that_the_order_depends_on_the_version(name: str, tmp_path: Path) -> None:
    """Files of Keras 3 and tf_keras with weights only are the same."""
    saved(name, ".weights.h5", tmp_path)
    file = audit_file(tmp_path / "m.weights.h5")
    loaded = load_model(file, architecture=f"{tmp_path}/program.py:{name}")
    assert any("Keras 2 would assign others" in note for note in loaded.notes)


def listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]


FROZEN = """
from tensorflow import keras
from tensorflow.keras import layers

class Groups(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"z": layers.Dense(3), "a": [layers.Dense(3), layers.BatchNormalization()]}
        self.last = [layers.Dense(3), {"q": layers.Dense(3), "c": layers.Dense(3)}]

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(3,))
        self.offset = self.add_weight(name="offset", shape=(3,), trainable=False)
        super().build(shape)

    def call(self, x):
        y = self.parts["a"][1](self.parts["a"][0](x)) - self.parts["z"](x) * self.scale
        y = self.last[1]["q"](self.last[0](y)) + self.offset
        return self.last[1]["c"](y)

def model(frozen=True, inside=False):
    x = keras.Input((3,))
    layer = Groups()
    y = layer(x)
    layer.trainable = not frozen
    if inside:
        layer.parts["a"][0].trainable = layer.parts["a"][1].trainable = False
    return keras.Model(x, y)

def frozen():
    return model()

def partly():
    return model(frozen=False, inside=True)
"""


@pytest.mark.parametrize("name", only(("frozen", "partly"), "frozen"))
def test_weights_of_frozen_layers_of_the_user(name: str, tmp_path: Path) -> None:
    program = run_in_tf_keras(FROZEN)
    model, generator = program[name](), np.random.default_rng(1)
    model.set_weights([generator.uniform(0.2, 2, size=a.shape) for a in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "program.py").write_text(FROZEN)
    x = generator.normal(size=(5, 3)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path}/program.py:{name}")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)
