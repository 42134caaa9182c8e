"""Graphs with functions that XLA compiles, such as grouped convolutions on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
X = np.random.default_rng(5).normal(size=(4, 8, 8, 4)).astype("float32")


def _grouped(module: Any) -> Any:
    x = module.Input(X.shape[1:], name="x")
    h = module.layers.Conv2D(8, 3, groups=4, activation="relu")(x)
    h = module.layers.Reshape((36, 8))(h)
    h = module.layers.Conv1D(4, 3, groups=2)(h)
    return module.Model(x, module.layers.Dense(3)(h))


class Compiled(tf.Module):  # type: ignore[misc]
    """A function of the user, called twice and in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(6).normal(size=(4, 4)), dtype="float32")
        self.step = tf.function(lambda x: tf.tanh(x @ self.kernel), jit_compile=True)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 4), name="x")])
    def __call__(self, x: Any) -> Any:
        y = self.step(self.step(x))
        return tf.while_loop(lambda k, _: k < 3, lambda k, y: (k + 1, self.step(y)), (0, y))[1]


def _exported(module: Any, folder: Path) -> Any:
    model = _grouped(module)
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(0, 0.5, weight.shape) for weight in model.weights])
    model.export(folder)
    return model


def _module(folder: Path) -> Any:
    module = Compiled()
    tf.saved_model.save(module, str(folder))
    return module


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "keras": lambda folder: _exported(keras, folder),
    "tf_keras": lambda folder: _exported(tf_keras, folder),
    "module": _module,
}


@pytest.mark.long
@pytest.mark.parametrize("kind", only(CONVERTERS, "onnx"))
@pytest.mark.parametrize("name", only(FOLDERS, "tf_keras"))
def test_graphs_convert(name: str, kind: str, tmp_path: Path) -> None:
    model = FOLDERS[name](tmp_path / "graph")
    loaded = load_model(audit_file(tmp_path / "graph")).model
    path = tmp_path / f"m.{kind}"
    file = CONVERTERS[kind].convert(loaded, interface_of(loaded), recipe_for("float32"), path)
    runner = open_runner(path, kind, file.inputs, file.outputs)
    for sample in X:
        (actual,) = runner.run({file.inputs[0].name: sample[None]}).values()
        np.testing.assert_allclose(actual, np.asarray(model(sample[None])), rtol=1e-4, atol=1e-5)
