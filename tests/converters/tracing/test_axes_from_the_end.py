"""Attention maps of weights that are moved along axes that count from the end.

The sizes of the axes of queries and keys are equal, so that only their order tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 4
X = np.random.default_rng(3).normal(size=(2, STEPS, FEATURES)).astype("float32")
# Moves of weights (batch, heads, queries, keys), and the axes of a softmax ahead of them after
# which the sum over the last axis of the queries and keys has weights whose sum is 1.
MOVES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "in_place": (lambda w: w, (-1,)),
    "transposed": (lambda w: tf.transpose(w, [0, 1, -1, -2]), (-2,)),
    "swapped": (lambda w: ops.swapaxes(w, -1, -2), (-2,)),
    "expanded": (lambda w: tf.squeeze(tf.expand_dims(w, -1), -1), (-1,)),
    "heads_expanded": (lambda w: tf.squeeze(tf.expand_dims(w, -3), [-3]), (-1,)),
    "mean": (lambda w: tf.reduce_mean(w, -3, keepdims=True), (-1,)),
    "unstacked": (lambda w: tf.unstack(w, axis=-3)[0][:, None], (-1,)),
    "concatenated": (lambda w: tf.concat([w, w * 0.5], -3), (-1,)),
    "split": (lambda w: tf.split(w, 2, -3)[1], (-1,)),
    "gathered": (lambda w: tf.gather(w, [1, 0], axis=-3), (-1,)),
    "normalized": (lambda w: w / tf.reduce_sum(w, -1, keepdims=True), (-1, -2)),
    # An order that is known when the model runs only: which axis is which is unknown.
    "computed": (lambda w: tf.transpose(w, tf.concat([[0, 1], tf.reverse([2, 3], [0])], 0)), ()),
    "over_queries": (lambda w: w / tf.reduce_sum(w, -2, keepdims=True), (-1,)),
}


class Attention(keras.layers.Layer):
    """Attention of two heads; ``axis`` is that of the softmax."""

    def __init__(self, move: Callable[[Any], Any], axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.move, self.axis = move, axis

    def call(self, x: Any) -> Any:
        heads = tf.stack([x, x * 2.0], 1)
        scores = tf.matmul(heads, heads * 0.5 + 0.1, transpose_b=True)
        weights = self.move(tf.nn.softmax(scores, axis=self.axis))
        return tf.matmul(weights, x[:, None])


def _model(names: list[str]) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    return keras.Model(
        x,
        [
            Attention(MOVES[name][0], axis, name=f"{name}_{-axis}")(x)
            for name in names
            for axis in (-1, -2)
        ],
    )


def test_maps_behind_moves() -> None:
    found = {spec.name for spec in interface_of(_model(list(MOVES))).attention}
    assert found == {
        f"attention/{name}_{-axis}" for name, (_, axes) in MOVES.items() for axis in axes
    }


def test_values_of_the_maps(tmp_path: Path) -> None:
    model = _model(["in_place", "transposed", "swapped"])
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    actual = open_runner(tmp_path / "m", "onnx", file.inputs, file.outputs).run({"x": X})
    heads = np.stack([X, X * 2], 1)
    exponentials = np.exp(heads @ np.swapaxes(heads * 0.5 + 0.1, 2, 3))
    of_keys = exponentials / exponentials.sum(-1, keepdims=True)
    of_queries = np.swapaxes(exponentials / exponentials.sum(-2, keepdims=True), 2, 3)
    expected = {"in_place_1": of_keys, "transposed_2": of_queries, "swapped_2": of_queries}
    for name, value in expected.items():
        np.testing.assert_allclose(actual[f"attention/{name}"], value, rtol=1e-4, atol=1e-6)
