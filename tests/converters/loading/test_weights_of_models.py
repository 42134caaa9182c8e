"""Weights of subclassed models of Keras 2: those of the model itself, and the order of its layers.

Keras 2 stores the former beside those of the layers, and sorts layers in a dictionary by their key.
"""

from pathlib import Path
from typing import Any

import h5py
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
import keras
from keras import layers

class Scaled(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, x):
        return self.dense(x) * self.scale

class Shifted(Scaled):
    def __init__(self):
        super().__init__()
        self.shift = tf.Variable([0.0, 1.0, 2.0], name="shift")

    def call(self, x):
        return super().call(x) + self.shift

class Frozen(Scaled):
    def __init__(self):
        super().__init__()
        self.mean = self.add_weight(name="mean", shape=(4,), trainable=False)
        self.token = self.add_weight(name="token", shape=(4,))

    def call(self, x):
        return super().call(x - self.mean + self.token)

class Heads(keras.Model):
    def __init__(self):
        super().__init__()
        self.heads = {"z": layers.Dense(4), "a": layers.Dense(4)}

    def call(self, x):
        return self.heads["z"](x) - 2 * self.heads["a"](x)

class Blocks(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = []
        self.last = layers.Dense(4)
        self.parts = {"b": [layers.Dense(4), layers.Dense(4)], "a": {"y": layers.Dense(4)}}
        self.blocks.append(layers.Dense(4))

    def call(self, x):
        x = self.blocks[0](x) - 2 * self.parts["a"]["y"](x)
        for layer in self.parts["b"]:
            x = layer(x)
        return self.last(x)
"""
CLASSES = ("Scaled", "Shifted", "Frozen")


def _saved(name: str, path: Path) -> tuple[Any, Any]:
    """Save the weights of a model of tf_keras with random values; return inputs and outputs."""
    program: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM.replace("import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"),
         program)  # fmt: skip
    generator = np.random.default_rng(5)
    x = generator.normal(size=(5, 4)).astype("float32")
    # Other numbers in the names of the layers than if the program runs again.
    program["layers"].Dense(1)(program["keras"].Input((2,)))
    model = program[name]()
    model(x)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(path)
    (path.parent / "program.py").write_text(PROGRAM)
    np.savez(path.parent / "samples.npz", x=x)
    return x, np.asarray(model(x))


def _loaded(name: str, folder: Path) -> Any:
    return load_model(
        audit_file(folder / "m.h5"),
        architecture=f"{folder / 'program.py'}:{name}",
        samples=folder / "samples.npz",
    ).model


@pytest.mark.parametrize("name", only(CLASSES, "Shifted"))
def test_models_with_weights_of_their_own(name: str, tmp_path: Path) -> None:
    x, expected = _saved(name, tmp_path / "m.h5")
    np.testing.assert_allclose(_loaded(name, tmp_path)(x), expected, rtol=1e-5, atol=1e-6)


def test_models_of_other_weights_are_refused(tmp_path: Path) -> None:
    _saved("Scaled", tmp_path / "m.h5")
    with pytest.raises(
        UnsupportedModelError, match=r"has 2 weight arrays: \[.*\], the file contains 1"
    ):
        _loaded("Shifted", tmp_path)


@pytest.mark.parametrize("name", only(("Heads", "Blocks"), "Blocks"))
def test_layers_have_the_order_of_keras_2(name: str, tmp_path: Path) -> None:
    x, expected = _saved(name, tmp_path / "m.h5")
    np.testing.assert_allclose(_loaded(name, tmp_path)(x), expected, rtol=1e-5, atol=1e-5)


NAMES_OF_INNER_LAYERS = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = [[layers.Dense(4), layers.Dense(4)], [layers.Dense(4, "tanh")]]
        self.out = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(4)])

    def call(self, x):
        return self.out(self.stack[0][0](x) * self.stack[0][1](x) + self.stack[1][0](x))

def build():
    model = Net()
    model(tf.ones((1, 4)))
    return model
"""


@pytest.mark.parametrize("before", [2, pytest.param(1, marks=pytest.mark.long)])
def test_generated_names_that_are_those_of_inner_layers(before: int, tmp_path: Path) -> None:
    """The names in the file are in the model, too, for layers of the Sequential inside it."""
    program = run_in_tf_keras(NAMES_OF_INNER_LAYERS)
    tf_keras.backend.clear_session()
    for _ in range(before):
        tf_keras.layers.Dense(4)
    model, generator = program["build"](), np.random.default_rng(8)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "program.py").write_text(NAMES_OF_INNER_LAYERS)
    np.savez(tmp_path / "x.npz", x=generator.normal(size=(5, 4)).astype("float32"))
    x = np.load(tmp_path / "x.npz")["x"]
    loaded = load_model(
        audit_file(tmp_path / "m.h5"),
        architecture=f"{tmp_path}/program.py:build",
        samples=tmp_path / "x.npz",
    )
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["model", "weights", "program"])
def test_a_file_that_lacks_a_weight_that_it_lists(kind: str, tmp_path: Path) -> None:
    """Keras 2 stops while it saves if two weights of a layer have the same name."""
    path = tmp_path / "m.h5"
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="a")])
    (model.save if kind == "model" else model.save_weights)(path)
    with h5py.File(path, "a") as file:
        del file.get("model_weights", file)["a"]["a/bias:0"]
    options: dict[str, Any] = {}
    if kind == "weights":
        (tmp_path / "m.json").write_text(model.to_json())
        options = {"architecture": str(tmp_path / "m.json")}
    elif kind == "program":
        (tmp_path / "m.py").write_text(
            "from tensorflow import keras\n\ndef build():\n    return keras.Sequential([\n"
            "        keras.layers.Dense(2, input_shape=(3,), name='a')])\n"
        )
        options = {"architecture": f"{tmp_path / 'm.py'}:build"}
    with pytest.raises(UnsupportedModelError, match="lists the weight 'a/bias:0' of the layer 'a'"):
        load_model(audit_file(path), **options)
