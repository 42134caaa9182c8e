"""Layers and models of the user's own classes, written for any Keras version."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code import custom_objects

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
# A layer as programs for Keras 2 contain it.
POOLING = """
class Pooling(Layer):
    def __init__(self, units=4, **kwargs):
        self.units = units
        super(Pooling, self).__init__(**kwargs)

    def build(self, input_shape):
        size = int(input_shape[-1])
        self.W = self.add_weight(name="{}_W".format(self.name), shape=(size, self.units),
                                 initializer="glorot_uniform")
        self.u = self.add_weight("u", shape=(self.units,))
        super(Pooling, self).build(input_shape)

    def call(self, x, mask=None):
        hidden = K.tanh(K.dot(x, self.W)) + K.in_train_phase(x[..., :1], K.zeros_like(x[..., :1]))
        scores = K.squeeze(K.dot(hidden, K.expand_dims(self.u)), axis=-1)
        a = K.exp(scores - K.max(scores, axis=-1, keepdims=True))
        a /= K.cast(K.sum(a, axis=1, keepdims=True) + K.epsilon(), K.floatx())
        steps = K.int_shape(x)[1]
        return K.batch_dot(K.permute_dimensions(x, (0, 2, 1)), a, axes=(2, 1)) * steps

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return dict(super(Pooling, self).get_config(), units=self.units)
"""
IMPORTS = [
    "from keras import backend as K\nfrom keras.layers import Layer",
    "import keras.backend as K\nfrom keras.engine.topology import Layer, InputSpec",
    "import keras\nK = keras.backend\nfrom keras.engine import Layer",
    "from tensorflow.keras import backend as K\nfrom tensorflow.keras.layers import Layer",
]


def seeded(model: Any) -> Any:
    generator = np.random.default_rng(17)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def old_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file of Keras 2 with the layer, and its outputs."""
    import tf_keras

    names: dict[str, Any] = {"K": tf_keras.backend, "Layer": tf_keras.layers.Layer}
    exec(POOLING, names)
    inputs = tf_keras.Input((STEPS, FEATURES))
    model = seeded(tf_keras.Model(inputs, tf_keras.layers.Dense(2)(names["Pooling"]()(inputs))))
    path = tmp_path_factory.mktemp("old") / "m.h5"
    model.save(path)
    return path, np.asarray(model(X))


@pytest.mark.parametrize("imports", IMPORTS)
def test_backend_of_keras_2(imports: str, old_file: tuple[Path, Any], tmp_path: Path) -> None:
    path, expected = old_file
    (tmp_path / "own.py").write_text(f"{imports}\n{POOLING}")
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize(
    "steps",
    [
        "x._keras_shape[1]",
        "len(x._keras_shape) + self.W._keras_shape[0] - 1",
        pytest.param("K.dot(x, self.W)._keras_shape[1]", marks=pytest.mark.long),
        pytest.param(
            "K.int_shape(K.reshape(x, (-1, x._keras_shape[1] * x._keras_shape[2])))[1] / 3",
            marks=pytest.mark.long,
        ),
    ],
)
def test_shapes_of_tensors_before_keras_2_3(
    steps: str, old_file: tuple[Path, Any], tmp_path: Path
) -> None:
    text = POOLING.replace("K.int_shape(x)[1]", steps)
    (tmp_path / "own.py").write_text(f"{IMPORTS[1]}\n{text}")
    loaded = load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    assert not any("not compared" in note for note in loaded.notes)
    np.testing.assert_allclose(loaded.model(X), old_file[1], rtol=1e-4, atol=1e-5)


def test_shape_that_a_program_sets(old_file: tuple[Path, Any], tmp_path: Path) -> None:
    lines = "y = K.identity(x)\n        y._keras_shape = (None, 5, 3)\n        steps"
    text = POOLING.replace("steps = K.int_shape(x)", f"{lines} = y._keras_shape")
    (tmp_path / "own.py").write_text(f"{IMPORTS[1]}\n{text}")
    loaded = load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), old_file[1], rtol=1e-4, atol=1e-5)


def test_class_that_fails_in_keras_3(old_file: tuple[Path, Any], tmp_path: Path) -> None:
    """Its output shape is known, so that Keras would call it only in the conversion."""
    text = POOLING.replace("K.int_shape(x)[1]", "x._size_of_keras")
    (tmp_path / "own.py").write_text(f"{IMPORTS[0]}\n{text}")
    with pytest.raises(UnsupportedModelError, match="class Pooling fails in Keras 3") as error:
        load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    assert "_size_of_keras" in error.value.message
    assert "Change Pooling" in str(error.value.hint)


@pytest.mark.parametrize("module", ["own_layers.gates", "__main__"])
def test_module_of_a_missing_class(module: str, tmp_path: Path) -> None:
    """Keras 3 stores it, so that the user knows which file or package to pass."""
    cls = type("Gate", (keras.layers.Layer,), {"__module__": module, "call": lambda self, x: x})
    inputs = keras.Input((3,))
    keras.Model(inputs, cls(name="gate")(inputs)).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"))
    of_module = "" if module == "__main__" else f" of the module {module!r}"
    message = f"Layer 'gate' needs the class 'Gate'{of_module}, which Keras does not have."
    assert message in error.value.message


def test_missing_classes_have_a_line_each_in_inspect(edgeattn: Any, tmp_path: Path) -> None:
    outputs = inputs = keras.Input((3,))
    for name in ("Gate", "Mixed"):
        cls = type(name, (keras.layers.Layer,), {"call": lambda self, x: x})
        outputs = cls(name=f"{name}\nof")(outputs)
    keras.Model(inputs, outputs).save(tmp_path / "m.h5")
    result = edgeattn("inspect", tmp_path / "m.h5")
    assert result.code == 3
    assert result.out.splitlines()[2:5] == [
        "Cannot be loaded: The file needs 2 classes and functions that it does not contain:",
        r"  Layer 'Gate\nof' needs the class 'Gate', which Keras does not have.",
        r"  Layer 'Mixed\nof' needs the class 'Mixed', which Keras does not have.",
    ]


@pytest.mark.parametrize("training", [None, False])
def test_call_without_an_argument_that_the_file_passes(
    training: bool | None, tmp_path: Path
) -> None:
    """Keras drops ``training`` for a class that has no such argument."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    own = custom_objects.load_custom_objects(path)["Weighed"]
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, own(4)(inputs, training=training))
    model(X)  # builds the sublayers
    seeded(model).save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=path)
    np.testing.assert_allclose(loaded.model(X), model(X), atol=1e-5)


def test_line_that_fails_when_the_model_is_built(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    text = (
        "import keras\n\n\nclass Scaled(keras.layers.Layer):\n    def build(self, shape):\n"
        "        self.scale = self.add_weight(name='scale', shape=(shape[-1],))\n\n"
        "    def call(self, x):\n        return x * self.scale\n"
    )
    path.write_text(text)
    own = custom_objects.load_custom_objects(path)
    inputs = keras.Input((3,))
    keras.Model(inputs, own["Scaled"]()(inputs)).save(tmp_path / "m.keras")
    path.write_text(text.replace("shape[-1]", "shape.as_list()[-1]"))
    with pytest.raises(UnsupportedModelError, match="as_list") as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=path)
    assert "Change Scaled.build (own.py, line 6)" in str(error.value.hint)


OWN = """
import keras


class Weighed(keras.layers.Layer):
    '''The sublayers are built in call, which Keras does not trace.'''

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.key = keras.layers.Dense(units)
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]

    def call(self, inputs):
        hidden = self.norms[1](self.norms[0](self.key(inputs)))
        weights = keras.ops.softmax(keras.ops.sum(hidden, axis=-1, keepdims=True), axis=1)
        return keras.ops.sum(weights * inputs, axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Decayed(keras.layers.Layer):
    # TensorFlow does not know the shape of its result while tracing.

    def call(self, inputs):
        decay = keras.ops.full_like(inputs, 0.5)
        return keras.ops.associative_scan(
            lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (decay, inputs), axis=1
        )[1]

    def compute_output_shape(self, input_shape):
        return input_shape


class Twice(keras.layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs) * 2

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


class Network(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = keras.layers.Dense(units)
        self.recurrent = keras.layers.LSTM(3)
        self.blocks = [keras.layers.Dense(3), keras.layers.Dense(2)]

    def call(self, inputs):
        x = self.recurrent(self.first(inputs))
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Bare(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(4), keras.layers.LSTM(2)]

    def call(self, x):
        return self.parts[1](self.parts[0](x))


class TwoArguments(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.lstm = keras.layers.Dense(4), keras.layers.LSTM(4)

    def call(self, numbers, series=None, training=False):
        return self.dense(numbers) + self.lstm(series)


class Tower(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = keras.layers.Embedding(9, 3)
        self.out = keras.layers.Dense(2)

    def call(self, inputs):
        numbers, words = inputs
        return {"answer": self.out(numbers), "mean": keras.ops.mean(self.words(words), axis=1)}


def network():
    model = Network()
    model(keras.ops.zeros((1, 5, 3)))
    return model


def network_that_is_built():
    model = Network()
    model.build((None, 5, 3))
    return model


def network_of_any_length():
    model = Network()
    model.build((None, None, 3))
    return model


class Words(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words, self.out = keras.layers.Embedding(9, 3), keras.layers.Dense(2)

    def call(self, inputs):
        return keras.ops.max(self.out(self.words(inputs)), axis=1)


def words_that_are_built():
    model = Words()
    model.build((None, 6))
    return model


class OwnWeights(keras.Model):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 4), name="w")
        self.dense = keras.layers.Dense(2)
        self.dense.build((None, 4))
        self.built = True

    def call(self, x):
        return self.dense(keras.ops.tanh(keras.ops.matmul(x[:, 0], self.w)))


class OwnBuild(keras.Model):
    # Its layers are built when they are called.

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        pairs = [(keras.layers.LayerNormalization(), keras.layers.Dense(3)) for _ in range(2)]
        self.blocks = {"first": pairs[:1], "other": (pairs[1], 3)}
        self.lstm = keras.layers.LSTM(2)

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        super().build(shape)

    def call(self, x):
        first = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        x = keras.ops.concatenate([first, x], axis=1)
        for norm, dense in (*self.blocks["first"], self.blocks["other"][0]):
            x = x + dense(norm(x))
        return self.lstm(x)


def own_weights():
    model = OwnWeights()
    model.build((None, 5, 3))
    return model


def not_built():
    return Network()
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file with the classes, and the classes by name."""
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    names: dict[str, Any] = {"__name__": "own"}
    exec(OWN, names)
    return path, names


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
def test_overridden_output_shape(suffix: str, own: Any, tmp_path: Path) -> None:
    file, classes = own
    inputs = keras.Input((STEPS, FEATURES))
    weighed = classes["Weighed"](7)
    weighed(np.zeros((1, STEPS, FEATURES), "float32"))
    model = seeded(keras.Model(inputs, layers.Dense(2)(weighed(inputs))))
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=file)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_result_of_a_shape_that_is_unknown_while_tracing(own: Any, tmp_path: Path) -> None:
    file, classes = own
    inputs = keras.Input((STEPS, FEATURES))
    keras.Model(inputs, classes["Decayed"]()(inputs)).save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    expected = np.zeros_like(X)
    for step in range(STEPS):
        expected[:, step] = X[:, step] + 0.5 * expected[:, step - 1] * (step > 0)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-6)


SHARING: dict[str, Callable[[Any, Any, Any], Any]] = {
    "two": lambda twice, shared, x: twice(shared)(twice(shared)(x)),
    "three": lambda twice, shared, x: twice(shared)(twice(shared)(x)) - twice(shared)(x),
    "nested": lambda twice, shared, x: twice(twice(shared))(twice(shared)(x)),
    "called twice": lambda twice, shared, x: _called_twice(twice(shared), twice(shared), x),
    "next to others": lambda twice, shared, x: layers.Dense(2)(
        twice(shared)(layers.LSTM(FEATURES, return_sequences=True)(twice(shared)(x)))
    ),
}


def _called_twice(first: Any, second: Any, x: Any) -> Any:
    return first(second(first(x)))


@pytest.mark.long
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("kind", SHARING)
def test_layers_that_share_another_layer(kind: str, suffix: str, own: Any, tmp_path: Path) -> None:
    """The file contains the weights of the shared layer once."""
    file, classes = own
    inputs = keras.Input((STEPS, FEATURES))
    shared = layers.Dense(FEATURES, activation="tanh")
    model = seeded(keras.Model(inputs, SHARING[kind](classes["Twice"], shared, inputs)))
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=file)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["layer", "nested", "model", "h5"])
@pytest.mark.parametrize(
    ("module", "registered", "package", "imported"),
    [
        ("keras_hub.src.layers.encoder", "keras_hub>Encoder", "keras-hub", None),
        ("keras_nlp.src.models.bert.encoder", "keras_nlp>Encoder", "keras-nlp", None),
        (None, "keras_cv.layers>Encoder", "keras-cv", "keras_cv.layers"),
        (None, "Addons>Encoder", "tensorflow-addons", "tensorflow_addons.layers"),
    ],
)
def test_classes_of_packages_are_named(
    module: str | None, registered: str, package: str, imported: str | None, place: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A layer, one in a nested model, or the whole model may be of such a class."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="dense")], name="inner")
    path = tmp_path / ("m.h5" if place == "h5" else "m.keras")
    (keras.Sequential([keras.Input((3,)), inner]) if place == "nested" else inner).save(path)

    def changed(config: Any) -> Any:
        if isinstance(config, list):
            return [changed(item) for item in config]
        if not isinstance(config, dict):
            return config
        whole = place == "model" and config.get("class_name") == "Sequential"
        if whole or (place != "model" and config.get("class_name") == "Dense"):
            arguments = {"num_layers": 2} if whole else config["config"]
            name = {"module": module, "class_name": "Encoder", "registered_name": registered}
            return {**config, **name, "config": arguments}
        return {key: changed(item) for key, item in config.items()}

    if place == "h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(changed(json.loads(file.attrs["model_config"])))
    else:
        with zipfile.ZipFile(path) as source:
            content = {name: source.read(name) for name in source.namelist()}
        content["config.json"] = json.dumps(changed(json.loads(content["config.json"]))).encode()
        with zipfile.ZipFile(path, "w") as target:
            for name, data in content.items():
                target.writestr(name, data)
    with pytest.raises(UnsupportedModelError, match="needs the class Encoder of the pack") as error:
        load_model(audit_file(path))
    assert ("The model needs" in error.value.message) == (place == "model")
    assert f"pip install {package}." in str(error.value.hint)
    assert f"from {imported or module} import Encoder" in str(error.value.hint)


def test_subclassed_model(own: Any, tmp_path: Path) -> None:
    file, classes = own
    model = classes["Network"](6)
    model(X)
    seeded(model).save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    assert loaded.model.inputs[0].shape == (None, STEPS, FEATURES)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", only([STEPS, None], None))
def test_subclassed_model_with_its_own_build(steps: int | None, own: Any, tmp_path: Path) -> None:
    """Keras calls this method when it loads the file, but not the model, and then fails."""
    file, classes = own
    model = classes["OwnBuild"]()
    model(X if steps else keras.Input((None, FEATURES)))
    seeded(model).save(tmp_path / "m.keras")
    path = audit_file(tmp_path / "m.keras")
    loaded = load_model(path, custom_objects=file, time_steps=STEPS)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_subclassed_model_with_several_inputs_and_outputs(own: Any, tmp_path: Path) -> None:
    file, classes = own
    words = np.random.default_rng(3).integers(0, 9, (4, 6))
    model = classes["Tower"]()
    expected = model([X[:, 0], words])
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "samples.npz", numbers=X[:, 0], words=words)
    loaded = load_model(
        audit_file(tmp_path / "m.keras"), custom_objects=file, samples=tmp_path / "samples.npz"
    )
    assert [tensor.name for tensor in loaded.model.inputs] == ["numbers", "words"]
    actual = loaded.model([X[:, 0], words])
    for name in ("answer", "mean"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6)


def test_subclassed_model_without_keywords(own: Any, tmp_path: Path) -> None:
    """Keras stores arguments of every model, which it then cannot pass to this one."""
    file, classes = own
    model = classes["Bare"]()
    expected = np.asarray(model(X))
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-6)


def test_subclassed_model_with_several_arguments(own: Any, tmp_path: Path) -> None:
    """Keras stores the shape of the first one only, and cannot load the file itself."""
    file, classes = own
    model = classes["TwoArguments"]()
    model(X[:, 0], X)
    expected = np.asarray(seeded(model)(X[:, 0], X))
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="shapes of all its inputs") as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    assert "(numbers, series): --samples" in str(error.value.hint)
    np.savez(tmp_path / "samples.npz", series=X, numbers=X[:, 0])
    loaded = load_model(
        audit_file(tmp_path / "m.keras"), custom_objects=file, samples=tmp_path / "samples.npz"
    )
    actual = loaded.model({"numbers": X[:, 0], "series": X})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_subclassed_model_in_h5(own: Any, tmp_path: Path) -> None:
    """Keras writes this file without a list of layers; the error asked for time steps."""
    file, classes = own
    model = classes["Network"]()
    model(X)
    seeded(model).save(tmp_path / "m.h5")
    np.save(tmp_path / "samples.npy", X)
    for samples in (None, tmp_path / "samples.npy"):
        with pytest.raises(UnsupportedModelError, match="class Network without a list") as error:
            load_model(audit_file(tmp_path / "m.h5"), custom_objects=file, samples=samples)
        assert "model.load_weights('m.h5') and model.save('model.keras')" in str(error.value.hint)
    # What the hint says.
    other = classes["Network"]()
    other(X)
    other.load_weights(tmp_path / "m.h5")
    other.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"), custom_objects=file)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_subclassed_model_without_weights_in_h5(tmp_path: Path) -> None:
    """Without weights, the list is not needed. The hint was to add an Input layer."""
    file = tmp_path / "half.py"
    file.write_text(
        "import keras\n\n\nclass Half(keras.Model):\n    def call(self, x):\n        return x / 2\n"
    )
    model = custom_objects.load_module(file, option="").Half()
    model(X)
    model.save(tmp_path / "m.h5")
    np.save(tmp_path / "samples.npy", X)
    with pytest.raises(UnsupportedModelError, match="has no input shape") as error:
        load_model(audit_file(tmp_path / "m.h5"), custom_objects=file)
    assert "--samples FILE" in str(error.value.hint)
    loaded = load_model(
        audit_file(tmp_path / "m.h5"), custom_objects=file, samples=tmp_path / "samples.npy"
    )
    np.testing.assert_array_equal(loaded.model(X), X / 2)


def test_weights_of_a_subclassed_model(own: Any, tmp_path: Path) -> None:
    file, classes = own
    model = classes["Network"]()
    model(X)
    seeded(model).save_weights(tmp_path / "m.weights.h5")
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{file}:network")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("Network", "network_that_is_built"),
        pytest.param("Network", "network_of_any_length", marks=pytest.mark.long),
        ("Words", "words_that_are_built"),
        ("OwnWeights", "own_weights"),
        pytest.param("Network", "not_built", marks=pytest.mark.long),
    ],
)
def test_weights_of_a_subclassed_model_that_is_not_called(
    name: str, function: str, own: Any, tmp_path: Path
) -> None:
    """Keras 3 records the shape of ``build`` and does not create the weights of the layers."""
    file, classes = own
    x = np.random.default_rng(3).integers(0, 9, (4, 6)) if name == "Words" else X
    model = classes[name]()
    model(x)
    seeded(model).save_weights(tmp_path / "m.weights.h5")
    options: dict[str, Any] = {"architecture": f"{file}:{function}", "time_steps": x.shape[1]}
    if function == "not_built":
        with pytest.raises(UsageError, match="returned Network, not a built") as error:
            load_model(audit_file(tmp_path / "m.weights.h5"), **options)
        assert "Call the model before" in str(error.value.hint)
        np.savez(tmp_path / "x.npz", x=x)
        options["samples"] = tmp_path / "x.npz"
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), **options)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [("words", "image"), ("context", "x")])
def test_weights_of_a_subclassed_model_that_takes_a_list(
    names: tuple[str, str], tmp_path: Path
) -> None:
    """Several arrays are passed as a dictionary, and as a list if call unpacks its inputs."""
    file = tmp_path / "program.py"
    file.write_text(
        "import keras\n"
        "class Net(keras.Model):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = keras.layers.Dense(4), keras.layers.Dense(4)\n"
        "    def call(self, inputs):\n"
        "        context, x = inputs\n"
        "        return self.a(context) - self.b(x)\n"
    )
    model = custom_objects.load_module(file, option="--architecture").Net()
    first, second = X[:, 0], X[:, :2].reshape(len(X), -1)
    expected = model([first, second])
    model.save_weights(tmp_path / "m.weights.h5")
    arrays = dict(zip(names, (first, second), strict=True))
    if names == ("context", "x"):  # the names in call have an order, whatever that of the file
        arrays = dict(reversed(arrays.items()))
    np.savez(tmp_path / "samples.npz", **arrays)
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"),
        architecture=f"{file}:Net",
        samples=tmp_path / "samples.npz",
    )
    assert [tensor.name for tensor in loaded.model.inputs] == list(names)
    order = "of their file" if names == ("words", "image") else "in which call unpacks them"
    assert f"in the order {order}: {', '.join(names)}." in loaded.notes[0]
    np.testing.assert_allclose(loaded.model([first, second]), expected, rtol=1e-5, atol=1e-6)


def test_free_time_axis_of_a_subclassed_model(own: Any, tmp_path: Path) -> None:
    file, classes = own
    model = classes["Network"]()
    model(keras.Input((None, FEATURES)))
    seeded(model).save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="a fixed number of time steps"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=file, time_steps=STEPS)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("import no_such_package", "no_such_package", "Install the package, or remove the import"),
        ("from attention import Attention", "'attention'", "remove the import from own.py"),
        ("from attention import Attention", "'attention'", "put it beside own.py"),
        ("raise ValueError('wrong')", "wrong", "Try: python"),
        ("import tensorflow_addons as tfa", "addons", "has no version for the current Keras"),
    ],
)
def test_import_that_fails_is_reported(
    text: str, message: str, hint: str, old_file: tuple[Path, Any], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    assert hint in str(error.value.hint)


def test_what_to_write_for_the_package_attention(tmp_path: Path) -> None:
    (tmp_path / "build.py").write_text("import keras\nfrom attention import Attention\n")
    with pytest.raises(UsageError) as error:
        custom_objects.load_module(tmp_path / "build.py", option="--architecture")
    assert error.value.message.endswith("(build.py, line 2)")
    hint = str(error.value.hint)
    # Both lines run.
    line = re.search(r"write in build.py: (from \S+ import \w+)\.", hint)
    layer = re.search(r": (Attention\(.*\))$", hint)
    assert line is not None
    assert layer is not None
    names: dict[str, Any] = {}
    exec(f"{line[1]}\nlayer = {layer[1]}", names)
    assert not names["layer"].use_mask


STOPS = """
import keras

class Net(keras.Model):
    def __init__(self, **named):
        super().__init__()
        self.first, self.second, self.named = keras.layers.Dense(3), keras.layers.Dense(2), named

    def call(self, x):
        return self.second(self.first(x), **self.named)

def whole():
    net = Net()
    net(keras.ops.zeros((1, 4)))
    return net

def part():
    net = Net(removed=1)
    net.build((None, 4))
    return net
"""


@pytest.mark.parametrize("name", only(["m.weights.h5", "m.h5"], "m.weights.h5"))
def test_the_call_that_leaves_layers_without_weights_is_reported(name: str, tmp_path: Path) -> None:
    """Not that the second layer has no weights, for which there is no remedy."""
    (tmp_path / "own.py").write_text(STOPS)
    module = custom_objects.load_module(tmp_path / "own.py", option="--architecture")
    module.whole().save_weights(tmp_path / "m.weights.h5")
    if name == "m.h5":
        model = module.whole()
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs["layer_names"] = [layer.name for layer in model.layers]
            for layer in model.layers:
                group = file.create_group(layer.name)
                group.attrs["weight_names"] = [weight.path for weight in layer.weights]
                for weight in layer.weights:
                    group[weight.path] = weight.numpy()
    with pytest.raises(
        UnsupportedModelError, match="unexpected keyword argument 'removed'"
    ) as error:
        load_model(audit_file(tmp_path / name), architecture=f"{tmp_path}/own.py:part")
    assert "change Net.call (own.py, line 10)" in str(error.value.hint)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("import no_such_package", "'no_such_package' (blocks.py, line 2)", "from blocks.py: only"),
        ("from keras import old_part", "(blocks.py, line 2)", "Remove the import from blocks.py"),
        ("import some_addons", "(blocks.py, line 2)", "import of some_addons from blocks.py"),
        ("raise ValueError('wrong')", "wrong (blocks.py, line 2)", "Try: python"),
        ("x = = 1", "invalid syntax (blocks.py, line 2)", "Try: python"),
    ],
)
def test_import_that_fails_in_another_file_is_reported_with_that_file(
    line: str, message: str, hint: str, old_file: tuple[Path, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "own.py").write_text("from blocks import Gate\n")
    (tmp_path / "blocks.py").write_text(f"import keras\n{line}\n")
    addons = tmp_path / "site-packages/some_addons"
    addons.mkdir(parents=True)
    (addons / "__init__.py").write_text("from keras import old_part\n")
    monkeypatch.syspath_prepend(addons.parent)
    with pytest.raises(UsageError) as error:
        load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    first, *others = error.value.message.splitlines()
    assert first.startswith("--custom-objects: own.py failed with ")
    assert first.endswith(message)
    # tf_keras runs in a process without this addition to the path.
    assert len(others) == ("some_addons" in line)
    assert hint in str(error.value.hint)


def test_error_of_a_class_in_another_file_is_reported_with_that_file(
    old_file: tuple[Path, Any], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text("from poolings import Pooling\n")
    (tmp_path / "poolings.py").write_text(
        "import keras\nclass Pooling(keras.layers.Layer):\n"
        "    def __init__(self, units, **kwargs):\n        self.missing\n"
    )
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(old_file[0]), custom_objects=tmp_path / "own.py")
    assert "Change Pooling.__init__ (poolings.py, line 4)" in str(error.value.hint)


FLOAT64 = """
import tensorflow as tf
tf.keras.backend.set_floatx("float64")
"""


def test_model_in_float64(tmp_path: Path) -> None:
    """Programs set the default dtype where they define their layers."""
    import tf_keras

    names: dict[str, Any] = {"K": tf_keras.backend, "Layer": tf_keras.layers.Layer}
    exec(POOLING, names)
    tf_keras.backend.set_floatx("float64")
    try:
        inputs = tf_keras.Input((STEPS, FEATURES))
        model = seeded(tf_keras.Model(inputs, tf_keras.layers.LSTM(2)(inputs)))
        pooled = names["Pooling"]()(tf_keras.layers.LSTM(3, return_sequences=True)(inputs))
        own = seeded(tf_keras.Model(inputs, tf_keras.layers.Dense(2)(pooled)))
        expected = [np.asarray(model(X)), np.asarray(own(X))]
    finally:
        tf_keras.backend.set_floatx("float32")
    model.save(tmp_path / "m.h5")
    own.save(tmp_path / "own.h5")
    (tmp_path / "own.py").write_text(f"{FLOAT64}{IMPORTS[3]}\n{POOLING}")
    for name, values, file in (("m", expected[0], None), ("own", expected[1], tmp_path / "own.py")):
        loaded = load_model(audit_file(tmp_path / f"{name}.h5"), custom_objects=file)
        assert {str(weight.dtype) for weight in loaded.model.weights} == {"float32"}
        assert loaded.model(X).dtype == "float32"
        assert "trained in float64 and is computed in float32" in " ".join(loaded.notes)
        np.testing.assert_allclose(loaded.model(X), values, rtol=1e-4, atol=1e-5)
    assert keras.config.floatx() == "float32"


@pytest.mark.parametrize("attribute", only(["w", "[w]"], "w"))
@pytest.mark.parametrize("value", ["np.random.normal(size=(3, 2))", "np.ones((3, 2))"])
def test_weights_without_variables_of_tensorflow(
    attribute: str, value: str, tmp_path: Path
) -> None:
    """Keras 3 does not save them: the outputs were those of random values, without a note."""
    own = tmp_path / "own.py"
    own.write_text(
        "import keras\nimport numpy as np\nimport tensorflow as tf\n"
        "class Own(keras.layers.Layer):\n"
        "    def build(self, shape):\n"
        f"        w = tf.Variable({value}, dtype='float32')\n"
        f"        self.w = {attribute}\n"
        "        self.dense = keras.layers.Dense(3)\n"
        "    def call(self, x):\n"
        "        w = self.w\n"
        "        return tf.matmul(self.dense(x), w[0] if isinstance(w, list) else w)\n"
        "def net():\n"
        "    x = keras.Input((3,))\n"
        "    return keras.Model(x, Own()(x))\n"
    )
    names: dict[str, Any] = {}
    exec(own.read_text(), names)
    names["net"]().save_weights(tmp_path / "m.weights.h5")
    if "ones" in value:
        loaded = load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{own}:net")
        assert any("with the same values" in note for note in loaded.notes)
    else:
        with pytest.raises(UnsupportedModelError, match="which Keras 3 does not save"):
            load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{own}:net")
