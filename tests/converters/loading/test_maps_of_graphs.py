"""Attention in layers of the user in SavedModel folders, of which the graph alone is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.signatures.signature import load_signature
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 7, 5
CONVERTERS = {"tflite": tflite, "onnx": onnx}


def _model(library: Any) -> Any:
    """A model of Keras 2 or 3 with a layer that pools the steps."""

    class Pooling(library.layers.Layer):  # type: ignore[misc,name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 1), name="kernel")

        def call(self, states: Any) -> Any:
            weights = tf.nn.softmax(tf.tanh(tf.matmul(states, self.kernel)), axis=1)
            return tf.reduce_sum(weights * states, 1)

    library.utils.set_random_seed(3)
    inputs = library.Input((STEPS, FEATURES), name="x")
    return library.Model(inputs, library.layers.Dense(2, name="y")(Pooling(name="own")(inputs)))


def exported(folder: Path) -> Any:
    model = _model(keras)
    model.export(folder, verbose=False)
    return model


def saved(folder: Path) -> Any:
    import tf_keras

    model = _model(tf_keras)
    model.save(folder, save_format="tf")
    return model


FOLDERS: list[Callable[[Path], Any]] = [exported, saved]


@pytest.mark.parametrize("write", only(FOLDERS, exported), ids=lambda write: write.__name__)
def test_weights_in_the_graph_of_a_folder_are_a_map(
    write: Callable[[Path], Any], tmp_path: Path
) -> None:
    original = write(tmp_path / "folder")
    kernel = np.asarray(original.get_layer("own").get_weights()[0])
    model, _ = load_signature(tmp_path / "folder", None, allow_free_time=False)
    interface = interface_of(model)
    ((name, shape),) = [(spec.name, spec.shape[1:]) for spec in interface.attention]
    assert shape == (STEPS,)
    x = np.random.default_rng(5).normal(0, 1, (4, STEPS, FEATURES)).astype("float32")
    powers = np.exp(np.tanh(x.astype(np.float64) @ kernel)[..., 0])
    for format, converter in CONVERTERS.items():
        path = tmp_path / f"model.{format}"
        inputs, outputs, _, _ = converter.convert(model, interface, recipe_for("float32"), path)
        actual = open_runner(path, format, inputs, outputs).run({spec.name: x for spec in inputs})
        expected = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(actual[name], expected, atol=1e-5, err_msg=format)
        (output,) = (spec.name for spec in interface.outputs)
        np.testing.assert_allclose(
            actual[output], original.predict(x, verbose=0), atol=1e-5, err_msg=format
        )
