"""Products of vectors and matrices of a single sample, as in a function for ``keras.ops.map``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 5, 3
X = np.random.default_rng(4).normal(size=(2, STEPS, FEATURES)).astype("float32")
W = np.random.default_rng(5).normal(size=(STEPS, FEATURES)).astype("float32")


def stack(v: Any) -> Any:
    return ops.stack([v, 2 * v])


# Of a sample of shape (STEPS, FEATURES); by the equation of the same product of a vector and v.
PRODUCTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "matmul": ("i,ij->j", lambda v: ops.matmul(v[:, 0], v)),
    "softmax": ("i,ij->j", lambda v: ops.matmul(ops.softmax(v[:, 0]), v)),
    "dot": ("i,ij->j", lambda v: ops.dot(v[:, 0], v)),
    "tensordot": ("i,ij->j", lambda v: tf.tensordot(v[:, 0], v, 1)),
    "einsum": ("i,ij->j", lambda v: ops.einsum("i,ij->j", v[:, 0], v)),
    "einsum of the second axis": ("j,ij->i", lambda v: ops.einsum("j,ij->i", v[0], v)),
    "expanded": ("i,ij->j", lambda v: tf.squeeze(tf.expand_dims(v[:, 0], 0) @ v, 0)),
    "matrix first": ("j,ij->i", lambda v: ops.matmul(v, v[0])),
    "constant matrix": ("i,ij->j", lambda v: ops.matmul(v[:, 0], W)),
    "vectors": ("i,i->", lambda v: ops.matmul(v[:, 0], v[:, 0])),
    "column": ("i,ij->j", lambda v: ops.matmul(v[:, 0], v[:, :1])),
    "matrices": ("i,bij->bj", lambda v: ops.matmul(v[:, 0], stack(v))),
    "einsum of matrices": ("i,bij->bj", lambda v: ops.einsum("i,bij->bj", v[:, 0], stack(v))),
}


def expected(name: str, v: np.ndarray) -> np.ndarray:
    equation, _ = PRODUCTS[name]
    vector = v[0] if equation.startswith("j") else v[:, 0]
    if name == "softmax":
        vector = np.exp(vector) / np.exp(vector).sum()
    others = {"constant matrix": W, "vectors": v[:, 0], "column": v[:, :1]}
    matrix = np.stack([v, 2 * v]) if "b" in equation else others.get(name, v)
    return np.einsum(equation, vector, matrix)


@pytest.mark.parametrize("mapped", only([True, False], True))
def test_products_of_a_vector(mapped: bool, tmp_path: Path) -> None:
    class Products(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if mapped:
                return ops.map(lambda v: {name: f(v) for name, (_, f) in PRODUCTS.items()}, x)
            return {name: f(x[0])[None] for name, (_, f) in PRODUCTS.items()}

        def compute_output_spec(self, x: Any) -> Any:
            shapes = {name: expected(name, X[0]).shape for name in PRODUCTS}
            return {name: keras.KerasTensor((None, *shape)) for name, shape in shapes.items()}

    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, Products(name="y")(x))
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    for sample in X:
        outputs = runner.run({"x": sample[None]})
        for name in PRODUCTS:
            np.testing.assert_allclose(
                outputs[name][0], expected(name, sample), rtol=1e-5, atol=1e-6, err_msg=name
            )
