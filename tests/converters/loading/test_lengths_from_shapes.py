"""Loops in calls of classes over ``tf.shape(x)[1]`` steps, whose number the conversion fixes."""

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
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")


def states(x: Any, list_: Any, positions: Callable[[Any], Any] = lambda k: k) -> Any:
    """States of a recurrence over all steps, in a list."""
    steps = tf.shape(x)[1]

    def body(k: Any, state: Any, list_: Any) -> Any:
        state = tf.tanh(x[:, k] + state)
        return k + 1, state, list_.write(positions(k), state)

    first = (0, tf.zeros_like(x[:, 0]), list_)
    list_ = tf.while_loop(lambda k, *_: k < steps, body, first)[2]
    return tf.transpose(list_.stack(), (1, 0, 2))


def pairs(x: Any) -> Any:
    """Sums of two steps each."""
    count = tf.shape(x)[1] // 2
    list_ = tf.while_loop(
        lambda k, _: k < count,
        lambda k, list_: (k + 1, list_.write(k, x[:, 2 * k] + x[:, 2 * k + 1])),
        (0, tf.TensorArray("float32", count)),
    )[1]
    return tf.transpose(list_.stack(), (1, 0, 2))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "size": lambda x: states(x, tf.TensorArray("float32", tf.shape(x)[1])),
    "reversed": lambda x: states(
        x, tf.TensorArray("float32", tf.shape(x)[1]), lambda k: tf.shape(x)[1] - 1 - k
    ),
    "growing": lambda x: states(x, tf.TensorArray("float32", 0, dynamic_size=True)),
    "pairs": pairs,
}


def expected(name: str) -> Any:
    if name == "pairs":
        return X[:, ::2] + X[:, 1::2]
    state, results = np.zeros_like(X[:, 0]), []
    for k in range(STEPS):
        state = np.tanh(X[:, k] + state)
        results.append(state)
    return np.stack(results[::-1] if name == "reversed" else results, 1)


@pytest.mark.parametrize("name", only(FUNCTIONS, "size", "growing"))
def test_lists_of_as_many_elements_as_steps(name: str, tmp_path: Path) -> None:
    class Loop(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return FUNCTIONS[name](x)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    x = keras.Input((None, FEATURES), name="x")
    model = keras.Model(x, Loop(name="y")(x))
    interface = interface_of(model, time_steps=STEPS)
    values = expected(name)
    assert [spec.shape for spec in interface.outputs] == [(None, *values.shape[1:])]
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{format}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        for sample, value in zip(X, values, strict=True):
            actual = runner.run({"x": sample[None]})["y"][0]
            np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6, err_msg=format)


def test_a_list_that_stops_growing_early(tmp_path: Path) -> None:
    """Its length depends on values, so that nothing is known about it."""

    class Loop(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            """Return the sum of the first steps until that of their extremes is large."""
            list_ = tf.TensorArray("float32", 0, dynamic_size=True, element_shape=(None, FEATURES))
            list_ = tf.while_loop(
                lambda k, total, _: tf.logical_and(k < STEPS, total < 2.0),
                lambda k, total, list_: (
                    k + 1,
                    total + tf.reduce_max(tf.abs(x[:, k])),
                    list_.write(k, x[:, k]),
                ),
                (0, 0.0, list_),
            )[2]
            return tf.reduce_sum(list_.stack(), 0)

        def compute_output_shape(self, shape: Any) -> Any:
            return (shape[0], shape[2])

    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, Loop(name="y")(x))
    path = tmp_path / "m.onnx"
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, "onnx", file.inputs, file.outputs)
    for sample in X:
        extremes = np.cumsum(np.abs(sample).max(1))
        count = min(STEPS, 1 + np.searchsorted(extremes, 2.0))
        actual = runner.run({"x": sample[None]})["y"][0]
        np.testing.assert_allclose(actual, sample[:count].sum(0), rtol=1e-5, atol=1e-6)
