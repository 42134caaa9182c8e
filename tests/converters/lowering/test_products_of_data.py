"""A ReLU or clipping behind the product of two matrices of one sample in TFLite files."""

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
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROWS = 5
X = np.random.default_rng(4).normal(size=(4, ROWS, ROWS)).astype("float32")
W = np.random.default_rng(5).normal(size=(ROWS, ROWS)).astype("float32")
ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (tf.nn.relu, lambda y: np.maximum(y, 0)),
    "relu6": (tf.nn.relu6, lambda y: np.clip(y, 0, 6)),
    "maximum": (lambda y: tf.maximum(y, 0.0), lambda y: np.maximum(y, 0)),
    "clip": (lambda y: tf.clip_by_value(y, -1.0, 1.0), lambda y: np.clip(y, -1, 1)),
    "none": (lambda y: y, lambda y: y),
}
# Of a sample of shape (ROWS, ROWS).
PRODUCTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "data": (lambda x: tf.matmul(x, x), lambda x: x @ x),
    "turned": (lambda x: tf.matmul(x, x, transpose_a=True), lambda x: x.T @ x),
    "second turned": (lambda x: tf.matmul(x, x, transpose_b=True), lambda x: x @ x.T),
    "tensordot": (lambda x: tf.tensordot(x, x, 1), lambda x: x @ x),
    "biased": (lambda x: tf.matmul(x, x) + W[0], lambda x: x @ x + W[0]),
    "constant": (lambda x: tf.matmul(x, W), lambda x: x @ W),
}


ALL, SOME = tuple(PRODUCTS), ("data", "second turned", "biased")


class Products(keras.layers.Layer):
    """Products of the first sample, outside of branches and in them."""

    def __init__(self, names: tuple[str, ...], **options: Any) -> None:
        super().__init__(**options)
        self.names = names

    def call(self, x: Any) -> Any:
        """Return the products with all activations."""
        results = {}
        for name in self.names:
            product = PRODUCTS[name][0]
            for kind, (activation, _) in ACTIVATIONS.items():
                results[f"{name} {kind}"] = activation(product(x[0]))[None]
                results[f"{name} {kind} branch"] = tf.cond(
                    x[0, 0, 0] < 100.0,
                    lambda product=product, activation=activation: activation(product(x[0]))[None],
                    lambda: x,
                )
        loop = tf.while_loop(
            lambda k, *_: k < 2,
            lambda k, y, z: (k + 1, tf.nn.relu(tf.matmul(y, z) / 4), z * 0.5),
            (0, x[0], x[0]),
        )
        return {**results, "loop": loop[1][None]}


@pytest.mark.parametrize("names", only([ALL, SOME], SOME), ids=["all", "some"])
def test_activations_behind_products(names: tuple[str, ...], tmp_path: Path) -> None:
    """The converter joins them with FULLY_CONNECTED, of which it makes BATCH_MATMUL."""
    x = keras.Input((ROWS, ROWS), batch_size=1, name="x")
    model = keras.Model(x, Products(names, name="y")(x))
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    for sample in X:
        outputs = runner.run({"x": sample[None]})
        for name in names:
            product = PRODUCTS[name][1]
            for kind, (_, activation) in ACTIVATIONS.items():
                for place in ("", " branch"):
                    key = f"{name} {kind}{place}"
                    expected = activation(product(sample))
                    np.testing.assert_allclose(
                        outputs[key][0], expected, rtol=1e-4, atol=1e-5, err_msg=key
                    )
        once = np.maximum(sample @ sample / 4, 0)
        expected = np.maximum(once @ (sample / 2) / 4, 0)
        np.testing.assert_allclose(outputs["loop"][0], expected, rtol=1e-4, atol=1e-5)
