"""Classes of programs for Keras 2 that find other things in Keras 3: weights, names, functions.

The results are those of tf_keras with the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import every_third, only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
OLD = tf_keras.layers


def write(text: str, build: Callable[[Any], Any], folder: Path, version: str) -> tuple[Path, Any]:
    """Save the model of tf_keras that ``build`` makes of the classes, and return its outputs."""
    names: dict[str, Any] = {"__name__": "own", "keras": tf_keras, "K": tf_keras.backend}
    exec(text.replace("tf.keras", "keras"), names)
    model = build(names)
    generator = np.random.default_rng(17)
    model.set_weights([generator.normal(0, 1.5, value.shape) for value in model.get_weights()])
    path = folder / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs["keras_version"] = version
    return path, np.asarray(model(X))


def load(text: str, path: Path, imports: str = "") -> LoadedModel:
    own = path.with_name("own.py")
    own.write_text(f"import keras\nfrom keras import backend as K\n{imports}\n{text}")
    return load_model(audit_file(path), custom_objects=own)


def functional(call: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def build(own: Any) -> Any:
        x = tf_keras.Input((STEPS, FEATURES))
        return tf_keras.Model(x, call(own, x))

    return build


GATES = """
class Cell(keras.layers.Layer):
    def __init__(self, units, recurrent_activation="hard_sigmoid", **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.gate = keras.activations.get(recurrent_activation)

    def build(self, shape):
        self.k = self.add_weight(shape=(shape[-1] + self.units, 2 * self.units), name="k")

    def call(self, x, states):
        z = K.dot(K.concatenate([x, states[0]]), self.k)
        g, h = self.gate(z[:, : self.units]), K.tanh(z[:, self.units :])
        h = g * h + (1 - g) * states[0]
        return h, [h]

    def get_config(self):
        gate = keras.activations.serialize(self.gate)
        return {**super().get_config(), "units": self.units, "recurrent_activation": gate}


class Inner(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, activation="hard_sigmoid")
        self.bent = keras.layers.Activation("hard_sigmoid")
        self.lstm = keras.layers.LSTM(3, recurrent_activation="hard_sigmoid")

    def call(self, x):
        return self.bent(self.dense(x))[:, 0] * self.lstm(x)


class Direct(keras.layers.Layer):
    def call(self, x):
        return keras.activations.hard_sigmoid(x) + keras.activations.get("hard_sigmoid")(2 * x)


class Reversed(keras.layers.LSTM):
    def call(self, inputs, *args, **kwargs):
        return super().call(inputs[:, ::-1], *args, **kwargs)
"""
HARD_SIGMOIDS = {
    "cell": lambda own, x: OLD.RNN(own["Cell"](3))(x),
    "layers inside": lambda own, x: own["Inner"]()(x),
    "call": lambda own, x: own["Direct"]()(x),
    "derived": lambda own, x: own["Reversed"](3, recurrent_activation="hard_sigmoid")(x),
}


@pytest.mark.parametrize("kind", only(HARD_SIGMOIDS, "call"))
def test_hard_sigmoid_of_own_classes(kind: str, tmp_path: Path) -> None:
    """It clips 0.2x + 0.5 in Keras 2, and x/6 + 0.5 in Keras 3."""
    path, expected = write(GATES, functional(HARD_SIGMOIDS[kind]), tmp_path, "2.9.0")
    before = keras.activations.hard_sigmoid
    loaded = load(GATES, path)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded.model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert any("hard_sigmoid is computed as in Keras 2" in note for note in loaded.notes)
    assert keras.activations.hard_sigmoid is before
    assert keras.activations.get("hard_sigmoid") is before


def test_hard_sigmoid_that_is_imported_by_name(tmp_path: Path) -> None:
    text = GATES.replace("keras.activations.hard_sigmoid(x)", "hard_sigmoid(x)")
    path, expected = write(GATES, functional(HARD_SIGMOIDS["call"]), tmp_path, "2.9.0")
    loaded = load(text, path, "from tensorflow.keras.activations import hard_sigmoid")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


def test_gates_inside_own_classes_before_keras_2_3(tmp_path: Path) -> None:
    text = GATES.replace(', recurrent_activation="hard_sigmoid")', ")")
    path, _ = write(text, functional(HARD_SIGMOIDS["layers inside"]), tmp_path, "2.2.4")
    notes = [note for note in load(text, path).notes if "its default was 'hard_sigmoid'" in note]
    assert len(notes) == 1
    assert notes[0].endswith("set it in your class.")


VARIABLES = """
import tensorflow as tf


class Linear(keras.layers.Layer):
    '''With attributes as in guides of TensorFlow 2.'''

    def __init__(self, units=2, size=3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.size = units, size
        self.scale = tf.Variable(2.0, trainable=False, name="scale")
        self.w = tf.Variable(tf.random.normal((size, units)), trainable=True, name="w/kernel")
        self.b = tf.Variable(tf.zeros((units,)), name="b")

    def call(self, x):
        return (tf.matmul(x, self.w) + self.b) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units, "size": self.size}


class Block(keras.layers.Layer):
    '''Weights of both kinds, before and behind those of a layer inside.'''

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones", trainable=False)
        self.linear = Linear(4, 3)

    def build(self, shape):
        self.offset = tf.Variable(tf.zeros((4,)), name="offset")

    def call(self, x):
        return self.linear(x) * self.gain + self.offset


class Codes(keras.layers.Layer):
    '''The nearest of several vectors.'''

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        start = tf.random_uniform_initializer()
        self.codes = tf.Variable(initial_value=start(shape=(3, 4)), trainable=True, name="codes")

    def call(self, x):
        distances = tf.reduce_sum(self.codes**2, 0) - 2 * tf.matmul(x, self.codes)
        return tf.matmul(tf.one_hot(tf.argmin(distances, -1), 4), self.codes, transpose_b=True)
"""
WITH_VARIABLES = {
    "linear": lambda own, x: own["Linear"](2, 3)(x),
    "twice": lambda own, x: own["Linear"](2, 3)(own["Linear"](3, 3)(x)),
    "block": lambda own, x: own["Block"]()(x),
    "codes": lambda own, x: own["Codes"]()(x),
}


@pytest.mark.parametrize("kind", every_third(list(WITH_VARIABLES)))
def test_attributes_that_are_variables_of_tensorflow(kind: str, tmp_path: Path) -> None:
    path, expected = write(VARIABLES, functional(WITH_VARIABLES[kind]), tmp_path, "2.15.0")
    np.testing.assert_allclose(load(VARIABLES, path).model(X), expected, rtol=1e-4, atol=1e-5)


GROUPED = """
import collections
import itertools
import tensorflow as tf

Pair = collections.namedtuple("Pair", ["scale", "shift"])
numbers = itertools.count()


def new(**kwargs):
    return tf.Variable(tf.ones((3,)), name=f"v{next(numbers)}", **kwargs)


class Lists(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = [self.add_weight(name=f"a{k}", shape=(3,), initializer="ones") for k in range(2)]
        self.ws = [new(), new(trainable=False), (new(), [None, new()])]
        self.b = self.add_weight(name="b", shape=(3,), initializer="ones")
        self._pair = Pair(new(), new())
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.same = [self._pair.shift, self.ws[0]]
        self.late = [new()]

    def call(self, x):
        x = tf.tanh(x * self.ws[0] + self.ws[1]) * self.ws[2][0] + tf.sin(self.ws[2][1][1] * x)
        x = self.dense(x * self.a[0] + self.a[1]) * self._pair.scale + tf.cos(self.same[0] * x)
        return tf.tanh(x + self.b) * self.late[0]


class Dictionaries(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        shared = new()
        self.ws = {"z": new(), "B": {"y": new(), "x": new(trainable=False)}, "a": shared}
        self.ordered = collections.OrderedDict([("second", new()), ("first", [new()])])
        self.shared = [shared]

    def call(self, x):
        x = tf.tanh(x * self.ws["z"] + self.ws["B"]["y"]) * self.ws["B"]["x"] + self.shared[0]
        return tf.sin(x * self.ordered["first"][0]) - self.ws["a"] * self.ordered["second"]


class Appended(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ws = []
        self.ws.append(new())
        self.b = self.add_weight(name="b", shape=(3,), initializer="ones")

    def call(self, x):
        return x * self.ws[0] + self.b
"""


@pytest.mark.parametrize("name", only(["Lists", "Dictionaries"], "Lists"))
def test_variables_of_tensorflow_in_lists_and_dictionaries(name: str, tmp_path: Path) -> None:
    """All have one shape: another order than that of Keras 2 gives other results."""
    path, expected = write(GROUPED, functional(lambda own, x: own[name]()(x)), tmp_path, "2.15.0")
    np.testing.assert_allclose(load(GROUPED, path).model(X), expected, rtol=1e-4, atol=1e-5)


def test_variables_that_are_appended_later_are_not_exchanged(tmp_path: Path) -> None:
    build = functional(lambda own, x: own["Appended"]()(x))
    path, expected = write(GROUPED, build, tmp_path, "2.15.0")
    loaded = load(GROUPED, path)
    assert loaded.is_graph  # of tf_keras
    [outputs] = loaded.model(X).values()
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
def test_variables_that_keras_3_does_not_save(suffix: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "own", "keras": keras}
    exec(VARIABLES, names)
    (tmp_path / "own.py").write_text(f"import keras\n{VARIABLES}")
    x = keras.Input((STEPS, FEATURES))
    for kind, unknown in (("Codes", True), ("Linear", True), ("Scaled", False)):
        layer = keras.layers.Dense(2) if kind == "Scaled" else names[kind]()
        if kind == "Scaled":
            text = "class Scaled(keras.layers.Layer):\n    def __init__(self, **kwargs):\n" + (
                "        super().__init__(**kwargs)\n        self.s = tf.Variable(3.0)\n\n"
                "    def call(self, x):\n        return x * self.s\n"
            )
            (tmp_path / "own.py").write_text(f"import keras\nimport tensorflow as tf\n{text}")
            exec(text, names)
            layer = names["Scaled"]()
        model = keras.Model(x, keras.layers.Dense(2)(layer(x)))
        path = tmp_path / f"m{suffix}"
        model.save(path)
        if unknown:
            with pytest.raises(UnsupportedModelError, match=r"tf\.Variable, which Keras 3 does no"):
                load_model(audit_file(path), custom_objects=tmp_path / "own.py")
            continue
        loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
        np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)
        assert any("creates it again with the same values" in note for note in loaded.notes)


DERIVED = """
class Residual(keras.layers.LSTM):
    def call(self, inputs, mask=None, training=None, initial_state=None):
        y = super().call(inputs, mask=mask, training=training, initial_state=initial_state)
        return inputs + y


class Gated(keras.layers.GRU):
    '''An argument of its own, and one of the layer.'''

    def __init__(self, units, gain=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.gain = gain

    def call(self, inputs, **kwargs):
        return self.gain * super().call(inputs, **kwargs)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


class Scaled(keras.layers.Dense):
    def __init__(self, units, gain=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.gain = gain

    def call(self, x):
        return super().call(x) * self.gain

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


class Skip(keras.layers.Wrapper):
    def call(self, inputs):
        return inputs + self.layer(inputs)

    def compute_output_shape(self, shape):
        return shape


class Leaky(keras.layers.LeakyReLU):
    def call(self, x):
        return super().call(x) * 2


class Weighed(keras.layers.Wrapper):
    '''Adds a weight to the layer that it wraps, as layers for learned dropout do.'''

    def build(self, input_shape=None):
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        super().build()
        self.share = self.layer.add_weight(name="share", shape=(1,), initializer="ones")

    def call(self, inputs, training=None):
        return self.layer.call(inputs) * self.share[0]

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape(shape)


class Late(keras.layers.Layer):
    '''Creates a weight after it is built, and a layer when it is called.'''

    def build(self, shape):
        self.first = self.add_weight(name="first", shape=(shape[-1],), initializer="ones")
        super().build(shape)
        self.second = self.add_weight(name="second", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        if not hasattr(self, "inner"):
            self.inner = keras.layers.Dense(2)
        return self.inner(x * self.first + self.second)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)
"""
OF_LAYERS = {
    "LSTM": lambda own, x: own["Residual"](3, return_sequences=True)(x),
    "GRU": lambda own, x: own["Gated"](3, gain=2.0, reset_after=False)(x),
    "Dense": lambda own, x: own["Scaled"](2, gain=3.0, activation="hard_sigmoid")(x),
    "Wrapper": lambda own, x: own["Skip"](OLD.Dense(3, activation="hard_sigmoid"))(x),
    "LeakyReLU": lambda own, x: own["Leaky"](alpha=0.7)(x),
    "wrapped Dense": lambda own, x: own["Weighed"](OLD.Dense(1))(x),
    "wrapped Conv1D": lambda own, x: own["Weighed"](OLD.Conv1D(2, 2))(x),
    "late": lambda own, x: own["Late"]()(x),
}


@pytest.mark.parametrize("kind", every_third(list(OF_LAYERS)))
def test_classes_derived_from_layers_of_keras(kind: str, tmp_path: Path) -> None:
    path, expected = write(DERIVED, functional(OF_LAYERS[kind]), tmp_path, "2.9.0")
    np.testing.assert_allclose(load(DERIVED, path).model(X), expected, rtol=1e-4, atol=1e-5)


NAMES = """
class Block(keras.layers.Layer):
    '''Without keywords, so that a stored name does not reach it.'''

    def __init__(self, units=3):
        super().__init__()
        self.units = units
        self.dense = keras.layers.Dense(units, activation="relu")

    def call(self, x):
        return x + self.dense(x)

    def get_config(self):
        return {"units": self.units}


class Ignoring(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))

    def call(self, x):
        return K.dot(x, self.w)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Bare(keras.layers.Layer):
    '''Keras 2 stores nothing of it, not even a name.'''

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lstm = keras.layers.LSTM(3, return_sequences=True)

    def call(self, x):
        return self.lstm(x)
"""


def _numbered(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Build models before, as in a notebook: the names of the layers end in numbers."""

    def built(own: Any) -> Any:
        build(own)
        build(own)
        return build(own)

    return built


def _sequential(*names: str) -> Callable[[Any], Any]:
    def build(own: Any) -> Any:
        own_layers = [own[name]() for name in names]
        return tf_keras.Sequential([OLD.Input((STEPS, FEATURES)), *own_layers, OLD.Dense(2)])

    return build


NAMED = {
    "without keywords": functional(lambda own, x: own["Block"]()(own["Block"](3)(x))),
    "ignoring them": functional(lambda own, x: own["Ignoring"](2)(own["Ignoring"](4)(x))),
    "without a config": functional(lambda own, x: own["Bare"]()(own["Bare"]()(x))),
    "Sequential": _sequential("Bare", "Block", "Bare"),
}


@pytest.mark.long
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("kind", NAMED)
def test_names_of_layers_of_own_classes(kind: str, numbered: bool, tmp_path: Path) -> None:
    build = _numbered(NAMED[kind]) if numbered else NAMED[kind]
    path, expected = write(NAMES, build, tmp_path, "2.9.0")
    np.testing.assert_allclose(load(NAMES, path).model(X), expected, rtol=1e-4, atol=1e-5)


def test_arguments_that_the_file_lacks(tmp_path: Path) -> None:
    path, _ = write(NAMES, NAMED["Sequential"], tmp_path, "2.9.0")
    text = NAMES.replace("def __init__(self, **kwargs):", "def __init__(self, size, **kwargs):")
    with pytest.raises(UnsupportedModelError, match="does not contain 'size' of your class Bare"):
        load(text, path)


IMPORTED = {
    "from tensorflow.python.keras.layers import Layer": "Layer",
    "from tensorflow.python.keras.engine.base_layer import Layer": "Layer",
    "from tensorflow.python import keras as old": "old.layers.Layer",
    "import tf_keras as old\nfrom tf_keras import backend as K, layers": "old.layers.Layer",
    "from tensorflow.compat.v1.keras.backend import set_session\n"
    "from tensorflow.compat.v1.keras import layers as old": "old.Layer",
    "from tensorflow.compat.v2 import keras as old": "old.layers.Layer",
    "from tensorflow.contrib.keras.python.keras import layers as old\n"
    "from tensorflow.contrib.keras.python.keras.engine import InputSpec": "old.Layer",
    "from tensorflow.contrib import keras as old": "old.layers.Layer",
    "import tensorflow as tf1\nfrom tensorflow.contrib.keras.api.keras.models import Model": (
        "tf1.contrib.keras.layers.Layer"
    ),
    "from tensorflow import keras as old\nregister = old.saving.register_keras_serializable": (
        "old.layers.Layer"
    ),
    "from keras.engine.training import Model\nfrom keras.utils.np_utils import to_categorical": (
        "keras.layers.Layer"
    ),
    "from keras.layers.core.embedding import Embedding\nfrom tensorflow.python.keras.utils import "
    "tf_utils": "keras.layers.Layer",
}
# As editors completed them: the files of Keras inside other packages.
COMPLETED = {
    "from keras.api.layers import Dense, Layer": "Layer",  # Keras 3.0
    "import keras.api as old": "old.layers.Layer",
    "from keras.api import keras as old": "old.layers.Layer",  # Keras 2.6
    "from keras.api.keras.layers import Layer": "Layer",
    "from keras.api._v2 import keras as old": "old.layers.Layer",  # Keras 2.7
    "from keras.api._v2.keras import layers as old, backend": "old.Layer",
    "from tensorflow.keras.api.keras.layers import Layer": "Layer",
    "from tensorflow.python.keras.api._v2.keras import layers as old": "old.Layer",
    "import tensorflow.python.keras.api._v2.keras.layers as old": "old.Layer",
    "from tensorflow_core.python.keras.layers import Layer": "Layer",
    "from tensorflow_core.python.keras.api import keras as old": "old.layers.Layer",
    "import tensorflow_core as tf1\nfrom tensorflow_core.python.framework import tensor_shape\n"
    "from tensorflow_core.keras.models import Model": "tf1.keras.layers.Layer",
    "from keras._tf_keras.keras.layers import Layer": "Layer",
}


@pytest.mark.parametrize("imports", every_third([*IMPORTED, *COMPLETED]))
def test_modules_of_keras_2(imports: str, tmp_path: Path) -> None:
    """The layers of ``tensorflow.python.keras`` and ``tf_keras`` are none of Keras 3."""
    path, expected = write(NAMES, NAMED["ignoring them"], tmp_path, "2.9.0")
    text = NAMES.replace("keras.layers.Layer", (IMPORTED | COMPLETED)[imports])
    np.testing.assert_allclose(load(text, path, imports).model(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "imports",
    [
        "from keras.layers import recurrent",
        "from keras.engine import topology",
        "from keras.layers.core import Dense\nfrom keras.layers import *",
        "from keras.layers import merge, wrappers\nfrom keras.utils import np_utils",
        "from keras.utils import HDF5Matrix\nfrom keras.callbacks import TensorBoard, Unknown",
    ],
)
def test_imported_names_that_are_no_classes(imports: str, tmp_path: Path) -> None:
    """They can be called: ``keras.layers.merge`` was a module and a function."""
    path, expected = write(NAMES, NAMED["ignoring them"], tmp_path, "2.9.0")
    loaded = load(NAMES, path, imports)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "imports",
    ["from keras.layers import SReLU", "from keras.models import Graph"],
)
def test_imports_of_what_keras_3_lacks(imports: str, tmp_path: Path) -> None:
    path, _ = write(NAMES, NAMED["ignoring them"], tmp_path, "2.9.0")
    with pytest.raises(UsageError) as caught:
        load(NAMES, path, imports)
    assert "Remove the import from own.py" in str(caught.value.hint)


@pytest.mark.parametrize(
    "imports",
    ["from tensorflow.contrib import rnn", "import tensorflow.contrib.slim as slim",
     "import tensorflow as tf1\nxavier = tf1.contrib.layers.xavier_initializer()"],
)  # fmt: skip
def test_imports_of_other_parts_of_tensorflow_1(imports: str, tmp_path: Path) -> None:
    path, _ = write(NAMES, NAMED["ignoring them"], tmp_path, "2.9.0")
    with pytest.raises(UsageError) as caught:
        load(NAMES, path, imports)
    assert "Install" not in str(caught.value.hint)
    assert "edgeattn provides tensorflow.contrib.keras only" in str(caught.value.hint)


ATTENDING = """
class Encoder(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(2, 4)
        self.supports_masking = True

    def call(self, x):
        return x + self.attention(x, x)
"""


@pytest.mark.parametrize("version", only(["2.9.0", "2.15.0"], "2.15.0"))
def test_masks_inside_own_classes(version: str, tmp_path: Path) -> None:
    """Keras up to 2.9 ignored them; later, padded queries attended to all steps equally."""

    def call(own: Any, x: Any) -> Any:
        masked = OLD.Masking()(x) if version != "2.9.0" else x
        return OLD.Flatten()(own["Encoder"]()(masked))

    X[1, 3:] = X[2] = 0
    path, expected = write(ATTENDING, functional(call), tmp_path, version)
    if version == "2.9.0":  # with a mask that the Keras of the file ignores
        masking = functional(lambda own, x: OLD.Flatten()(own["Encoder"]()(OLD.Masking()(x))))
        path, _ = write(ATTENDING, masking, tmp_path, version)
    loaded = load(ATTENDING, path)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)
    assert any("MultiHeadAttention treats masks as in Keras 2" in note for note in loaded.notes)


def test_classes_registered_under_another_name(tmp_path: Path) -> None:
    text = (
        "@keras.saving.register_keras_serializable(package='My layers', name='Doubling 2')\n"
        "class Double(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n"
    )
    names: dict[str, Any] = {"keras": keras, "__name__": "own"}
    exec(text, names)
    x = keras.Input((STEPS, FEATURES))
    model = keras.Model(x, keras.layers.Dense(2)(names["Double"]()(x)))
    (tmp_path / "own.py").write_text(f"import keras\n{text}")
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"m{suffix}")
        loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=tmp_path / "own.py")
        np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


HIGHWAY = """
class Highway(keras.layers.Layer):
    def build(self, shape):
        size = int(shape[-1])
        self.w = self.add_weight(name="w", shape=(size, size), initializer="glorot_uniform")
        self.b = self.add_weight(name="b", shape=(size,), initializer="zeros")
        self.built = True

    def call(self, x):
        gate = K.sigmoid(K.dot(x, self.w) + self.b)
        return gate * K.tanh(x) + (1.0 - gate) * x

class Norm(keras.layers.Layer):
    def call(self, x):
        return K.sqrt(K.sum(K.square(x), axis=-1, keepdims=True))

class Repeated(keras.layers.Wrapper):
    def call(self, x):
        return self.layer(self.layer(x))

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape(shape)
"""


@pytest.mark.parametrize(
    "call",
    [
        lambda own, x: OLD.TimeDistributed(own["Highway"]())(x),
        lambda own, x: OLD.TimeDistributed(own["Norm"]())(x),
        pytest.param(
            lambda own, x: OLD.TimeDistributed(OLD.TimeDistributed(own["Norm"]()))(
                OLD.Reshape((STEPS, FEATURES, 1))(x)
            ),
            marks=pytest.mark.long,
        ),
        pytest.param(lambda own, x: own["Repeated"](own["Highway"]())(x), marks=pytest.mark.long),
    ],
    ids=["time_distributed", "other_shape", "nested", "own_wrapper"],
)
def test_output_shapes_are_those_of_the_call(
    call: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    """A class without ``compute_output_shape`` was refused inside other layers."""
    path, expected = write(HIGHWAY, functional(call), tmp_path, "2.8.0")
    loaded = load(HIGHWAY, path)
    np.testing.assert_allclose(loaded.model(X), expected, atol=1e-5)
    assert loaded.model.output_shape[1:] == expected.shape[1:]


SCORED = """
class Scored(keras.layers.Layer):
    def build(self, shape):
        self.v = self.add_weight(name="v", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        v = K.reshape(self.v, (-1, 1))
        return K.sum(K.softmax(K.dot(x, v), axis=1) * x, axis=1)
"""


def test_tensors_in_attributes_with_weights(tmp_path: Path) -> None:
    """Keras before 2.4 had one graph; the tensor of a graph was used in the next one."""
    call = functional(lambda own, x: own["Scored"]()(x))
    path, expected = write(f"K = keras.backend\n{SCORED}", call, tmp_path, "2.2.4")
    text = SCORED.replace("v = K", "self.v = K").replace(", v)", ", self.v)")
    loaded = load(text, path, "from keras import backend as K").model
    predict = tf.function(loaded)
    np.testing.assert_allclose(predict(X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded(X), expected, rtol=1e-4, atol=1e-5)
