"""Weights of models of the user's classes, saved by Keras 3 or tf_keras without a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.weights.attribute_order import is_of_tf_keras

PROGRAM = """
import keras
from keras import layers

class Residual(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)
        self.add = layers.Add()

    def call(self, x):
        return self.add([x, self.attention(query=x, value=x, key=x)])

class Encoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(9, 4, mask_zero=True)
        self.second = Residual()
        self.residual = Residual()

    def call(self, tokens):
        return self.second(self.residual(self.embedding(tokens)))

class Outer(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.recurrent = layers.GRU(3)

    def call(self, tokens):
        return self.recurrent(self.encoder(tokens))

class Early(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)
        self._hidden = layers.Dense(4)

    def call(self, x):
        return self.dense(self._hidden(x))

class Late(keras.Model):
    def __init__(self):
        super().__init__()
        self.stages = [layers.Dense(4), layers.Dense(4)]

    def call(self, x):
        return self.stages[1](self.stages[0](x))

class Shared(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4)
        self.second = self.first

    def call(self, x):
        return self.second(self.first(x))

class Tied(keras.Model):
    def __init__(self, dense):
        super().__init__()
        self.dense = dense
        self._hidden = layers.Dense(4)

    def call(self, x):
        return self.dense(self._hidden(x))

class OfModels(keras.Model):
    def __init__(self):
        super().__init__()
        self.late = Late()

    def call(self, x):
        return self.late(x)

class OfLayer(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = Early()

    def call(self, x):
        return self.inner(x)

class Sum(layers.Layer):
    def __init__(self):
        super().__init__()
        self.add = layers.Add()

    def call(self, x):
        return self.add([x, 2.0 * x])

def Twice():
    def twice(x):
        y = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
        return layers.MultiHeadAttention(2, 3)(x, y)
    return twice

class Alias(layers.Layer):
    def __init__(self):
        super().__init__()
        self.stack = keras.Sequential([layers.GRU(4, return_sequences=True)])
        self.first = self.stack

    def call(self, x):
        return self.stack(x)

class Plain(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x)

def around(layer):
    x = keras.Input((5, 4))
    dense = layers.Dense(4)
    return keras.Model(x, (Tied(dense) if layer is Tied else layer())(dense(x)))

def of_long_texts():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.Conv1D(2, 7)(x))

def of_layers(name):
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    second = globals()[name]()
    return keras.Model(tokens, layers.GRU(4)(second(globals()[name]()(x))))

"""
# Layers whose masks differ.
SECOND = {"Residual": "multi_head_attention and gru", "Sum": "gru", "Twice": "multi_head"}
MODELS = ("Early", "Late", "OfModels", "Shared", "Tied", "OfLayer", "Plain")
TOKENS = np.array([[3, 1, 4, 0, 0], [1, 5, 2, 6, 5], [7, 0, 0, 0, 0]], "int32")


def program_of(package: str) -> dict[str, Any]:
    """The classes of the program for ``keras`` or ``tf_keras``."""
    program: dict[str, Any] = {"__name__": "program"}
    source = PROGRAM.replace(
        "import keras\nfrom keras", f"import {package} as keras\nfrom {package}"
    )
    exec(source, program)
    return program


def saved(model: Any, path: Path) -> None:
    """Save random weights without names, as tf_keras and the first versions of Keras 3."""
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()])
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        groups: list[Any] = [file]
        file.visititems(lambda _, item: groups.append(item))
        for group in groups:
            group.attrs.pop("name", None)


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
@pytest.mark.parametrize("name", only(MODELS, "Early", "Late"))
def test_the_order_of_attributes_shows_what_saved_the_file(
    name: str, package: str, tmp_path: Path
) -> None:
    program = program_of(package)
    # A model of a class of the user may be a layer of a functional model.
    model = program["around"](program[name])
    saved(model, tmp_path / "m.weights.h5")
    current = program_of("keras")
    expected = None if name in ("Tied", "Plain") else package == "tf_keras"
    with h5py.File(tmp_path / "m.weights.h5") as file:
        assert is_of_tf_keras(file, current["around"](current[name])) is expected


@pytest.mark.parametrize("name", only(["Encoder", "Outer"], "Encoder"))
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_masks_of_a_subclassed_model_are_those_of_what_saved_it(
    package: str, name: str, tmp_path: Path
) -> None:
    model = program_of(package)[name]()
    model(TOKENS)
    saved(model, tmp_path / "m.weights.h5")
    (tmp_path / "program.py").write_text(f"{PROGRAM}\ndef build():\n    return {name}()\n")
    np.savez(tmp_path / "tokens.npz", tokens=TOKENS)
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"),
        architecture=f"{tmp_path / 'program.py'}:build",
        samples=tmp_path / "tokens.npz",
    )
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)
    assert any("groups as in tf_keras" in note for note in loaded.notes) is (package == "tf_keras")


@pytest.mark.usefixtures("not_compared")
@pytest.mark.parametrize("name", only(("Plain", *SECOND), "Residual"))
def test_masks_that_depend_on_what_saved_the_file_are_reported(name: str, tmp_path: Path) -> None:
    model = program_of("tf_keras")["of_layers"](name)
    saved(model, tmp_path / "m.weights.h5")
    (tmp_path / "program.py").write_text(f"{PROGRAM}\nmodel = of_layers({name!r})\n")
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{tmp_path / 'program.py'}:model"
    )
    error = float(np.abs(loaded.model(TOKENS) - np.asarray(model(TOKENS))).max())
    reported = [note for note in loaded.notes if "the masks are others in Keras 2" in note]
    assert (error > 1e-3) is bool(reported) is (name in SECOND)
    assert not reported or reported[0].startswith(SECOND[name])


@pytest.mark.long
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_a_layer_with_two_attributes_loads_from_the_one_that_its_keras_stores(
    package: str, tmp_path: Path
) -> None:
    model = program_of(package)["of_layers"]("Alias")
    saved(model, tmp_path / "m.weights.h5")
    (tmp_path / "program.py").write_text(f"{PROGRAM}\nmodel = of_layers('Alias')\n")
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{tmp_path / 'program.py'}:model"
    )
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)
    assert any("groups as in tf_keras" in note for note in loaded.notes) is (package == "tf_keras")


def test_masks_that_cannot_be_compared_are_reported(tmp_path: Path) -> None:
    model = program_of("tf_keras")["of_long_texts"]()
    saved(model, tmp_path / "m.weights.h5")
    (tmp_path / "program.py").write_text(PROGRAM)
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"),
        architecture=f"{tmp_path / 'program.py'}:of_long_texts",
        allow_free_time=True,
    )
    assert any(
        note.startswith("all layers with masks: the masks may be others") for note in loaded.notes
    )
