"""Normalization of Keras 2 along several axes, compared with tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(3).normal(1, 2, size=(8, 7, 4)).astype("float32")
PROGRAM = """
from tensorflow import keras
from tensorflow.keras import layers

def layers_of_keras():
    x = keras.Input((7, 4), name="x")
    y = layers.BatchNormalization(axis=[1, 2])(x)
    y = layers.BatchNormalization([-1], 0.9)(layers.Conv1D(4, 3, padding="same")(y))
    y = layers.LayerNormalization(axis=[1, -1])(y)
    y = layers.LayerNormalization(axis=(2, 1), center=False)(y)
    y = layers.LayerNormalization([-2, -1], scale=False)(y)
    z = layers.Reshape((7, 2, 2))(y)
    z = layers.BatchNormalization(axis=(-1, 1), scale=False)(z)
    z = layers.experimental.SyncBatchNormalization(axis=-1)(z)
    return keras.Model(x, [z, y])

class Norm(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.both = layers.BatchNormalization(axis=[1, 2], center=False)
        self.last = layers.BatchNormalization([-1])
        self.mixed = layers.LayerNormalization([1, -1])

    def call(self, x):
        return self.mixed(self.last(self.both(x)))

def own_class():
    x = keras.Input((7, 4), name="x")
    return keras.Model(x, Norm(name="norm")(x))

class Derived(layers.BatchNormalization):
    pass

def derived():
    x = keras.Input((7, 4))
    return keras.Model(x, Derived(axis=[1, 2])(x))
"""
NAMES = ("w.h5", "w.weights.h5", "m.h5", "m.keras", "m")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(PROGRAM)
    return tmp_path / "own.py"


def _model_of_tf_keras(function: str) -> Any:
    model = run_in_tf_keras(PROGRAM)[function]()
    generator = np.random.default_rng(4)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.long
@pytest.mark.parametrize("name", only(NAMES, "w.weights.h5", "m.h5"))
@pytest.mark.parametrize("function", only(["layers_of_keras", "own_class"], "layers_of_keras"))
def test_axes_of_files(function: str, name: str, script: Path, tmp_path: Path) -> None:
    model = _model_of_tf_keras(function)
    options: dict[str, Any] = {"custom_objects": script} if function == "own_class" else {}
    if name.startswith("w"):
        model.save_weights(tmp_path / name)
        options = {"architecture": f"{script}:{function}"}
    else:
        model.save(tmp_path / name)
    loaded = load_model(audit_file(tmp_path / name), **options).model
    # Not predict, in which TensorFlow fails for the layers of tf_keras.
    expected, found = model(X), loaded(X)
    for one, other in zip(*map(_listed, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def _listed(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):  # of a graph
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


@pytest.mark.parametrize("kind", only(["tflite", "onnx"], "tflite"))
def test_converted_files(kind: str, tmp_path: Path) -> None:
    model = _model_of_tf_keras("layers_of_keras")
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5")).model
    convert = {"tflite": tflite.convert, "onnx": onnx.convert}[kind]
    file = convert(loaded, interface_of(loaded), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", kind, file.inputs, file.outputs)
    expected = [np.asarray(value) for value in model(X)]
    for row in range(len(X)):
        found = list(runner.run({"x": X[row : row + 1]}).values())
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one[0], other[row], rtol=1e-4, atol=1e-5)


def test_generated_inputs_have_the_mean_of_each_position(tmp_path: Path) -> None:
    model = _model_of_tf_keras("layers_of_keras")
    means = np.arange(28.0).reshape(1, 7, 4) * 100
    model.layers[1].moving_mean.assign(means)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5")).model
    inputs = plausible_inputs(loaded, interface_of(loaded), np.random.default_rng(1))
    np.testing.assert_allclose(inputs["x"].mean(axis=0), means[0], atol=2)


def test_a_class_derived_from_it_is_the_graph_of_tf_keras(script: Path, tmp_path: Path) -> None:
    """Keras 3 cannot run it, for a reason that names the axes."""
    model = _model_of_tf_keras("derived")
    model.save_weights(tmp_path / "w.h5")
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=f"{script}:derived")
    assert loaded.is_graph
    assert any("Derived(axis=[1, 2]): in Keras 3, a class derived" in x for x in loaded.notes)
    (found,) = loaded.model.predict(X, verbose=0).values()
    np.testing.assert_allclose(found, model(X), rtol=1e-4, atol=1e-5)
