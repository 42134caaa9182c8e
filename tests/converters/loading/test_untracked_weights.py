"""Layers of the user's classes that Keras does not find, so that files lack their weights."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code import custom_objects
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CLASSES = """
import keras

SHARED = keras.layers.Dense(3)
FACTORS = keras.Variable([1.0, 2.0, 3.0, 4.0, 5.0])


class Plain:
    def __init__(self):
        self.dense = keras.layers.Dense(3)


class Global(keras.layers.Layer):
    def call(self, x):
        return SHARED(x)


class Function(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        dense = keras.layers.Dense(3)
        self.function = lambda x: dense(x)

    def call(self, x):
        return self.function(x)


class InObject(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.plain = Plain()

    def call(self, x):
        return self.plain.dense(x)


class InSubclass(keras.Model):
    def call(self, x):
        return SHARED(x)


class Hidden(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["dense"] = keras.layers.Dense(3, name="hidden")
        object.__setattr__(self, "others", [keras.layers.Dense(3), Inner()])

    def call(self, x):
        return self.others[1](self.others[0](self.dense(x)))


class Inner(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["dense"] = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class HiddenSubclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["dense"] = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class Constant(keras.layers.Layer):
    def call(self, x):
        return x * FACTORS


class Listed(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [keras.layers.Dense(3), {"norm": keras.layers.BatchNormalization()}]
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.drop(self.inner[1]["norm"](self.inner[0](x)))
"""
X = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
KINDS = ("keras", "h5")
UNTRACKED = [(name, kind) for name in ("Global", "Function", "InObject") for kind in KINDS]
TRACKED = [(name, kind) for name in ("Constant", "Listed") for kind in KINDS]
HIDDEN = [("Hidden", "keras"), ("HiddenSubclass", "keras")]


def _saved(tmp_path: Path, name: str, kind: str) -> tuple[Path, keras.Model]:
    (tmp_path / "own.py").write_text(CLASSES)
    layer = getattr(custom_objects.load_module(tmp_path / "own.py", option=""), name)()
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    model.save(tmp_path / f"m.{kind}")
    return tmp_path / f"m.{kind}", model


@pytest.mark.parametrize("case", only([*UNTRACKED, ("InSubclass", "keras")], *UNTRACKED[:1]))
def test_layer_that_keras_does_not_find(case: tuple[str, str], tmp_path: Path) -> None:
    """Each load had other weights."""
    path, _ = _saved(tmp_path, *case)
    with pytest.raises(UnsupportedModelError, match=r"does not list the weights .*/kernel"):
        load_model(audit_file(path), custom_objects=tmp_path / "own.py")


@pytest.mark.parametrize("case", only([*TRACKED, *HIDDEN], HIDDEN[0]))
def test_layer_in_a_list_and_constant(case: tuple[str, str], tmp_path: Path) -> None:
    path, model = _saved(tmp_path, *case)
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_layer_in_an_activation_function(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"{CLASSES}\n\ndef gate(x):\n    return SHARED(x)\n")
    gate = custom_objects.load_module(tmp_path / "own.py", option="").gate
    inputs = keras.Input((5,))
    keras.Model(inputs, layers.Dense(3, activation=gate)(inputs)).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="does not list the weights"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")


def test_layer_that_keras_saves_and_does_not_list(tmp_path: Path) -> None:
    """In ``.weights.h5`` as in ``.keras``, with its conversion; ``.h5`` files lack it."""
    path, model = _saved(tmp_path, "Hidden", "h5")
    with pytest.raises(
        UnsupportedModelError, match=r"'hidden/hidden/kernel'.* Only \.keras"
    ) as error:
        load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    assert "model.save('model.keras')" in str(error.value.hint)
    model.save_weights(tmp_path / "m.weights.h5")
    program = (
        "\n\ndef build():\n    x = keras.Input((5,))\n"
        "    return keras.Model(x, keras.layers.Dense(2)(Hidden()(x)))\n"
    )
    (tmp_path / "own.py").write_text(CLASSES + program)
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{tmp_path / 'own.py'}:build"
    ).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)
    interface = interface_of(loaded)
    result = tflite.convert(loaded, interface, recipe_for("float32"), tmp_path / "m.tflite")
    runner = open_runner(tmp_path / "m.tflite", "tflite", result.inputs, result.outputs)
    name = interface.inputs[0].name
    (output,) = runner.run({name: X[:1]}).values()
    np.testing.assert_allclose(output, model(X[:1]), rtol=1e-4, atol=1e-5)
