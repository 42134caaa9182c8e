"""Maps of samples that ``vectorized_map`` takes apart have a batch axis in files of one sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(4).normal(size=(3, 6, 4)).astype("float32")


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def self_attention(x: Any) -> Any:
    return ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x))), x)


def keys_first(x: Any) -> Any:
    weights = ops.softmax(ops.matmul(x, ops.transpose(x)), axis=0)
    return ops.matmul(ops.transpose(weights), x)


def pooling(x: Any) -> Any:
    return ops.matmul(ops.softmax(ops.sum(x, axis=-1)), x)


def heads(x: Any) -> Any:
    parts = ops.transpose(ops.reshape(x, (6, 2, 2)), (1, 0, 2))
    return ops.vectorized_map(self_attention, parts)


def expected_map(function: Callable[[Any], Any]) -> np.ndarray:
    """Computed by hand from ``X``."""
    x = X.astype(np.float64)
    if function is pooling:
        return softmax(x.sum(axis=-1))
    if function is heads:
        x = x.reshape(3, 6, 2, 2).transpose(0, 2, 1, 3)
    return softmax(x @ np.swapaxes(x, -1, -2))


@pytest.mark.parametrize(
    "function",
    [
        self_attention,
        pytest.param(pooling, marks=pytest.mark.long),
        pytest.param(keys_first, marks=pytest.mark.long),
        pytest.param(heads, marks=pytest.mark.long),
    ],
)
def test_maps_of_vectorized_samples(function: Callable[[Any], Any], tmp_path: Path) -> None:
    class Each(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return ops.vectorized_map(function, x)

    x = keras.Input((6, 4), name="x")
    model = keras.Model(x, Each(name="each")(x))
    interface = interface_of(model)
    (spec,) = interface.attention
    expected = expected_map(function)
    assert spec.shape == (None, *expected.shape[1:])
    for suffix, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{suffix}"
        result = converter.convert(model, interface, recipe_for("float32"), path)
        assert result.attention == (spec.name,)
        runner = open_runner(path, suffix, result.inputs, result.outputs)
        actual = np.concatenate([runner.run({"x": sample[None]})[spec.name] for sample in X])
        np.testing.assert_allclose(actual, expected, atol=1e-5)
