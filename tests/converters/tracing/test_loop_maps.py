"""Attention that a loop computes for one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.formats import onnx
from edgeattn_converters.loading.legacy import legacy_backend
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

KEYS, QUERIES, FEATURES, ROWS = 7, 5, 2, 3
IN_LOOP = "it is computed inside a loop"


def _weights(keys: Any, query: Any) -> Any:
    return ops.softmax(ops.sum(keys * query[:, None], -1), -1)


def _context(keys: Any, weights: Any) -> Any:
    return ops.sum(keys * weights[..., None], 1)


def _rnn(step: Callable[[Any], Any], entries: Any, start: Any) -> Any:
    """The results of ``step`` for all entries."""
    legacy_backend.provide()
    return keras.backend.rnn(lambda entry, _: (step(entry), [start]), entries, [start])[1]


def in_two_loops(keys: Any, queries: Any) -> Any:
    """As the AttentionLayer of thushv89: the weights in one loop, the sums in another."""
    weights = _rnn(lambda query: _weights(keys, query), queries, keys[:, :, 0])
    return _rnn(lambda entry: _context(keys, entry), weights, keys[:, 0])


def weights_in_a_loop(keys: Any, queries: Any) -> Any:
    return ops.matmul(_rnn(lambda query: _weights(keys, query), queries, keys[:, :, 0]), keys)


def weights_of_map_fn(keys: Any, queries: Any) -> Any:
    steps = tf.map_fn(lambda query: _weights(keys, query), tf.transpose(queries, [1, 0, 2]))
    return tf.matmul(tf.transpose(steps, [1, 0, 2]), keys)


def weights_of_scan(keys: Any, queries: Any) -> Any:
    def step(_: Any, query: Any) -> Any:
        return _weights(keys, query)

    steps = tf.scan(step, tf.transpose(queries, [1, 0, 2]), keys[:, :, 0])
    return tf.matmul(tf.transpose(steps, [1, 0, 2]), keys)


def returned_beside_the_sum(keys: Any, queries: Any) -> Any:
    """The step sums the keys, and returns its weights beside the sum."""

    def step(_: Any, query: Any) -> Any:
        weights = _weights(keys, query)
        return _context(keys, weights), weights

    start = (keys[:, 0], keys[:, :, 0])
    steps = tf.scan(step, tf.transpose(queries, [1, 0, 2]), start)
    return tf.transpose(tf.concat(steps, -1), [1, 0, 2])


def attention_in_a_step(keys: Any, queries: Any) -> Any:
    return _rnn(lambda query: _context(keys, _weights(keys, query)), queries, keys[:, 0])


def column_in_a_step(keys: Any, queries: Any) -> Any:
    """Weights with an axis of one query behind that of the keys."""

    def step(query: Any) -> Any:
        weights = ops.softmax(ops.sum(keys * query[:, None], -1, keepdims=True), 1)
        return ops.sum(keys * weights, 1)

    return _rnn(step, queries, keys[:, 0])


def heads_in_a_step(keys: Any, queries: Any) -> Any:
    """Weights of two heads, the axis behind that of the keys."""

    def step(query: Any) -> Any:
        weights = ops.softmax(keys * query[:, None], 1)
        return ops.sum(keys * weights, 1)

    return _rnn(step, queries, keys[:, 0])


def classes_of_steps(keys: Any, queries: Any) -> Any:
    return _rnn(lambda query: ops.softmax(query, -1), queries, keys[:, 0])


class KerasAttention(layers.Layer):  # type: ignore[misc]
    """An attention layer that is called in every step."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.attention = layers.Attention(name="inner")

    def call(self, inputs: Any) -> Any:
        keys, queries = inputs
        return _rnn(lambda query: self.attention([query[:, None], keys])[:, 0], queries, keys[:, 0])


def model_of(call: Callable[[Any, Any], Any] | layers.Layer) -> Any:
    keys = keras.Input((KEYS, FEATURES), name="keys")
    queries = keras.Input((QUERIES, FEATURES), name="queries")
    is_layer = isinstance(call, layers.Layer)
    own = call if is_layer else layers.Lambda(lambda inputs: call(*inputs), name="own")
    return keras.Model([keys, queries], layers.Flatten(name="y")(own([keys, queries])))


def found(interface: Interface) -> tuple[list[tuple[Any, ...]], list[str]]:
    shapes = [spec.shape[1:] for spec in interface.attention]
    return shapes, [item.reason for item in interface.doubtful]


CASES = [
    in_two_loops,
    weights_in_a_loop,
    weights_of_map_fn,
    weights_of_scan,
    returned_beside_the_sum,
]


@pytest.mark.parametrize("call", only(CASES, 1))
def test_weights_that_a_loop_returns_have_one_map(
    call: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    model = model_of(call)
    interface = interface_of(model)
    assert found(interface) == ([(QUERIES, KEYS)], [])
    path = tmp_path / "m.onnx"
    inputs, outputs, (name,), _ = onnx.convert(model, interface, recipe_for("float32"), path)
    generator = np.random.default_rng(3)
    x = {
        spec.name: generator.normal(0, 1, (ROWS, *spec.shape[1:])).astype("float32")
        for spec in inputs
    }
    powers: Array = np.exp(x["queries"] @ x["keys"].swapaxes(1, 2))
    actual = open_runner(path, "onnx", inputs, outputs).run(x)
    np.testing.assert_allclose(actual[name], powers / powers.sum(-1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(actual["y"], model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        attention_in_a_step,
        column_in_a_step,
        heads_in_a_step,
        KerasAttention,
    ],
)
def test_the_first_step_of_a_loop_is_no_map(call: Any) -> None:
    """Keras computes it once more outside the loop, for the shapes of the results."""
    interface = interface_of(model_of(call() if isinstance(call, type) else call))
    assert found(interface) == ([], [IN_LOOP])


def test_classes_of_all_steps_have_no_map_unless_their_layer_is_named() -> None:
    model = model_of(classes_of_steps)
    assert found(interface_of(model)) == ([], [])
    assert found(interface_of(model, attention=["own"])) == ([(QUERIES, FEATURES)], [])
