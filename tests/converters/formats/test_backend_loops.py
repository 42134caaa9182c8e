"""Loops of layers of the user in ONNX files, which tf2onnx writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx as onnx_package
import pytest
from tensorflow.core.framework.graph_pb2 import GraphDef

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.loading import legacy_modules
from edgeattn_converters.lowering.tf2onnx_fixes import separate_trip_counts
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 3
X = np.random.default_rng(3).normal(size=(4, STEPS, FEATURES)).astype("float32")


def step(x: Any, states: Any) -> Any:
    weights = keras.ops.softmax(x + 0.5 * states[0])
    return weights, [weights]


def total(x: Any, states: Any) -> Any:
    return states[0] * x, [states[0] + x]


def rnn(function: Callable[..., Any], x: Any, **options: Any) -> Any:
    """The outputs of ``keras.backend.rnn``, whose trip count is a loop variable."""
    legacy_modules.provide()
    return keras.backend.rnn(function, x, [keras.ops.sum(x, axis=1)], **options)[1]


LOOPS: dict[str, Callable[[Any], Any]] = {
    "one": lambda x: rnn(step, x),
    "chained": lambda x: rnn(total, rnn(step, x)),
    "next to another": lambda x: rnn(step, x) + rnn(total, x),
    "backwards": lambda x: rnn(step, x, go_backwards=True),
    "masked": lambda x: rnn(step, x, mask=x[..., 0] > -0.5),
}


@pytest.mark.parametrize("kind", LOOPS)
def test_loops_of_the_backend(kind: str, tmp_path: Path) -> None:
    class Loop(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return LOOPS[kind](x)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, Loop(name="y")(x))
    interface = interface_of(model)
    onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", interface.inputs, interface.outputs)
    (actual,) = runner.run({"x": X}).values()
    np.testing.assert_allclose(actual, model(X), rtol=1e-5, atol=1e-6)
    assert "Loop" in {node.op_type for node in onnx_package.load(tmp_path / "m.onnx").graph.node}


@pytest.mark.parametrize("inside", [False, True])
def test_only_shared_trip_counts_are_copied(inside: bool) -> None:
    definition = GraphDef()
    nodes = definition.library.function.add().node_def if inside else definition.node
    suffix = ":output:0" if inside else ""
    for name, operands in (("a", ["n", "n", "x"]), ("b", ["k", "n", "n"]), ("c", ["k", "n", "x"])):
        loop = nodes.add(op="While", name=name)
        loop.input.extend(operands)
        loop.attr["T"].list.type.extend([3, 3, 1])
    separate_trip_counts(definition)
    assert [list(node.input) for node in nodes] == [
        ["n", "n", "x"],
        ["k", f"b/trip_count{suffix}", "n"],
        ["k", "n", "x"],
        ["n"],
    ]
    assert (nodes[3].op, nodes[3].attr["T"].type) == ("Identity", 3)
