"""Layers of the user that compute in half precision inside a float32 model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.reference.rounded_weights import rounded_weights
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS, FEATURES = 4, 5
X = np.random.default_rng(4).normal(size=(1, STEPS, FEATURES)).astype("float32")
# Of the functions below.
Compute = Callable[[Any, str], Any]


def attention(x: Any, dtype: str) -> Any:
    x = ops.cast(x, dtype)
    weights = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))), -1)
    return ops.matmul(weights, x)


def masked(x: Any, dtype: str) -> Any:
    """With the lowest number of the type, as scores of masked keys."""
    scores = tf.where(x > 0, tf.cast(x, dtype), tf.as_dtype(dtype).min)
    return tf.nn.softmax(scores, -1)


def halved(x: Any, dtype: str) -> Any:
    """In a loop, whose body is a function of its own."""
    start = (tf.constant(0), tf.cast(x, dtype))
    return tf.while_loop(lambda k, _: k < 3, lambda k, y: (k + 1, y * 0.5), start)[1]


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# What they compute in float32.
FUNCTIONS: Mapping[str, tuple[Compute, Callable[[Array], Array]]] = {
    "attention": (attention, lambda x: softmax(x @ x.swapaxes(1, 2)) @ x),
    "masked": (masked, lambda x: softmax(np.where(x > 0, x, -6e4))),
    "loop": (halved, lambda x: x / 8),
}


class Half(layers.Layer):  # type: ignore[misc]
    def __init__(self, compute: Compute, dtype: str, result: str = "float32", **kw: Any) -> None:
        super().__init__(**kw)
        self.compute, self.inner, self.result = compute, dtype, result

    def call(self, x: Any) -> Any:
        return tf.cast(self.compute(x, self.inner), self.result)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, dtype=self.result)


def model_of(dtype: str, result: str = "float32") -> keras.Model:
    x = keras.Input((STEPS, FEATURES), name="x")
    return keras.Model(
        x, {name: Half(item[0], dtype, result, name=name)(x) for name, item in FUNCTIONS.items()}
    )


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
@pytest.mark.parametrize("dtype", only(["float16", "bfloat16"], "bfloat16"))
@pytest.mark.parametrize("result", only(["float32", "half"], "float32"))
def test_half_precision_is_computed_in_float32(
    result: str, dtype: str, format: str, tmp_path: Path
) -> None:
    model = model_of(dtype, dtype if result == "half" else result)
    interface = interface_of(model)
    assert interface.half == (dtype,)
    assert {spec.dtype for spec in interface.all_outputs} == {"float32"}
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), tmp_path / "m")
    actual = open_runner(tmp_path / "m", format, file.inputs, file.outputs).run({"x": X})
    of_keras = predict(model, interface, {"x": X})
    for name, (_, function) in FUNCTIONS.items():
        expected = function(X.astype("float64"))
        for values in (actual[name], of_keras[name]):
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [spec.name for spec in interface.attention] == ["attention/attention"]
    weights = softmax(X @ X.swapaxes(1, 2))
    np.testing.assert_allclose(actual["attention/attention"], weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_that_are_only_rounded_stay_rounded(dtype: str) -> None:
    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, {"y": Half(lambda x, _: tf.cast(x, dtype), dtype, dtype, name="y")(x)})
    interface = interface_of(model)
    assert interface.half == ()
    values = predict(model, interface, {"x": X})["y"]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, tf.cast(tf.cast(X, dtype), "float32"))


class Average(layers.Layer):  # type: ignore[misc]
    """The average of the steps times a weight, in half precision; in a loop, too."""

    def __init__(self, dtype: str, in_loop: bool = False, **kwargs: Any) -> None:
        super().__init__(dtype=f"mixed_{dtype}", **kwargs)
        self.in_loop = in_loop
        self.factor = self.add_weight(shape=(FEATURES,), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        """Return the average, (batch, features)."""
        if not self.in_loop:
            return ops.mean(x, axis=1) * self.factor
        start = (tf.constant(0), tf.zeros_like(x[:, 0]))
        step = tf.while_loop(lambda k, _: k < 1, lambda k, _: (k + 1, tf.reduce_mean(x, 1)), start)
        return step[1] * self.factor


def averages(dtype: str) -> keras.Model:
    x = keras.Input((STEPS, FEATURES), name="x")
    names = {"plain": False, "loop": True}
    return keras.Model(
        x, {name: Average(dtype, loop, name=name)(x) for name, loop in names.items()}
    )


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_slight_changes_of_models_in_half_precision(dtype: str) -> None:
    """The variables that say how much is changed were constants, and so were weights."""
    model = averages(dtype)
    interface = interface_of(model)
    assert interface.half == (dtype,)
    expected = X.astype(np.float64).mean(1)
    shifted = shifted_means(model, interface, attention=False)
    rounded = rounded_function(model, interface, attention=False)
    of_seeds = [rounded({"x": X}, seed) for seed in (1, 2)]
    for name in ("plain", "loop"):
        np.testing.assert_allclose(predict(model, interface, {"x": X})[name], expected, atol=1e-6)
        for share in (0.5, -1.0):
            larger = shifted({"x": X}, share)[name]
            np.testing.assert_allclose(larger, expected * (1 + share), atol=1e-6, err_msg=name)
        np.testing.assert_allclose(of_seeds[0][name], expected, atol=1e-6)
        assert not np.array_equal(of_seeds[0][name], of_seeds[1][name])
    with rounded_weights(model, 2**20, 0):
        moved = predict(model, interface, {"x": X})
    for name in ("plain", "loop"):
        np.testing.assert_allclose(np.abs(moved[name] / expected - 1), 0.125, rtol=1e-4)
