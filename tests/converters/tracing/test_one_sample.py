"""Models that are built for a batch of one, to which they reshape; their files compute one sample.

The results are those of the saved model, sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.keras_outputs import keras_function
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(2).normal(size=(4, 3, 6)).astype("float32")


def stacked_states() -> Any:
    """As speech enhancement with two networks returns the states of its recurrent layers."""
    x = tf_keras.Input(batch_shape=(1, 3, 6), name="x")
    h, *states = tf_keras.layers.LSTM(4, return_sequences=True, return_state=True)(x)
    return tf_keras.Model(x, [h, tf.reshape(tf.stack(states, axis=0), [1, 2, 4])])


def reshaped() -> Any:
    x = keras.Input(batch_shape=(1, 3, 6), name="x")
    h = keras.layers.MultiHeadAttention(2, 3)(x, x)
    return keras.Model(x, keras.ops.reshape(h, (1, 6, 3)))


@pytest.mark.parametrize(
    ("build", "name"),
    [(stacked_states, "m.h5"), pytest.param(reshaped, "m.keras", marks=pytest.mark.long)],
)
def test_models_for_a_batch_of_one(build: Callable[[], Any], name: str, tmp_path: Path) -> None:
    model = build()
    model.save(tmp_path / name)
    rows = [model(x[None]) for x in X]
    rows = [row if isinstance(row, list | tuple) else [row] for row in rows]
    expected = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    loaded = load_model(audit_file(tmp_path / name)).model
    interface = interface_of(loaded)
    reference = keras_function(loaded, interface, attention=True)({"x": X})
    for spec, value in zip(interface.outputs, expected, strict=True):
        np.testing.assert_allclose(reference.outputs[spec.name], value, atol=1e-5)
    for suffix, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{suffix}"
        result = converter.convert(loaded, interface, recipe_for("float32"), path)
        runner = open_runner(path, suffix, result.inputs, result.outputs)
        outputs = [runner.run({"x": x[None]}) for x in X]
        for spec, value in zip(interface.outputs, expected, strict=True):
            actual = np.concatenate([output[spec.name] for output in outputs])
            np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-5)
