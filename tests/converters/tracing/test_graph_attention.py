"""Attention between the nodes of a graph, as libraries of graph networks write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

NODES, FEATURES, HEADS = 5, 3, 2
NAME = "attention/look"

# Contexts (batch, nodes, heads, features) of weights (batch, nodes, heads, other nodes).
EQUATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "all_named": lambda w, h: ops.einsum("bnhm,bmhi->bnhi", w, h),
    "batch_left_out": lambda w, h: ops.einsum("...nhm,...mhi->...nhi", w, h),
    "data_first": lambda w, h: ops.einsum("...mhi,...nhm->...nhi", h, w),
    "only_in_weights": lambda w, h: ops.einsum("b...m,bmi->b...i", w, h[:, :, 0]),
}


class GraphAttention(layers.Layer):  # type: ignore[misc]
    """Weights of the neighbors of each node, from its features, theirs and the adjacency."""

    def __init__(self, context: Callable[[Any, Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.context = context

    def build(self, shapes: Any) -> None:
        self.kernel = self.add_weight(shape=(shapes[0][-1], HEADS, 3), name="kernel")
        self.own = self.add_weight(shape=(3, HEADS), name="own")
        self.other = self.add_weight(shape=(3, HEADS), name="other")

    def call(self, inputs: Any) -> Any:
        nodes, adjacency = inputs
        hidden = ops.einsum("...ni,iho->...nho", nodes, self.kernel)
        scores = ops.einsum("...nho,oh->...nh", hidden, self.own)[..., None]
        others = ops.einsum("...mho,oh->...hm", hidden, self.other)[:, None]
        scores = ops.leaky_relu(scores + others, 0.2)
        scores = scores + ops.where(adjacency == 0.0, -1e10, 0.0)[:, :, None, :]
        return self.context(ops.softmax(scores, axis=-1), hidden)


def weights_of(layer: Any, nodes: Any, adjacency: Any) -> Any:
    """The weights of the layer in NumPy."""
    kernel, own, other = (np.asarray(item, np.float64) for item in layer.weights)
    hidden = np.einsum("bni,iho->bnho", nodes, kernel)
    scores = np.einsum("bnho,oh->bnh", hidden, own)[..., None]
    scores = scores + np.einsum("bmho,oh->bhm", hidden, other)[:, None]
    scores = np.where(scores < 0, 0.2 * scores, scores)
    powers = np.exp(scores) * (adjacency != 0)[:, :, None, :]
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", only(EQUATIONS, "batch_left_out"))
def test_weights_of_nodes_are_a_map(kind: str, tmp_path: Path) -> None:
    nodes = keras.Input((NODES, FEATURES), name="nodes")
    adjacency = keras.Input((NODES, NODES), name="adjacency")
    layer = GraphAttention(EQUATIONS[kind], name="look")
    model = keras.Model([nodes, adjacency], layers.Flatten(name="y")(layer([nodes, adjacency])))
    generator = np.random.default_rng(5)
    layer.set_weights([generator.normal(0, 1, item.shape) for item in layer.weights])
    edges = (generator.random((4, NODES, NODES)) < 0.5) | np.eye(NODES, dtype=bool)
    x = {
        "nodes": generator.normal(0, 1, (4, NODES, FEATURES)).astype("float32"),
        "adjacency": edges.astype("float32"),
    }
    interface = interface_of(model)
    assert [spec.name for spec in interface.attention] == [NAME]
    expected = weights_of(layer, **x)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"model.{format}"
        inputs, outputs, *_ = converter.convert(model, interface, recipe_for("float32"), path)
        actual = open_runner(path, format, inputs, outputs, as_deployed=True).run(x)
        np.testing.assert_allclose(actual[NAME], expected, atol=1e-5, err_msg=format)
