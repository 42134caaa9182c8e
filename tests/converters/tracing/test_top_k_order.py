"""Attention of the k queries with the largest scores, as in the Informer.

TensorFlow returns them in an order of its own if ``sorted`` is False, TFLite and ONNX sort them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference import reference_file
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.reference.keras_outputs import keras_function
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.tracing.attention_function import attention_function
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, QUERIES = 12, 3, 5
X = np.random.default_rng(8).normal(size=(9, STEPS, FEATURES)).astype("float32")


class SparseQueries(keras.layers.Layer):
    """Attention of the queries that differ most from the others; the others get the mean."""

    def __init__(self, ordered: bool, **options: Any) -> None:
        super().__init__(**options)
        self.ordered = ordered

    def call(self, x: Any) -> Any:
        scores = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
        measure = keras.ops.max(scores, -1) - keras.ops.mean(scores, -1)
        selected = keras.ops.top_k(measure, QUERIES, sorted=self.ordered)[1]
        rows = tf.gather(x, selected, batch_dims=1)
        weights = keras.ops.softmax(keras.ops.matmul(rows, keras.ops.transpose(x, (0, 2, 1))))
        attended = keras.ops.matmul(weights, x)
        return self.result(x, selected, attended)

    def result(self, x: Any, selected: Any, attended: Any) -> Any:
        chosen = keras.ops.one_hot(selected, STEPS)
        mean = keras.ops.mean(x, axis=1, keepdims=True)
        others = 1 - keras.ops.max(chosen, axis=1)[..., None]
        return mean * others + keras.ops.matmul(keras.ops.transpose(chosen, (0, 2, 1)), attended)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class InTheirOrder(SparseQueries):
    """Returns only the attended queries."""

    def result(self, x: Any, selected: Any, attended: Any) -> Any:
        return attended

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], QUERIES, FEATURES)


class Largest(keras.layers.Layer):
    """No attention."""

    def call(self, x: Any) -> Any:
        return keras.ops.top_k(x[..., 0], QUERIES, sorted=False)[0]

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], QUERIES)


def model_of(layer: Any) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    return keras.Model(x, layer(x))


def sorted_map(x: np.ndarray) -> np.ndarray:
    scores = x @ x.transpose(0, 2, 1)
    measure = scores.max(-1) - scores.mean(-1)
    order = np.argsort(-measure, axis=-1)[:, :QUERIES]
    weights = np.exp(np.take_along_axis(scores, order[..., None], 1))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


@pytest.mark.parametrize("ordered", only([False, True], False))
def test_rows_of_maps_have_the_order_of_the_scores(ordered: bool, tmp_path: Path) -> None:
    model = model_of(SparseQueries(ordered, name="look"))
    interface = interface_of(model)
    expected = {"look": model.predict(X, verbose=0), "attention/look": sorted_map(X)}
    values = keras_function(model, interface, attention=True)({"x": X})
    maps = attention_function(model, interface, ("attention/look",))({"x": X})
    for actual in (values.maps, maps):
        np.testing.assert_allclose(actual["attention/look"], expected["attention/look"], atol=1e-5)
    assert bool(values.unsorted) != ordered
    for module, rows in ((onnx, len(X)), (tflite, 1)):
        name = module.__name__.rsplit(".", 1)[-1]
        module.convert(model, interface, recipe_for("float32"), tmp_path / name)
        runner = open_runner(tmp_path / name, name, interface.inputs, interface.all_outputs)
        for first in range(0, len(X), rows):
            part = slice(first, first + rows)
            for output, actual in runner.run({"x": X[part]}).items():
                np.testing.assert_allclose(actual, expected[output][part], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("function", [shifted_means, rounded_function])
def test_changed_operations_have_maps_in_the_order_of_the_scores(function: Any) -> None:
    """Every edge case was left out, because its maps had another order."""
    model = model_of(SparseQueries(False, name="look"))
    values = function(model, interface_of(model), attention=True)({"x": X}, 0)
    np.testing.assert_allclose(values["attention/look"], sorted_map(X), atol=1e-5)


def write(model: Any, folder: Path) -> Any:
    path = folder / "reference.npz"
    return reference_file.write(model, interface_of(model), path, samples=None, attention=True)


@pytest.mark.long
def test_no_sample_is_left_out_because_of_the_order(tmp_path: Path) -> None:
    entries = [write(model_of(SparseQueries(ordered)), tmp_path) for ordered in (False, True)]
    assert entries[0] == entries[1]
    assert entries[0]["stable"]


@pytest.mark.parametrize(
    "layer",
    [InTheirOrder(False), pytest.param(Largest(), marks=pytest.mark.long)],
    ids=["maps", "no maps"],
)
def test_outputs_that_depend_on_the_order_are_refused(layer: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="depends on the order of top_k"):
        write(model_of(layer), tmp_path)


def test_outputs_in_the_order_of_the_scores_are_not(tmp_path: Path) -> None:
    assert write(model_of(InTheirOrder(True)), tmp_path)["samples"]
