"""Lists that a condition inside a loop reads, as the skipped states of LSTNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn.errors import ConversionError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 7, 3
X = np.random.default_rng(6).normal(size=(8, STEPS, FEATURES)).astype("float32")


def skipped(x: Any) -> Any:
    """A recurrence over the state of two steps before; the first steps have none."""
    states = tf.TensorArray(
        tf.float32, size=STEPS, clear_after_read=False, element_shape=(x.shape[0], FEATURES)
    )
    for t in tf.range(STEPS):
        if t < 2:  # noqa: SIM108, a condition of the graph
            state = tf.tanh(x[:, t])
        else:
            state = tf.tanh(x[:, t] + 0.7 * states.read(t - 2))
        states = states.write(t, state)
    return tf.transpose(states.stack(), [1, 0, 2])


def updated(x: Any) -> Any:
    """The same as the error for ONNX proposes it."""
    states = tf.zeros((STEPS, tf.shape(x)[0], FEATURES))
    for t in tf.range(STEPS):
        if t < 2:  # noqa: SIM108
            state = tf.tanh(x[:, t])
        else:
            state = tf.tanh(x[:, t] + 0.7 * states[t - 2])
        states = tf.tensor_scatter_nd_update(states, [[t]], [state])
    return tf.transpose(states, [1, 0, 2])


def model_of(function: Any) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    layer = layers.Lambda(tf.autograph.to_graph(function), (STEPS, FEATURES), name="y")
    return keras.Model(x, layer(x))


def expected() -> Any:
    states: list[Any] = []
    for t in range(STEPS):
        states.append(np.tanh(X[:, t] + (0.7 * states[t - 2] if t >= 2 else 0)))
    return np.stack(states, axis=1)


@pytest.mark.parametrize(
    ("function", "format"), [(skipped, "tflite"), (updated, "tflite"), (updated, "onnx")]
)
def test_files_have_the_states(function: Any, format: str, tmp_path: Path) -> None:
    model, path = model_of(function), tmp_path / f"m.{format}"
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    result = convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, result.inputs, result.outputs)
    actual = np.concatenate([runner.run({"x": X[k : k + 1]})["y"] for k in range(len(X))])
    np.testing.assert_allclose(actual, expected(), rtol=1e-5, atol=1e-5)


def test_onnx_says_that_it_has_no_such_list(tmp_path: Path) -> None:
    model = model_of(skipped)
    with pytest.raises(ConversionError, match="no list that a condition inside a loop") as caught:
        onnx.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m.onnx")
    assert "tf.tensor_scatter_nd_update" in str(caught.value.hint)
    assert not (tmp_path / "m.onnx").exists()
