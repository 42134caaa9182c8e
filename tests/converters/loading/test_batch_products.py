"""``K.batch_dot`` of four axes in programs, classes and Lambda layers of Keras before 2.2.5.

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

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

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
