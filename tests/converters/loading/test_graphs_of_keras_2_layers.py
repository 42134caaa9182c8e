"""Signatures of models of tf_keras whose layers repeat steps, compared with tf_keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from tf_keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, WORDS, ROWS = 5, 4, 9, 8


class Cell(layers.Layer):  # type: ignore[misc]
    """Two states, of which one has a gate."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.state_size, self.output_size = units, [units, units], units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight("w", shape=(shape[-1] + self.units, 2 * self.units))
        self.built = True

    def call(self, x: Any, states: Any) -> Any:
        """Return the output and the states after a step."""
        gate, value = tf.split(tf.concat([x, states[0]], 1) @ self.kernel, 2, 1)
        memory = states[1] * tf.sigmoid(gate) + tf.tanh(value)
        return tf.tanh(memory), [tf.tanh(memory), memory]


def sequences(function: Callable[[Any], Any], steps: int | None = STEPS) -> Callable[[], Any]:
    def build() -> Any:
        x = tf_keras.Input((steps, FEATURES), name="x")
        return tf_keras.Model(x, function(x))

    return build


def masked(layer: Callable[[], Any], steps: int | None = STEPS) -> Callable[[], Any]:
    return sequences(lambda x: layer()(layers.Masking()(x)), steps)


def words(layer: Callable[[], Any], steps: int | None = STEPS) -> Callable[[], Any]:
    def build() -> Any:
        x = tf_keras.Input((steps,), name="words", dtype="int32")
        return tf_keras.Model(x, layer()(layers.Embedding(WORDS, 3, mask_zero=True)(x)))

    return build


def attention() -> Any:
    """Scores of padding are -1e9."""
    x = tf_keras.Input((STEPS,), name="words", dtype="int32")
    present = tf.cast(tf.not_equal(x, 0), tf.float32)
    embedded = layers.Embedding(WORDS, 4)(x)
    queries, keys, values = (layers.Dense(4)(embedded) for _ in range(3))
    scores = tf.matmul(queries, keys, transpose_b=True) / 2.0 + (1 - present[:, None]) * -1e9
    attended = tf.matmul(tf.nn.softmax(scores), values)
    return tf_keras.Model(x, tf.reduce_sum(attended * present[..., None], 1))


def three_inputs() -> Any:
    x, y = tf_keras.Input((STEPS, FEATURES), name="x"), tf_keras.Input((3,), name="y")
    z = tf_keras.Input((STEPS,), name="words", dtype="int32")
    embedded = layers.GRU(3)(layers.Embedding(WORDS, 3, mask_zero=True)(z))
    joined = layers.Concatenate()([layers.LSTM(4)(x), layers.Dense(2)(y), embedded])
    outputs = {"p": layers.Softmax()(layers.Dense(3)(joined)), "q": layers.Dense(1)(embedded)}
    return tf_keras.Model([x, y, z], outputs)


def states_passed_on() -> Any:
    x, y = (tf_keras.Input((STEPS, FEATURES), name=name) for name in "xy")
    _, *states = layers.LSTM(4, return_state=True)(layers.Masking()(x))
    return tf_keras.Model([x, y], layers.LSTM(4, return_sequences=True)(y, initial_state=states))


MODELS: dict[str, Callable[[], Any]] = {
    "LSTM backwards": masked(lambda: layers.LSTM(3, go_backwards=True, return_sequences=True)),
    "LSTM": masked(lambda: layers.LSTM(3, return_sequences=True)),
    "LSTM of any length": masked(lambda: layers.LSTM(3, return_sequences=True), None),
    "GRU": masked(lambda: layers.GRU(3, go_backwards=True)),
    "GRU, reset before": masked(lambda: layers.GRU(3, reset_after=False, return_sequences=True)),
    "both directions": masked(lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True))),
    "both directions of words": words(lambda: layers.Bidirectional(layers.GRU(2)), None),
    "zero outputs": masked(
        lambda: layers.RNN(layers.LSTMCell(3), return_sequences=True, zero_output_for_mask=True)
    ),
    "own cell": masked(lambda: layers.RNN(Cell(3), return_sequences=True)),
    "stacked cells": masked(lambda: layers.RNN([Cell(3), layers.GRUCell(2)], go_backwards=True)),
    "ConvLSTM2D": sequences(
        lambda x: layers.ConvLSTM2D(2, 2, padding="same", return_sequences=True)(
            layers.Reshape((STEPS, 2, 2, 1))(x)
        )
    ),
    "attention": attention,
    "three inputs": three_inputs,
    "states passed on": states_passed_on,
}


def samples(specs: Any) -> dict[str, np.ndarray]:
    """Rows of other lengths, one of padding only, and one with padding between others."""
    generator, values = np.random.default_rng(6), {}
    for spec in specs:
        shape = (ROWS, *(size or STEPS for size in spec.shape[1:]))
        value = generator.normal(size=shape).astype("float32")
        if spec.dtype == tf.int32:
            value = generator.integers(1, WORDS, shape).astype("int32")
        if spec.name in ("x", "words"):
            for row in range(ROWS):
                value[row, row % (STEPS + 1) :] = 0
            value[7, 1], value[7, 4] = 0, 1
        values[spec.name] = value
    return values


@pytest.mark.long
@pytest.mark.parametrize("name", only(MODELS, "own cell"))
def test_graphs_of_layers_over_time(name: str, tmp_path: Path) -> None:
    tf_keras.utils.set_random_seed(3)
    model = MODELS[name]()
    for weight in model.weights:
        weight.assign(np.random.default_rng(4).normal(0, 0.5, weight.shape))
    specs = [tf.TensorSpec(item.shape, item.dtype, item.name) for item in model.inputs]

    def call(*arguments: Any) -> dict[str, Any]:
        result = model(list(arguments) if len(arguments) > 1 else arguments[0], training=False)
        return result if isinstance(result, dict) else {"result": result}

    module = tf.Module()
    module.variables_of_model = list(model.variables)
    module.serve = tf.function(call, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    is_free = any(None in spec.shape[1:] for spec in specs)
    loaded = load_model(audit_file(tmp_path / "m"), time_steps=STEPS if is_free else None)
    interface, inputs = interface_of(loaded.model), samples(specs)
    rows = [[value[k : k + 1] for value in inputs.values()] for k in range(ROWS)]
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{format}"
        file = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        for row in rows:
            actual = runner.run(dict(zip(inputs, row, strict=True)))
            for key, expected in call(*map(tf.constant, row)).items():
                np.testing.assert_allclose(
                    actual[key], expected, rtol=1e-4, atol=1e-5, err_msg=format
                )
