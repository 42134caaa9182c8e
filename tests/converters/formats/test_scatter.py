"""Updates of single elements in ONNX, with indices that occur several times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx as onnx_file
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.errors import EdgeattnError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROWS = [[0], [2], [2], [1]]
CELLS = [[0, 1], [0, 1], [2, 0], [0, 1]]
CALLS: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: tf.tensor_scatter_nd_add(x, ROWS, 2 * x),
    "sub": lambda x: tf.tensor_scatter_nd_sub(x, ROWS, 3 * x),
    "max": lambda x: tf.tensor_scatter_nd_max(x, ROWS, x * x),
    "min": lambda x: tf.tensor_scatter_nd_min(x, ROWS, x // 2),
    "cells": lambda x: tf.tensor_scatter_nd_add(x, CELLS, x[:, 0]),
    "of zeros": lambda x: tf.scatter_nd(ROWS, x, tf.shape(x)),
    "cells of zeros": lambda x: tf.scatter_nd(CELLS, x[:, 0], tf.shape(x)),
    "once": lambda x: tf.scatter_nd([[3], [0], [1], [2]], x, tf.shape(x)),
    "indices of the input": lambda x: tf.scatter_nd(
        tf.cast(x[..., :1] > 0, tf.int32), x, [2, *x.shape[1:]]
    ),
}


class Scattered(keras.layers.Layer):  # type: ignore[misc]
    """A call with the only sample, whose first axis is indexed."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self._call = call

    def call(self, x: Any) -> Any:
        return self._call(x[0])[None]


def scattered(names: list[str], dtype: str) -> Any:
    x = keras.Input((4, 3), name="x", dtype=dtype, batch_size=1)
    return keras.Model(x, {name: Scattered(CALLS[name])(x) for name in names})


@pytest.mark.parametrize("dtype", only(["float32", "int32"], "float32"))
def test_updates_of_the_same_element(dtype: str, tmp_path: Path) -> None:
    model = scattered(list(CALLS), dtype)
    interface = interface_of(model)
    onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", interface.inputs, interface.outputs)
    x = np.random.default_rng(4).integers(-5, 6, (1, 4, 3)).astype(dtype)
    outputs, expected = runner.run({"x": x}), model(x)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value, err_msg=name)
    # onnxruntime would run it in several threads, which lose updates of the same element.
    nodes = onnx_file.load(tmp_path / "m.onnx").graph.node
    reductions = [
        attribute
        for node in nodes
        if node.op_type == "ScatterND"
        for attribute in node.attribute
        if attribute.name == "reduction"
    ]
    assert reductions == []


@pytest.mark.parametrize(("name", "refused"), [("of zeros", True), ("once", False)])
def test_older_operator_sets_have_no_sums(name: str, refused: bool, tmp_path: Path) -> None:
    model = scattered([name], "float32")
    error = pytest.raises(EdgeattnError, match="before operator set 16")
    with error if refused else contextlib.nullcontext():
        onnx.convert(
            model,
            interface_of(model),
            recipe_for("float32"),
            tmp_path / "m.onnx",
            quantization=QuantizationOptions(opset=15),
        )
