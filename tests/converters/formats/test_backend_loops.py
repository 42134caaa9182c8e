"""Loops of layers of the user, which tf2onnx writes to ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx as onnx_package
import pytest
import tensorflow as tf
from long_parameters import only
from tensorflow.core.framework.graph_pb2 import GraphDef

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.legacy import legacy_backend
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
    legacy_backend.provide()
    return keras.backend.rnn(function, x, [keras.ops.sum(x, axis=1)], **options)[1]


def two_states(x: Any, states: Any) -> Any:
    hidden = keras.ops.tanh(x + 0.5 * states[0])
    carried = states[1] * 0.5 + hidden
    return hidden * carried, [hidden, carried]


def rnn_of_two(x: Any, **options: Any) -> Any:
    """Outputs and last states of ``keras.backend.rnn`` with two states."""
    legacy_backend.provide()
    start = keras.ops.zeros_like(x[:, 0])
    _, outputs, states = keras.backend.rnn(two_states, x, [start, start + 1], **options)
    return outputs + states[0][:, None] - states[1][:, None]


def turned(x: Any) -> Any:
    return keras.ops.transpose(x, (1, 0, *range(2, len(x.shape))))


def scan(x: Any, **options: Any) -> Any:
    """Both states after ``keras.ops.scan``, and two results of each step."""

    def function(states: Any, now: Any) -> Any:
        first, second = states
        return (first * 0.5 + now, second + first * now), (first - second, second * now)

    start = keras.ops.zeros_like(x[:, 0])
    last, each = keras.ops.scan(function, (start + 1, start), turned(x), **options)
    return turned(each[0]) + 2 * turned(each[1]) + last[0][:, None] - last[1][:, None]


def scan_of_types(x: Any) -> Any:
    """States of other shapes and dtypes: a feature, a count, and whether a sum was positive."""
    ops = keras.ops

    def function(states: Any, now: Any) -> Any:
        features, count, seen = states
        features = features + now[:, :1]
        return (features, count + 1, ops.logical_or(seen, features > 0)), (features, count, seen)

    start = x[:, 0, :1]
    states = (start, ops.zeros((), "int32"), start > 1)
    (last, _, _), (each, counts, seen) = ops.scan(function, states, turned(x))
    weights = turned(ops.cast(seen, "float32")) * ops.cast(counts, "float32")[None, :, None]
    return x * weights + turned(each) + last[:, None]


def scan_of_length(x: Any) -> Any:
    """Without a sequence; a loop in a loop."""

    def inner(states: Any, now: Any) -> Any:
        return (states[0] * 0.5 + now, states[1] + 1.0), (states[0], states[1])

    def outer(states: Any, _: Any) -> Any:
        states, _ = keras.ops.scan(inner, states, turned(x))
        return states, states

    start = keras.ops.zeros_like(x[:, 0])
    _, each = keras.ops.scan(outer, (start, start), length=STEPS)
    return turned(each[0]) + turned(each[1])


def associative(x: Any, **options: Any) -> Any:
    def function(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    elements = (keras.ops.sigmoid(x), x)
    return sum(keras.ops.associative_scan(function, elements, axis=1, **options))


def while_loop(x: Any, **options: Any) -> Any:
    start = keras.ops.zeros_like(x[:, 0])
    _, first, second = keras.ops.while_loop(
        lambda step, first, second: step < 4,
        lambda step, first, second: (step + 1, first * 0.5 + x[:, 0], second + first),
        (0, start, start),
        **options,
    )
    return x + first[:, None] - second[:, None]


def fori_loop(x: Any) -> Any:
    start = keras.ops.zeros_like(x[:, 0])
    first, second = keras.ops.fori_loop(
        0, STEPS, lambda k, states: (states[0] * 0.5 + x[:, k], sum(states)), (start, start)
    )
    return x + first[:, None] - second[:, None]


def array(x: Any, index: Callable[[Any], Any], *, start: int = 0, stop: int = STEPS) -> Any:
    """What a loop of TensorFlow writes to a list: ``2 x[i]`` at ``index(i)``."""
    elements = tf.TensorArray("float32", STEPS, element_shape=(x.shape[0], FEATURES))
    _, elements = tf.while_loop(
        lambda step, _: step < stop,
        lambda step, list_: (step + 1, list_.write(index(step), 2 * x[:, step])),
        (start, elements),
    )
    return turned(elements.stack())


def array_of_previous(x: Any) -> Any:
    """A list that the loop reads at one position and writes at another."""
    elements = tf.TensorArray(
        "float32", STEPS + 1, clear_after_read=False, element_shape=(x.shape[0], FEATURES)
    ).write(0, tf.zeros_like(x[:, 0]))
    _, elements = tf.while_loop(
        lambda step, _: step < STEPS,
        lambda step, list_: (step + 1, list_.write(step + 1, list_.read(step) * 0.5 + x[:, step])),
        (0, elements),
    )
    return turned(elements.stack()[1:])


def tensorflow_scan(x: Any, **options: Any) -> Any:
    start = tf.zeros_like(x[:, 0])
    each = tf.scan(
        lambda a, now: (a[0] * 0.5 + now, a[1] + a[0]), turned(x), (start, start), **options
    )
    return turned(each[0]) + turned(each[1])


# One model for each group, one output for each loop: a conversion takes most of the time.
LOOPS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "rnn": {
        "one": lambda x: rnn(step, x),
        "chained": lambda x: rnn(total, rnn(step, x)),
        "next to another": lambda x: rnn(step, x) + rnn(total, x),
        "backwards": lambda x: rnn(step, x, go_backwards=True),
        "masked": lambda x: rnn(step, x, mask=x[..., 0] > -0.5),
    },
    "rnn of two states": {
        "all": rnn_of_two,
        "backwards": lambda x: rnn_of_two(x, go_backwards=True),
        "masked": lambda x: rnn_of_two(x, mask=x[..., 0] > -0.5),
        "zeros": lambda x: rnn_of_two(x, mask=x[..., 0] > -0.5, zero_output_for_mask=True),
        "last": lambda x: rnn_of_two(x, return_all_outputs=False) + x,
        "unrolled": lambda x: rnn_of_two(x, unroll=True),
    },
    "scan": {
        "forwards": scan,
        "backwards": lambda x: scan(x, reverse=True),
        "two steps at a time": lambda x: scan(x, unroll=2),
        "types": scan_of_types,
        "length": scan_of_length,
        "associative": associative,
        "associative, backwards": lambda x: associative(x, reverse=True),
    },
    "loops": {
        "while": while_loop,
        "while, at most": lambda x: while_loop(x, maximum_iterations=3),
        "fori": fori_loop,
        "map": lambda x: turned(keras.ops.map(keras.ops.softmax, turned(x))),
        "vectorized map": lambda x: keras.ops.vectorized_map(lambda row: row * row[0], x),
    },
    "lists": {
        "in order": lambda x: array(x, lambda step: step),
        "in reverse": lambda x: array(x, lambda step: STEPS - 1 - step),
        "some twice": lambda x: array(x, lambda step: step // 2),
        "ends early": lambda x: array(x, lambda step: step, stop=4),
        "begins late": lambda x: array(x, lambda step: step, start=2),
        "from zero": lambda x: array(x, lambda step: step - 2, start=2),
        "previous": array_of_previous,
        "scan": tensorflow_scan,
        "scan in reverse": lambda x: tensorflow_scan(x, reverse=True),
    },
}


@pytest.mark.parametrize("kind", only(LOOPS, "loops"))
def test_loops_of_a_layer(kind: str, tmp_path: Path) -> None:
    class Loops(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return {name: loop(x) for name, loop in LOOPS[kind].items()}

        def compute_output_spec(self, x: Any) -> Any:
            return {name: keras.KerasTensor(x.shape, name=name) for name in LOOPS[kind]}

    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, Loops(name="y")(x))
    expected = model.predict(X, verbose=0)
    interface = interface_of(model)
    assert set(expected) == {spec.name for spec in interface.outputs}
    # TensorFlow's converter for TFLite has lists.
    formats = [(onnx, len(X))] + [(tflite, 1)] * (kind in ("scan", "rnn of two states"))
    for module, rows in formats:
        path = tmp_path / f"m.{module.__name__}"
        module.convert(model, interface, recipe_for("float32"), path)
        name = module.__name__.rsplit(".", 1)[-1]
        runner = open_runner(path, name, interface.inputs, interface.outputs)
        for first in range(0, len(X), rows):
            part = slice(first, first + rows)
            for output, actual in runner.run({"x": X[part]}).items():
                np.testing.assert_allclose(
                    actual, expected[output][part], rtol=1e-5, atol=1e-6, err_msg=f"{name} {output}"
                )
    nodes = onnx_package.load(tmp_path / f"m.{onnx.__name__}").graph.node
    assert "Loop" in {node.op_type for node in nodes}


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
