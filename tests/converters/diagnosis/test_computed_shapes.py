"""The diagnosis of files in which the graph computes shapes, with scalars and pads on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import models
from edgeattn.diagnosis.comparison import compare_models
from edgeattn.diagnosis.graph import Encoding
from edgeattn.diagnosis.tflite import InstrumentedTFLite
from edgeattn_converters.formats import tflite
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

LANDMARKS, FEATURES = 4, 6


class SegmentMeans(keras.layers.Layer):  # type: ignore[misc]
    """Landmarks as means of segments, whose length follows from the values, and their attention."""

    def call(self, x: Any) -> Any:
        steps = tf.reduce_sum(tf.cast(tf.not_equal(x[:1, :, :1], 1e9), tf.int32))
        padding = (LANDMARKS - steps % LANDMARKS) % LANDMARKS
        none = tf.zeros(2, tf.int32)
        padded = tf.pad(x, tf.stack([none, tf.stack([padding, 0]), none]))
        segment = (steps + padding) // LANDMARKS
        shape = tf.stack([tf.shape(padded)[0], LANDMARKS, segment, FEATURES])
        means = tf.ensure_shape(
            tf.reduce_mean(tf.reshape(padded, shape), 2), (None, LANDMARKS, FEATURES)
        )
        return tf.matmul(tf.nn.softmax(tf.einsum("bid,bjd->bij", means, means)), means)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[0], LANDMARKS, FEATURES


def test_tensors_whose_shapes_are_not_in_the_file(tmp_path: Path) -> None:
    x = keras.Input((14, FEATURES), name="x")
    means = SegmentMeans()(keras.layers.Dense(FEATURES, name="scores")(x))
    outputs = keras.layers.Dense(3, name="y")(keras.layers.Flatten()(means))
    model = models.filled(keras.Model(x, outputs))
    interface = interface_of(model)
    graphs = []
    for scheme in ("float32", "float16"):
        path = tmp_path / f"{scheme}.tflite"
        specs = tflite.convert(
            model, interface, recipe_for(scheme), path, options=ConversionOptions()
        )
        graphs.append(InstrumentedTFLite(path, *specs[:2]))
    samples = {"x": np.random.default_rng(1).normal(0, 1, (2, 14, FEATURES)).astype("float32")}
    comparison = compare_models(*graphs, samples, 30.0)
    kinds = [operator.kind for operator in comparison.operators]
    assert {"PAD", "RESHAPE", "FLOOR_DIV"} <= set(kinds)
    assert [operator.cause for operator in comparison.operators if operator.cause] == []


def test_an_encoded_scalar_is_a_scalar() -> None:
    for encoding in (Encoding("float32"), Encoding("int8", 0.5)):
        assert np.shape(encoding.encode(np.array(1.5, np.float32))) == ()
    columns = np.asfortranarray(np.ones((2, 3), np.float32))
    assert Encoding("float32").encode(columns).flags["C_CONTIGUOUS"]
