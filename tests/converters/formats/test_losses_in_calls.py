"""Models for training that compute a loss in a layer, which no output depends on."""

from __future__ import annotations

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


class CTC(keras.layers.Layer):
    """Adds a CTC loss, whose gradient has a loop of TensorFlow's own functions."""

    def __init__(self, blank: int) -> None:
        super().__init__(name="ctc")
        self.blank = blank

    def call(self, labels: Any, probabilities: Any) -> Any:
        count = tf.shape(probabilities)[0]
        labels = tf.cast(labels, tf.int32)
        loss = tf.nn.ctc_loss(
            labels=labels,
            logits=tf.math.log(tf.clip_by_value(probabilities, 1e-7, 1.0)),
            label_length=tf.math.count_nonzero(labels, axis=1, dtype=tf.int32),
            logit_length=tf.fill([count], tf.shape(probabilities)[1]),
            logits_time_major=False,
            blank_index=self.blank,
        )
        self.add_loss(tf.reduce_mean(loss))
        return probabilities


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("blank", only([0, 11], 0))
def test_outputs_without_the_loss(blank: int, format: str, tmp_path: Path) -> None:
    image, label = keras.Input((8, 3), name="image"), keras.Input((4,), name="label", dtype="int32")
    x = keras.layers.LSTM(4, return_sequences=True)(image)
    y = CTC(blank)(label, keras.layers.Dense(12, activation="softmax", name="dense")(x))
    model = keras.Model([image, label], y)
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    file = convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs, as_deployed=True)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, 8, 3)).astype("float32")
    labels = generator.integers(1, 10, (3, 4)).astype("int32")
    expected = keras.Model(image, model.get_layer("dense").output).predict(images, verbose=0)
    for row in range(3):
        sample = {"image": images[row : row + 1], "label": labels[row : row + 1]}
        [actual] = runner.run(sample).values()
        np.testing.assert_allclose(actual, expected[row : row + 1], rtol=1e-4, atol=1e-5)
