"""Softmaxes that are written without the operation of that name, and what only looks like one."""

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
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 5
X = np.random.default_rng(11).normal(0, 2, (4, STEPS, FEATURES)).astype("float32")


def _sum(values: Any) -> Any:
    return ops.sum(values, axis=1, keepdims=True)


def _moved_log_softmax(scores: Any) -> Any:
    flat = ops.squeeze(scores, -1)
    return ops.expand_dims(ops.exp(ops.log_softmax(flat)), -1)


def _log_of_sum(scores: Any) -> Any:
    largest = ops.max(scores, axis=1, keepdims=True)
    return ops.exp(scores - (largest + ops.log(_sum(ops.exp(scores - largest)))))


SOFTMAXES: dict[str, Callable[[Any], Any]] = {
    "reciprocal": lambda s: ops.exp(s) * ops.reciprocal(_sum(ops.exp(s))),
    "reciprocal_first": lambda s: ops.reciprocal(_sum(ops.exp(s))) * ops.exp(s),
    "inverse": lambda s: ops.exp(s) * (1.0 / (_sum(ops.exp(s)) + 1e-9)),
    "power": lambda s: ops.exp(s) * _sum(ops.exp(s)) ** -1,
    "expanded": lambda s: (
        ops.exp(s) * ops.expand_dims(ops.reciprocal(ops.sum(ops.exp(s), axis=1)), 1)
    ),
    "log_sum_exp": lambda s: ops.exp(s - ops.logsumexp(s, axis=1, keepdims=True)),
    "log_of_sum": _log_of_sum,
    "logarithm": lambda s: ops.exp(s - ops.log(_sum(ops.exp(s)))),
    "log_softmax": lambda s: ops.exp(ops.log_softmax(s, axis=1)),
    "log_softmax_of_last": _moved_log_softmax,
    "without_nan": lambda s: tf.math.divide_no_nan(ops.exp(s), _sum(ops.exp(s))),
    "normalized": lambda s: tf.linalg.normalize(ops.exp(s), ord=1, axis=1)[0],
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "other_sum": lambda s: ops.exp(s) * ops.reciprocal(_sum(ops.exp(2.0 * s))),
    "square": lambda s: ops.exp(s) * _sum(ops.exp(s)) ** -2,
    "twice": lambda s: ops.exp(s) * (2.0 / _sum(ops.exp(s))),
    "other_logarithm": lambda s: ops.exp(s - ops.logsumexp(2.0 * s, axis=1, keepdims=True)),
    "other_shift": lambda s: ops.exp(s - (ops.log(_sum(ops.exp(s - 1.0))) + s)),
    "sum_of_logarithms": lambda s: ops.exp(s - _sum(ops.log(ops.exp(s)))),
}

# Contexts of (steps, features) whose weights are normalized after the weighted sum.
CONTEXTS: dict[str, Callable[[Any, Any], Any]] = {
    "sum_of_products": lambda s, x: ops.sum(ops.exp(s) * x, 1) / ops.sum(ops.exp(s), 1),
    "with_a_small_number": lambda s, x: (
        ops.sum(x * ops.exp(s), 1) / (ops.sum(ops.exp(s), 1) + 1e-9)
    ),
    "matrices": lambda s, x: (
        ops.squeeze(ops.matmul(ops.transpose(ops.exp(s), (0, 2, 1)), x), 1) / ops.sum(ops.exp(s), 1)
    ),
}
OTHER_CONTEXTS: dict[str, Callable[[Any, Any], Any]] = {
    "other_total": lambda s, x: ops.sum(ops.exp(s) * x, 1) / ops.sum(ops.exp(2.0 * s), 1),
    "without_weights": lambda s, x: ops.sum(x, 1) / ops.sum(ops.exp(s), 1),
    "positions": lambda s, x: (
        ops.sum(ops.exp(s) * np.arange(STEPS, dtype="float32")[None, :, None], 1)
        / ops.sum(ops.exp(s), 1)
        * x[:, 0]
    ),
}


class Weights(layers.Layer):
    """Weights of the steps of scores, (batch, steps, 1)."""

    def call(self, scores: Any) -> Any:
        return {**SOFTMAXES, **OTHERS}[self.name](scores)

    def compute_output_spec(self, scores: Any) -> Any:
        return keras.KerasTensor(scores.shape)


class Context(layers.Layer):
    """A weighted sum of the steps of a sequence, (batch, steps, features), with scores."""

    def call(self, scores: Any, sequence: Any) -> Any:
        return {**CONTEXTS, **OTHER_CONTEXTS}[self.name](scores, sequence)

    def compute_output_spec(self, scores: Any, sequence: Any) -> Any:
        return keras.KerasTensor((sequence.shape[0], sequence.shape[2]))


def contexts(*names: str) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    results = [
        Context(name=name)(layers.Dense(1, name=f"scores_of_{name}")(inputs), inputs)
        for name in names
    ]
    return keras.Model(inputs, layers.Concatenate(name="y")(results))


def pooling(*names: str) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    contexts = [
        ops.sum(Weights(name=name)(layers.Dense(1, name=f"scores_of_{name}")(inputs)) * inputs, 1)
        for name in names
    ]
    return keras.Model(inputs, layers.Concatenate(name="y")(contexts))


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
@pytest.mark.parametrize(
    "names", only([SOFTMAXES, CONTEXTS], SOFTMAXES), ids=["weights", "contexts"]
)
def test_maps_of_written_softmaxes(names: Any, format: str, tmp_path: Path) -> None:
    model = contexts(*names) if names is CONTEXTS else pooling(*names)
    interface = interface_of(model)
    assert {spec.name for spec in interface.attention} == {f"attention/{n}" for n in names}
    assert interface.doubtful == ()
    converter = {"tflite": tflite, "onnx": onnx}[format]
    inputs, outputs, _, _ = converter.convert(
        model, interface, recipe_for("float32"), tmp_path / "m"
    )
    actual = open_runner(tmp_path / "m", format, inputs, outputs).run({"x": X})
    for name in names:
        kernel, bias = model.get_layer(f"scores_of_{name}").get_weights()
        powers = np.exp((X @ kernel + bias)[..., 0].astype(np.float64))
        expected = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(actual[f"attention/{name}"], expected, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(actual["y"], model.predict(X, verbose=0), atol=1e-5)


def test_what_is_not_normalized_is_no_map() -> None:
    for model in (pooling(*OTHERS), contexts(*OTHER_CONTEXTS)):
        interface = interface_of(model)
        assert interface.attention == ()
        assert interface.doubtful == ()
