"""Functions of the user's file that are activations of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code.own_functions import activations

STEPS, FEATURES = 6, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
# The first is not a name of Keras. Keras has the others, which compute something else.
FUNCTIONS = """
import keras
import tensorflow as tf


def bent(x):
    return tf.tanh(x) + 0.1 * x


def softmax(x, axis=1):
    e = tf.exp(x - tf.reduce_max(x, axis=axis, keepdims=True))
    return e / tf.reduce_sum(e, axis=axis, keepdims=True)


def hard_sigmoid(x):
    return tf.clip_by_value(0.3 * x + 0.5, 0.0, 1.0)
"""
# The same as Keras has.
EQUAL = """
import tensorflow as tf


def softmax(x, axis=-1):
    e = tf.exp(x - tf.reduce_max(x, axis=axis, keepdims=True))
    return e / tf.reduce_sum(e, axis=axis, keepdims=True)


def swish(x):
    return x * tf.sigmoid(x)
"""
EXPLICIT = "\n\ncustom_objects = {name: globals()[name] for name in ('softmax', 'hard_sigmoid')}\n"


def functions(text: str = FUNCTIONS) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "own"}
    exec(text, names)
    return names


def attention(module: Any, first: Any, second: Any, third: Any = "tanh") -> Any:
    """Scores with one value for each step, as many programs for translation have."""
    x = module.Input((STEPS, FEATURES))
    h = module.layers.SimpleRNN(4, activation=third, return_sequences=True)(x)
    h = module.layers.Dense(4, activation=first)(h)
    weights = module.layers.Activation(second)(module.layers.Dense(1)(h))
    model = module.Model(x, module.layers.Dense(2)(module.layers.Dot(axes=1)([weights, h])))
    generator = np.random.default_rng(17)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.5, tuple(variable.shape)))
    return model


def load(path: Path, text: str) -> Any:
    file = path.with_name("own.py")
    file.write_text(text)
    return load_model(audit_file(path), custom_objects=file)


def check(model: Any, path: Path, text: str) -> None:
    model.save(path)
    np.testing.assert_allclose(load(path, text).model(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", only(range(3), 1))
def test_own_activation_in_a_file_of_keras_2(place: int, tmp_path: Path) -> None:
    chosen = ["relu", "sigmoid", "tanh"]
    chosen[place] = functions()["bent"]
    check(attention(tf_keras, *chosen), tmp_path / "m.h5", FUNCTIONS)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("registered", only([False, True], False))
def test_own_activation_in_a_file_of_keras_3(registered: bool, suffix: str, tmp_path: Path) -> None:
    register = "@keras.saving.register_keras_serializable('mine')\ndef bent"
    text = FUNCTIONS.replace("def bent", register) if registered else FUNCTIONS
    bent = functions(text)["bent"]
    check(attention(keras, bent, bent, bent), tmp_path / f"m{suffix}", text)


@pytest.mark.parametrize("module", [tf_keras, keras])
def test_own_activation_with_the_name_of_another(module: Any, tmp_path: Path) -> None:
    """Keras stores the name only. The dict says whose function it is."""
    own = functions()
    model = attention(module, "relu", own["softmax"], own["hard_sigmoid"])
    check(model, tmp_path / "m.h5", FUNCTIONS + EXPLICIT)


@pytest.mark.parametrize("module", [tf_keras, keras])
@pytest.mark.parametrize("name", ["softmax", "hard_sigmoid"])
def test_a_name_with_two_meanings_is_refused(module: Any, name: str, tmp_path: Path) -> None:
    attention(module, "relu", functions()[name]).save(tmp_path / "m.h5")
    with pytest.raises(UsageError, match=f"defines a function '{name}'") as error:
        load(tmp_path / "m.h5", FUNCTIONS)
    assert f'custom_objects = {{"{name}": {name}}}' in str(error.value.hint)
    assert f'custom_objects = {{"{name}": "{name}"}}' in str(error.value.hint)


@pytest.mark.parametrize("module", [tf_keras, keras])
def test_the_function_of_keras_is_chosen(module: Any, tmp_path: Path) -> None:
    model = attention(module, "relu", "softmax", "hard_sigmoid")
    choice = "\n\ncustom_objects = {'softmax': 'softmax', 'hard_sigmoid': 'hard_sigmoid'}\n"
    check(model, tmp_path / "m.h5", FUNCTIONS + choice)


@pytest.mark.parametrize("module", [tf_keras, keras])
def test_equal_functions_need_no_choice(module: Any, tmp_path: Path) -> None:
    own = functions(EQUAL)
    check(attention(module, own["swish"], own["softmax"]), tmp_path / "m.h5", EQUAL)


@pytest.mark.parametrize("module", only([tf_keras, keras], tf_keras))
def test_a_softmax_that_is_always_one_is_named(module: Any, tmp_path: Path) -> None:
    """Without the file of the program, nothing else shows that the function is another one."""

    def notes(first: Any, second: Any, objects: Path | None = None) -> list[str]:
        attention(module, first, second).save(tmp_path / "m.h5")
        loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=objects)
        return [note for note in loaded.notes if "softmax" in note]

    own = functions()["softmax"]
    (note,) = notes("relu", own)
    assert note.startswith("activation")
    assert "is 1 for every input" in note
    assert "--custom-objects" in note
    assert not notes("softmax", "relu")
    (tmp_path / "own.py").write_text(FUNCTIONS + EXPLICIT)
    assert not notes("relu", own, tmp_path / "own.py")


@pytest.mark.parametrize("ending", only(["keras", "h5"], "h5"))
def test_gelu_of_operations_is_chosen_by_a_line(ending: str, tmp_path: Path) -> None:
    """Keras stores its approximation by the name of the exact activation, which it then loads."""
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=keras.ops.gelu)(inputs * 2))
    path = tmp_path / f"m.{ending}"
    model.save(path)
    x, (kernel, bias) = X, model.get_weights()
    exact = np.asarray(keras.activations.gelu(2 * x @ kernel + bias))
    loaded = load_model(audit_file(path))
    np.testing.assert_allclose(np.asarray(loaded.model(x)), exact, rtol=1e-5, atol=1e-6)
    assert "gelu is the exact one" in " ".join(loaded.notes)
    (tmp_path / "own.py").write_text('import keras\ncustom_objects = {"gelu": keras.ops.gelu}\n')
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    approximate = np.asarray(model(x))
    assert np.abs(approximate - exact).max() > 1e-4
    np.testing.assert_allclose(np.asarray(loaded.model(x)), approximate, rtol=1e-5, atol=1e-6)
    assert "gelu" not in " ".join(loaded.notes)


GELUS = """
import keras


class Chosen(keras.layers.Layer):
    def __init__(self, units, activation, **kwargs):
        super().__init__(**kwargs)
        self.units, self.stored = units, activation
        self.dense = keras.layers.Dense(units, activation=activation, name="inner")

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "activation": self.stored}


class Fixed(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bent = keras.layers.Activation("gelu")
        self.dense = keras.layers.Dense(3, activation="gelu", name="inner")
        self.activation = keras.activations.get("gelu")

    def call(self, x):
        return self.activation(self.dense(self.bent(x)))
"""


def with_layer(layer: Any) -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    return keras.Model(inputs, layer(inputs))


def gelu_notes(model: Any, folder: Path) -> list[str]:
    """Return the names of the layers that notes on gelu name, after the model is stored."""
    model.save(folder / "m.keras")
    (folder / "own.py").write_text(GELUS)
    loaded = load_model(audit_file(folder / "m.keras"), custom_objects=folder / "own.py")
    np.testing.assert_allclose(
        np.asarray(loaded.model(X)), np.asarray(model(X)), rtol=1e-5, atol=1e-6
    )
    return [note.partition(":")[0] for note in loaded.notes if "gelu" in note]


def test_notes_on_gelu_are_for_activations_of_the_file(tmp_path: Path) -> None:
    """The user's class decides the activations of layers that it creates."""
    own: dict[str, Any] = {"__name__": "own"}
    exec(GELUS, own)
    chosen, fixed = own["Chosen"], own["Fixed"]
    assert gelu_notes(with_layer(fixed()), tmp_path) == []
    assert gelu_notes(with_layer(chosen(2, "relu")), tmp_path) == []
    assert gelu_notes(with_layer(chosen(2, "gelu", name="own")), tmp_path) == ["inner"]
    both = keras.Sequential([keras.layers.Activation("gelu", name="outer"), fixed()])
    assert gelu_notes(with_layer(both), tmp_path) == ["outer"]
    dense = keras.layers.Dense(2, activation="gelu", name="each")
    wrapped = keras.layers.TimeDistributed(dense)
    assert gelu_notes(with_layer(wrapped), tmp_path) == ["each"]


def test_only_gelu_has_other_defaults_as_an_operation() -> None:
    x = X[0]
    differ = set()
    for name, activation in activations().items():
        operation = getattr(keras.ops, name, None)
        if operation is None or name in ("threshold", "glu"):  # of other arguments and sizes
            continue
        if not np.allclose(np.asarray(activation(x)), np.asarray(operation(x)), atol=1e-6):
            differ.add(name)
    assert differ == {"gelu"}


def test_helpers_that_no_layer_names(tmp_path: Path) -> None:
    check(attention(tf_keras, "relu", "sigmoid"), tmp_path / "m.h5", FUNCTIONS)


NAMING = """
from tensorflow import keras


class Named(keras.layers.Layer):
    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, x):
        return self.activation(x)

    def get_config(self):
        name = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": name}
"""


def test_own_layer_that_looks_up_an_own_function(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(NAMING.replace("from tensorflow import keras", "import tf_keras as keras"), names)
    x = tf_keras.Input((STEPS, FEATURES))
    model = tf_keras.Model(x, names["Named"](functions()["bent"])(x))
    check(model, tmp_path / "m.h5", FUNCTIONS.replace("import keras\n", "") + NAMING)


WRAPPING = """

class Wrapping(keras.layers.Layer):
    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.deserialize(p) if isinstance(p, dict) else p for p in parts]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        parts = [keras.layers.serialize(part) for part in self.parts]
        return {**super().get_config(), "parts": parts}
"""


def test_a_layer_inside_a_config_names_an_unclear_function(tmp_path: Path) -> None:
    names = functions((FUNCTIONS + WRAPPING).replace("import keras", "import tf_keras as keras"))
    x = tf_keras.Input((STEPS, FEATURES))
    dense = tf_keras.layers.Dense(3, activation=names["softmax"])
    model = tf_keras.Model(x, names["Wrapping"]([dense])(x))
    model.save(tmp_path / "m.h5")
    with pytest.raises(UsageError, match="defines a function 'softmax'"):
        load(tmp_path / "m.h5", FUNCTIONS + WRAPPING)
    check(model, tmp_path / "m.h5", FUNCTIONS + WRAPPING + EXPLICIT)


# Every function has the name of one of Keras that computes something else.
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


def softmax(x):
    return tf.nn.softmax(x, axis=1)


def hard_sigmoid(x):
    return tf.clip_by_value(0.3 * x + 0.5, 0.0, 1.0)


def tanh(x):
    return 1.7 * tf.tanh(2 * x / 3)


class Scaled:
    __name__ = "gelu"

    def __call__(self, x):
        return 0.5 * x


def over(*parts):
    model = keras.Sequential([keras.Input((6, 3)), *parts])
    x = keras.Input((6, 3))
    return keras.Model(x, layers.Dense(2)(model(2.0 * x) if len(parts) > 1 else parts[0](x)))


def activation():
    return over(layers.Activation(softmax))


def dense():
    return over(layers.Dense(4, activation=softmax))


def gates():
    return over(layers.LSTM(4, recurrent_activation=hard_sigmoid))


def cell():
    return over(layers.RNN(layers.SimpleRNNCell(4, activation=tanh)))


def wrapped():
    return over(layers.TimeDistributed(layer=layers.Dense(4, activation=tanh)))


def nested():
    return over(layers.Dense(4), layers.Activation(softmax))


def an_object():
    return over(layers.Dense(4, activation=Scaled()))


def of_keras():
    return over(layers.Dense(4, activation=tf.tanh), layers.Activation("softmax"))
"""
PLACES = ("activation", "dense", "gates", "cell", "wrapped", "nested", "an_object", "of_keras")


@pytest.mark.parametrize("function", only(PLACES, "activation", "cell", "wrapped", "of_keras"))
def test_activations_of_a_program_are_its_own(function: str, tmp_path: Path) -> None:
    """A config has only their names, and Keras has other functions of these names."""
    old = PROGRAM.replace("from tensorflow import keras", "import tf_keras as keras")
    old = old.replace("from tensorflow.keras", "from tf_keras")
    model = functions(old)[function]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "program.py").write_text(PROGRAM)
    architecture = f"{tmp_path / 'program.py'}:{function}"
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=architecture)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
    kept = any("activations of your own" in note for note in loaded.notes)
    assert kept is (function != "of_keras")  # which is rebuilt and repaired


@pytest.mark.parametrize("version", only(["2.2.4", "2.4.0"], "2.2.4"))
def test_directions_of_a_program(version: str, tmp_path: Path) -> None:
    """Keras before 2.4 copied the forward layer, and created the other one from a config."""
    build = """

def build():
    cell = layers.SimpleRNN(4, activation=tanh, name="rnn")
    return over(layers.Bidirectional(layer=cell, name="both"))
"""
    own = functions(PROGRAM)["tanh"] if version == "2.2.4" else "tanh"
    x = tf_keras.Input((STEPS, FEATURES))
    both = tf_keras.layers.Bidirectional(tf_keras.layers.SimpleRNN(4, name="rnn"), name="both")
    both.forward_layer.cell.activation = tf_keras.activations.get(own)
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(both(x)))
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    model.save_weights(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file.attrs["keras_version"] = version.encode()
    (tmp_path / "program.py").write_text(PROGRAM + build)
    architecture = f"{tmp_path / 'program.py'}:build"
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=architecture)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
    assert any("both: " in note and "Keras' " in note for note in loaded.notes)


def test_gelu_of_operations_in_a_program(tmp_path: Path) -> None:
    """It is an approximation, and a config has it by the name of the exact activation."""
    text = """
import keras


def build():
    x = keras.Input((6, 3))
    return keras.Model(x, keras.layers.Dense(3, activation=keras.ops.gelu)(x))
"""
    generator = np.random.default_rng(3)
    x = tf_keras.Input((STEPS, FEATURES))
    model = tf_keras.Model(x, tf_keras.layers.Dense(3)(x))
    model.set_weights([3 * generator.normal(size=value.shape) for value in model.get_weights()])
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "program.py").write_text(text)
    architecture = f"{tmp_path / 'program.py'}:build"
    actual = load_model(audit_file(tmp_path / "w.h5"), architecture=architecture).model(X)
    expected = np.asarray(tf_keras.activations.gelu(model(X), approximate=True))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_registered_function_is_named_without_its_package(tmp_path: Path) -> None:
    """A Python file cannot define ``own>doubled``."""

    @keras.saving.register_keras_serializable("own")
    def doubled(x: Any) -> Any:
        return 2 * x

    x = keras.Input((3,))
    y = keras.layers.Lambda(doubled, output_shape=(3,))(x)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"))
    assert "Define doubled(x) in a Python file" in str(error.value.hint)
    own = tmp_path / "own.py"
    own.write_text("def doubled(x):\n    return 2 * x\n")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=own).model
    inputs = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-5, atol=1e-6)
