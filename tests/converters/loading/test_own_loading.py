"""Classes with a ``save_own_variables`` and ``load_own_variables`` of the user."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import keras
import numpy as np
from keras import layers, ops

class Ternary(layers.Layer):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def scale(self):
        return ops.mean(ops.abs(self.kernel))

    def call(self, x):
        return ops.matmul(x, ops.sign(self.kernel)) * self.scale() + self.bias

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def save_own_variables(self, store):
        store["kernel_encoded"] = np.sign(np.asarray(self.kernel)).astype("int8")
        store["kernel_scale"] = np.asarray(self.scale())
        store["bias"] = np.asarray(self.bias)

    def load_own_variables(self, store):
        assert set(store.keys()) == {"kernel_encoded", "kernel_scale", "bias"} and "bias" in store
        kernel = store["kernel_encoded"][()].astype("float32") * store["kernel_scale"][()]
        self.kernel.assign(kernel)
        self.bias.assign(store["bias"])

class Attributes(Ternary):
    # As DenseMML of Keras-MatMulLess: arrays in attributes, one of them in place of a variable.
    loaded_scale = None

    def scale(self):
        return super().scale() if self.loaded_scale is None else self.loaded_scale

    def load_own_variables(self, store):
        self.kernel.assign(store["kernel_encoded"][()].astype("float32"))
        self.loaded_scale = store["kernel_scale"][()]
        self.bias = store["bias"][()]

class Parts(Ternary):
    # More arrays than variables.
    def save_own_variables(self, store):
        for index, row in enumerate(np.asarray(self.kernel)):
            store[f"rows/{index}"] = row
        store["bias"] = self.bias

    def load_own_variables(self, store):
        rows = [store[f"rows/{index}"] for index in range(self.kernel.shape[0])]
        self.kernel.assign(np.stack(rows))
        self.bias.assign(store["bias"])

class Doubled(layers.Dense):
    # The arrays of Keras, changed.
    def __init__(self, units=4, **kwargs):
        super().__init__(units, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["factor"] = np.float32(0.5)

    def load_own_variables(self, store):
        factor = store["factor"][()]
        super().load_own_variables({key: store[key] for key in store.keys() if key != "factor"})
        self.kernel.assign(self.kernel * factor)

class Constant(Ternary):
    # No arrays: the values are computed again.
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        assert not list(store.keys())
        self.kernel.assign(np.linspace(-1, 1, 5 * self.units).reshape(5, self.units))
        self.bias.assign(np.ones(self.units))

class Inner(layers.Layer):
    # With the weights of a layer inside, which are also stored with that.
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def save_own_variables(self, store):
        store["rounded"] = np.round(np.asarray(self.dense.kernel), 1)

    def load_own_variables(self, store):
        self.dense.kernel.assign(store["rounded"])

class Listed(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [Ternary(4), Attributes(4), layers.Dense(4)]
        self.by_name = {"a": Parts(4)}

    def build(self, shape):
        for part in [*self.parts, self.by_name["a"]]:
            part.build(shape)

    def call(self, x):
        return sum(part(x) for part in self.parts) + self.by_name["a"](x)

class Whole(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = Ternary(4)
        self.last = layers.Dense(2)
        self.factor = 1.0

    def call(self, x):
        return self.last(self.first(x)) * self.factor

    def save_own_variables(self, store):
        store["factor"] = np.float32(3.0)

    def load_own_variables(self, store):
        self.factor = store["factor"][()]

class Graph(keras.Model):
    # A functional model.
    def save_own_variables(self, store):
        store["factor"] = np.float32(2.0)

    def load_own_variables(self, store):
        self.get_layer("own").kernel.assign(self.get_layer("own").kernel * store["factor"])

def _of(cls):
    return keras.Sequential([keras.Input((5,)), cls(name="own"), layers.Dense(2)])

def ternary(): return _of(Ternary)
def attributes(): return _of(Attributes)
def parts(): return _of(Parts)
def doubled(): return _of(Doubled)
def constant(): return _of(Constant)
def inner(): return _of(Inner)
def listed(): return _of(Listed)
def whole():
    model = Whole()
    model(np.zeros((1, 5), "float32"))
    return model
def nested():
    x = keras.Input((5,))
    return keras.Model(x, layers.Dense(3)(_of(Attributes)(x)) + ternary()(x)[:, :1])
"""
NAMES = [
    *("ternary", "attributes", "parts", "doubled", "constant", "inner", "listed", "whole"),
    "nested",
]
X = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def _names(program: str = PROGRAM) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(program, names)
    return names


def _with_values(model: Any) -> Any:
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()])
    return model


def _saved(name: str, path: Path, program: str = PROGRAM) -> dict[str, Any]:
    """Save a model and its program, and return the names of the program."""
    names = _names(program)
    model = _with_values(names[name]())
    (path.parent / "own.py").write_text(program)
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return names


def _load(path: Path, name: str, **options: Any) -> Any:
    program = path.parent / "own.py"
    if path.name.endswith(".weights.h5"):
        return load_model(audit_file(path), architecture=f"{program}:{name}", **options)
    return load_model(audit_file(path), custom_objects=program, **options)


@pytest.mark.parametrize("name", only(NAMES, "ternary", "attributes", "listed"))
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_the_method_of_the_class_loads(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    names = _saved(name, path)
    if suffix == ".keras":
        expected = keras.models.load_model(path, custom_objects=names)(X)
    else:
        other = names[name]()
        other.load_weights(path)
        expected = other(X)
    np.testing.assert_allclose(_load(path, name).model(X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", only([n for n in NAMES if n != "whole"], "attributes"))
def test_h5_files_contain_all_variables(name: str, tmp_path: Path) -> None:
    """Keras calls the methods for .keras and .weights.h5 files only."""
    names = _names()
    model = _with_values(names[name]())
    (tmp_path / "own.py").write_text(PROGRAM)
    model.save(tmp_path / "m.h5")
    loaded = _load(tmp_path / "m.h5", name).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_functional_model(suffix: str, tmp_path: Path) -> None:
    program = PROGRAM + (
        "def graph():\n    x = keras.Input((5,))\n    return Graph(x, Ternary(name='own')(x))\n"
    )
    path = tmp_path / f"m{suffix}"
    names = _saved("graph", path, program)
    other = names["graph"]()
    other.load_weights(path)
    np.testing.assert_allclose(_load(path, "graph").model(X), other(X), rtol=1e-5, atol=1e-5)


OF_KERAS_2 = PROGRAM[: PROGRAM.index("class Parts")].replace(
    "import keras\n", "from tensorflow import keras\nimport tensorflow as tf\n"
).replace("from keras import layers, ops", "from tensorflow.keras import layers").replace(
    "ops.matmul", "tf.matmul"
).replace("ops.mean", "tf.reduce_mean").replace("ops.", "tf.") + (
    PROGRAM[PROGRAM.index("def _of") : PROGRAM.index("def parts")]
)  # fmt: skip


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("ternary", ".keras"),
        pytest.param("ternary", ".weights.h5", marks=pytest.mark.long),
        pytest.param("attributes", ".keras", marks=pytest.mark.long),
        ("attributes", ".weights.h5"),
    ],
)
def test_files_of_keras_2(name: str, suffix: str, tmp_path: Path) -> None:
    program = OF_KERAS_2.replace("keras.Input((5,))", "keras.Input((5,))")
    names = run_in_tf_keras(program)
    model, path = _with_values(names[name]()), tmp_path / f"m{suffix}"
    (tmp_path / "own.py").write_text(program)
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    other = names[name]()
    other.load_weights(path)
    expected = other.predict(X, verbose=0)
    outputs = _load(path, name).model.predict(X, verbose=0)
    values = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


BROKEN = {
    "a variable without a value": (
        'self.bias.assign(store["bias"])',
        "pass",
        "no weights for 1 of 4 variables, such as 'own/bias'",
    ),
    "an array that the file lacks": (
        'self.bias.assign(store["bias"])',
        "self.bias.assign(store['offset'])",
        "load_own_variables of your class Ternary fails for layer 'own': KeyError: offset",
    ),
    "an array of another shape": (
        'self.bias.assign(store["bias"])',
        "self.bias.assign(store['kernel_encoded'])",
        "load_own_variables of your class Ternary fails for layer 'own': ValueError",
    ),
    "no method": (
        "def load_own_variables",
        "def load",
        "The file has names for the arrays of layer 'own': bias, kernel_encoded and kernel_scale",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_errors(case: str, tmp_path: Path) -> None:
    """They were said to be damage of the configuration."""
    before, after, message = BROKEN[case]
    _saved("ternary", tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(PROGRAM.replace(before, after, 1))
    with pytest.raises(UnsupportedModelError) as error:
        _load(tmp_path / "m.keras", "ternary")
    assert message in error.value.message
    assert "damaged" not in str(error.value)
    assert "Save the model again" not in str(error.value)


def test_an_error_in_a_file_of_weights(tmp_path: Path) -> None:
    """It was that Keras had quantized the layers, because the file has an array of int8."""
    _saved("ternary", tmp_path / "m.weights.h5")
    text = PROGRAM.replace(
        'self.bias.assign(store["bias"])', 'self.bias.assign(store["offset"])', 1
    )
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UnsupportedModelError) as error:
        _load(tmp_path / "m.weights.h5", "ternary")
    assert "Ternary 'own'" in error.value.message
    assert "offset" in error.value.message
    assert "quantized" not in str(error.value)


def test_a_replaced_variable_with_which_the_class_computes(tmp_path: Path) -> None:
    """Its initial value would be an output of the model without a note."""
    before = "return ops.matmul(x, ops.sign(self.kernel)) * self.scale() + self.bias"
    program = PROGRAM.replace(before, before.replace("self.bias", "self.trainable_weights[1]"))
    _saved("attributes", tmp_path / "m.keras", program)
    with pytest.raises(UnsupportedModelError, match="in place of the weights 'own/bias'"):
        _load(tmp_path / "m.keras", "attributes")


VARIABLE = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

class Table(layers.Layer):
    def build(self, shape):
        self.table = tf.Variable(np.random.normal(size=(1, 5)).astype("float32"))

    def call(self, x):
        return x * self.table

    def save_own_variables(self, store):
        store["table"] = self.table.numpy()

    def load_own_variables(self, store):
        {load}

def own():
    return keras.Sequential([keras.Input((5,)), Table(name="own"), layers.Dense(2)])
"""


@pytest.mark.parametrize("suffix", only([".keras", ".weights.h5"], ".keras"))
def test_variables_of_tensorflow(suffix: str, tmp_path: Path) -> None:
    """They are no weights for Keras 3, and have other values in each process."""
    path, program = (
        tmp_path / f"m{suffix}",
        VARIABLE.format(load="self.table.assign(store['table'])"),
    )
    names = _saved("own", path, program)
    other = names["own"]()
    other.load_weights(path)
    np.testing.assert_allclose(_load(path, "own").model(X), other(X), rtol=1e-5, atol=1e-5)
    (tmp_path / "own.py").write_text(VARIABLE.format(load="pass"))
    with pytest.raises(UnsupportedModelError, match="The file does not contain 'table' of layer"):
        _load(path, "own")


ASSETS = """
import keras
import numpy as np
import os

class Words(keras.layers.Layer):
    def build(self, shape):
        self.table = np.zeros((1, 5), "float32")

    def call(self, x):
        return x + self.table

    def save_assets(self, path):
        np.savetxt(os.path.join(path, "table.txt"), np.ones((1, 5)))

    def load_assets(self, path):
        self.table = np.loadtxt(os.path.join(path, "table.txt")).reshape(1, 5).astype("float32")

def own():
    return keras.Sequential([keras.Input((5,)), Words(name="own"), keras.layers.Dense(2)])
"""


def test_assets_of_a_class(tmp_path: Path) -> None:
    """The layer computed with what the constructor sets."""
    _saved("own", tmp_path / "m.keras", ASSETS)
    with pytest.raises(UnsupportedModelError) as error:
        _load(tmp_path / "m.keras", "own")
    assert "Layer 'own' of your class Words loads files" in error.value.message
    assert "load_own_variables" in str(error.value.hint)


def test_assets_are_not_in_files_of_weights(tmp_path: Path) -> None:
    """Keras loads them from .keras files only, so the program decides what the layer has."""
    names = _saved("own", tmp_path / "m.weights.h5", ASSETS)
    loaded = _load(tmp_path / "m.weights.h5", "own")
    other = names["own"]()
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(loaded.model(X), other(X), rtol=1e-5, atol=1e-5)
    assert "does not contain what save_assets of your class Words stores" in " ".join(loaded.notes)


PACKED = """
import keras
import numpy as np

class Bits(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], {units}), name="kernel")

    def call(self, x):
        return keras.ops.matmul(x, self.kernel)

    def save_own_variables(self, store):
        store["bits"] = np.packbits(np.asarray(self.kernel) > 0)

    def load_own_variables(self, store):
        bits = np.unpackbits(store["bits"][()])[: 5 * {units}]
        self.kernel.assign(bits.reshape(5, {units}) * 2.0 - 1.0)

def own():
    return keras.Sequential([keras.Input((5,)), Bits(name="own")])
"""


def test_more_weights_than_the_file_has_values(tmp_path: Path) -> None:
    """1.5 million weights in 190 kB; the limit of the files of others is a million more."""
    program = PACKED.format(units=300_000)
    names = _saved("own", tmp_path / "m.keras", program)
    other = names["own"]()
    other.load_weights(tmp_path / "m.keras")
    loaded = _load(tmp_path / "m.keras", "own").model
    np.testing.assert_allclose(loaded(X[:1]), other(X[:1]), rtol=1e-5, atol=1e-5)
    (tmp_path / "large").mkdir()
    shutil.copy(tmp_path / "m.keras", tmp_path / "large/m.keras")
    (tmp_path / "large/own.py").write_text(PACKED.format(units=1_000_000))
    with pytest.raises(UnsafeModelError):
        _load(tmp_path / "large/m.keras", "own")
