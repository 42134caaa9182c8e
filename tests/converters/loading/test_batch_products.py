"""``K.batch_dot`` and ``Dot`` of four axes in models of Keras before 2.2.5.

Expected values are worked out in NumPy, by the definition in keras/backend/tensorflow_backend.py of
Keras 2.2.4: a product of the last two axes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
PROGRAM = """
import keras
from keras import backend as K
from keras.layers import Dense, Lambda, Layer

def heads(x):
    return K.permute_dimensions(K.reshape(x, (-1, 4, 2, 3)), (0, 2, 1, 3))

def scores(x):
    q = heads(x)
    return K.batch_flatten(PRODUCT)

class Scores(Layer):
    def call(self, x):
        return scores(x)

    def compute_output_shape(self, shape):
        return (shape[0], SIZE)

def layer():
    x = keras.layers.Input((4, 6))
    return keras.models.Model(x, Scores()(Dense(6, name="d")(x)))

def function():
    x = keras.layers.Input((4, 6))
    return keras.models.Model(x, Lambda(scores, output_shape=(SIZE,))(Dense(6, name="d")(x)))
"""
# Of q (3, 2, 4, 3).
PRODUCTS: dict[str, tuple[str, Any]] = {
    "scores": ("K.batch_dot(q, q, axes=[3, 3])", lambda q: q @ q.swapaxes(2, 3)),
    "one axis": ("K.batch_dot(q, q, axes=3)", lambda q: q @ q.swapaxes(2, 3)),
    "columns": ("K.batch_dot(q, q, axes=[2, 2])", lambda q: q.swapaxes(2, 3) @ q),
    "by default": (
        "K.batch_dot(q, K.permute_dimensions(q, (0, 1, 3, 2)))",
        lambda q: q @ q.swapaxes(2, 3),
    ),
    "other ranks": (
        "K.batch_dot(K.sum(q, axis=2), q, axes=[2, 3])",
        lambda q: (q @ q.sum(axis=2)[..., None])[..., 0],
    ),
}


def written(version: str, folder: Path) -> Any:
    """Write weights of a Keras, and return what their layer computes, in heads."""
    x = tf_keras.Input((4, 6))
    model = tf_keras.Model(x, tf_keras.layers.Dense(6, name="d")(x))
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(folder / "w.h5")
    with h5py.File(folder / "w.h5", "a") as file:
        file.attrs["keras_version"] = version
        file.attrs["backend"] = "tensorflow"
    return np.asarray(model(X)).reshape(3, 4, 2, 3).transpose(0, 2, 1, 3)


def load(function: str, product: str, size: int, folder: Path) -> Any:
    program = PROGRAM.replace("PRODUCT", product).replace("SIZE", str(size))
    (folder / "own.py").write_text(program)
    return load_model(audit_file(folder / "w.h5"), architecture=f"{folder / 'own.py'}:{function}")


@pytest.mark.parametrize("function", ["layer", "function"])
@pytest.mark.parametrize("name", only(PRODUCTS, "scores", "other ranks"))
def test_products_of_the_last_two_axes(name: str, function: str, tmp_path: Path) -> None:
    text, product = PRODUCTS[name]
    expected = product(written("2.2.4", tmp_path)).reshape(3, -1)
    loaded = load(function, text, expected.shape[1], tmp_path)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)
    # Calls after another model was loaded compute the same.
    np.testing.assert_allclose(loaded.model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", ["2.2.5", "2.3.1"])
def test_products_of_later_versions(version: str, tmp_path: Path) -> None:
    q = written(version, tmp_path)
    expected = np.einsum("bhtd,bgsd->bhtgs", q, q).reshape(3, -1)
    loaded = load("layer", PRODUCTS["scores"][0], expected.shape[1], tmp_path)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


def test_several_versions_of_tensorflow(tmp_path: Path) -> None:
    q = written("2.2.4-tf", tmp_path)
    with pytest.raises(Exception, match=r"write tf.matmul or tf.einsum"):
        load("layer", PRODUCTS["scores"][0], 32, tmp_path)
    expected = np.einsum("btd,bsd->bts", q[:, 0], q[:, 0]).reshape(3, -1)
    text = "K.batch_dot(q[:, 0], q[:, 0], axes=[2, 2])"
    np.testing.assert_allclose(
        load("layer", text, 16, tmp_path).model(X), expected, rtol=1e-4, atol=1e-5
    )


def test_classes_of_whole_files(tmp_path: Path) -> None:
    """As in attention layers of several heads of that time."""
    q = written("2.2.4", tmp_path)
    expected = (q @ q.swapaxes(2, 3)).reshape(3, -1)
    program = PROGRAM.replace("PRODUCT", PRODUCTS["scores"][0]).replace("SIZE", "32")
    (tmp_path / "own.py").write_text(program)
    built = load("layer", PRODUCTS["scores"][0], 32, tmp_path)
    config = {
        "class_name": "Model",
        "config": {
            "name": "m",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "name": "x",
                    "config": {"batch_input_shape": [None, 4, 6], "dtype": "float32", "name": "x"},
                    "inbound_nodes": [],
                },
                {
                    "class_name": "Dense",
                    "name": "d",
                    "config": {"name": "d", "units": 6, "activation": "linear"},
                    "inbound_nodes": [[["x", 0, 0, {}]]],
                },
                {
                    "class_name": "Scores",
                    "name": "s",
                    "config": {"name": "s"},
                    "inbound_nodes": [[["d", 0, 0, {}]]],
                },
            ],
            "input_layers": [["x", 0, 0]],
            "output_layers": [["s", 0, 0]],
        },
    }
    (tmp_path / "m.json").write_text(json.dumps({**config, "keras_version": "2.2.4"}))
    loaded = load_model(
        audit_file(tmp_path / "w.h5"),
        architecture=str(tmp_path / "m.json"),
        custom_objects=tmp_path / "own.py",
    )
    for model in (built.model, loaded.model):
        np.testing.assert_allclose(model(X), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(loaded.model, keras.Model)


# Of tensors a (3, 2, 4, 5) and b (3, 2, 6, 5), or with the last two axes exchanged.
DOTS: dict[str, tuple[Any, bool, bool, bool]] = {
    # axes, whether a and b have their last two axes exchanged, normalize
    "last axes": ([3, 3], False, False, False),
    "one axis": (3, False, False, False),
    "negative": (-1, False, False, False),
    "columns": ([2, 2], True, True, False),
    "other axes": ([3, 2], False, True, False),
    "cosines": (-1, False, False, True),
}


def dot_model(axes: Any, first: tuple[int, ...], second: tuple[int, ...], **named: Any) -> Any:
    inputs = [tf_keras.Input(first), tf_keras.Input(second)]
    return tf_keras.Model(inputs, tf_keras.layers.Dot(axes, name="d", **named)(inputs))


def saved(model: Any, folder: Path, version: str, backend: str = "tensorflow") -> Any:
    path = folder / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs.update(keras_version=version, backend=backend)
    return audit_file(path)


def rows_of(x: Any, *, exchanged: bool, normalized: bool) -> tuple[np.ndarray, np.ndarray]:
    """What a layer gets, and the rows that its product is of."""
    rows = x / np.linalg.norm(x, axis=-1, keepdims=True) if normalized else x
    return (x.swapaxes(2, 3) if exchanged else x), rows


@pytest.mark.parametrize("name", DOTS)
def test_dot_layers(name: str, tmp_path: Path) -> None:
    """As ``tf.matmul(x, y, adjoint_a, adjoint_b)`` of Keras 2.2.4."""
    axes, *exchanged, normalized = DOTS[name]
    generator = np.random.default_rng(5)
    tensors = [generator.normal(size=(3, 2, n, 5)).astype("float32") for n in (4, 6)]
    (x, a), (y, b) = (
        rows_of(tensor, exchanged=is_exchanged, normalized=normalized)
        for tensor, is_exchanged in zip(tensors, exchanged, strict=True)
    )
    model = dot_model(axes, x.shape[1:], y.shape[1:], normalize=normalized)
    loaded = load_model(saved(model, tmp_path, "2.2.4"))
    np.testing.assert_allclose(loaded.model([x, y]), a @ b.swapaxes(2, 3), rtol=1e-4, atol=1e-5)
    assert loaded.model.output_shape == (None, 2, 4, 6)
    assert any(note.startswith("d: computes the product of the last") for note in loaded.notes)


@pytest.mark.parametrize(
    ("version", "backend"), [("2.2.5", "tensorflow"), ("2.4.0", "tensorflow"), ("2.2.4", "theano")]
)
def test_dot_layers_of_other_versions(version: str, backend: str, tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(3, 2, 4, 5)).astype("float32")
    loaded = load_model(saved(dot_model(3, (2, 4, 5), (2, 4, 5)), tmp_path, version, backend))
    expected = np.einsum("bhtd,bgsd->bhtgs", x, x)
    np.testing.assert_allclose(loaded.model([x, x]), expected, rtol=1e-4, atol=1e-5)
    assert not any("product" in note for note in loaded.notes)


def test_dot_layers_of_three_axes(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(3, 4, 5)).astype("float32")
    loaded = load_model(saved(dot_model(2, (4, 5), (4, 5)), tmp_path, "2.2.4-tf"))
    np.testing.assert_allclose(loaded.model([x, x]), x @ x.swapaxes(1, 2), rtol=1e-4, atol=1e-5)
    assert loaded.notes == ()


def test_dot_layers_of_several_versions_of_tensorflow(tmp_path: Path) -> None:
    file = saved(dot_model(3, (2, 4, 5), (2, 4, 5)), tmp_path, "2.2.4-tf")
    with pytest.raises(UnsupportedModelError, match="'d' is a Dot of tensors with four axes"):
        load_model(file)


DOT_PROGRAM = """
import keras
from keras.layers import Dense, Dot, Input, Lambda, Layer, Permute, Reshape, merge

class Scores(Layer):
    def __init__(self, **named):
        super().__init__(**named)
        self.dot = Dot(3)

    def call(self, x):
        return self.dot([x, x])

def build(scores):
    x = Input((4, 6))
    q = Permute((2, 1, 3))(Reshape((4, 2, 3))(Dense(6, name="d")(x)))
    return keras.models.Model(x, scores(q))

def layer():
    return build(lambda q: Dot(3)([q, q]))

def merged():
    return build(lambda q: merge([q, q], mode="dot", dot_axes=[3, 3]))

def inside():
    return build(Scores())

def beside():
    return build(lambda q: Lambda(lambda x: x)(Dot(3)([q, q])))
"""


@pytest.mark.parametrize("function", ["layer", "merged", "inside", "beside"])
def test_dot_layers_of_programs(function: str, tmp_path: Path) -> None:
    q = written("2.1.6", tmp_path)
    (tmp_path / "own.py").write_text(DOT_PROGRAM)
    architecture = f"{tmp_path / 'own.py'}:{function}"
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=architecture)
    np.testing.assert_allclose(loaded.model(X), q @ q.swapaxes(2, 3), rtol=1e-4, atol=1e-5)


def test_merge_of_files(tmp_path: Path) -> None:
    """``Merge(mode="dot")`` of Keras 1 and early Keras 2."""
    model = dot_model(3, (2, 4, 5), (2, 4, 5))
    saved(model, tmp_path, "2.0.8")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][2] |= {"class_name": "Merge"}
        config["config"]["layers"][2]["config"] = {
            "name": "d",
            "mode": "dot",
            "mode_type": "raw",
            "dot_axes": [3, 3],
        }
        file.attrs["model_config"] = json.dumps(config)
    x = np.random.default_rng(5).normal(size=(3, 2, 4, 5)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    np.testing.assert_allclose(loaded.model([x, x]), x @ x.swapaxes(2, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_artifacts_of_dot_layers(format: str, tmp_path: Path) -> None:
    x, y = (np.random.default_rng(n).normal(size=(1, 2, n, 5)).astype("float32") for n in (4, 6))
    model = dot_model(3, (2, 4, 5), (2, 6, 5))
    loaded = load_model(saved(model, tmp_path, "2.2.4")).model
    names = [tensor.name for tensor in loaded.inputs]
    samples = dict(zip(names, (x, y), strict=True))
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    recipe = recipe_for("float32")
    file = convert(loaded, interface_of(loaded), recipe, tmp_path / "a", samples=samples)
    runner = open_runner(tmp_path / "a", format, file.inputs, file.outputs, as_deployed=True)
    [actual] = runner.run(samples).values()
    np.testing.assert_allclose(actual, x @ y.swapaxes(2, 3), rtol=1e-4, atol=1e-5)
