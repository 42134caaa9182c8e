"""Weights that are written without a softmax, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import contexts
import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.tensors import Array
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 7, 5
X = np.random.default_rng(5).normal(0, 1, (4, STEPS, FEATURES)).astype("float32")
PROJECTION = np.random.default_rng(7).normal(0, 1, (FEATURES, 1)).astype("float32")


def _scores(x: Any) -> Any:
    """(batch, queries, keys), not symmetric; of tensors or NumPy arrays."""
    return x[..., :, None, 0] * x[..., None, :, 1] + x[..., None, :, 2]


def _entmax(scores: Any) -> Any:
    """Entmax of 1.5 with sorted scores, as its authors write it."""
    scores = scores / 2
    ordered = -ops.sort(-scores, -1)
    count = ops.arange(1, scores.shape[-1] + 1, dtype="float32")
    mean = ops.cumsum(ordered, -1) / count
    variance = ops.cumsum(ordered**2, -1) / count - mean**2
    thresholds = mean - ops.sqrt(ops.relu((1 - count * variance) / count))
    support = ops.sum(ops.cast(thresholds <= ordered, "int32"), -1, keepdims=True)
    return ops.relu(scores - ops.take_along_axis(thresholds, support - 1, -1)) ** 2


def entmax(scores: Array) -> Array:
    """Entmax of 1.5: the threshold with which the weights sum to 1 is found by bisection."""
    scores = scores / 2
    low, high = scores.max(-1, keepdims=True) - 1, scores.max(-1, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        large = (np.maximum(scores - middle, 0) ** 2).sum(-1, keepdims=True) > 1
        low, high = np.where(large, middle, low), np.where(large, high, middle)
    return np.maximum(scores - low, 0) ** 2


def _of_cosines(x: Any) -> Any:
    rows = ops.normalize(x, -1)
    weights = ops.matmul(rows, ops.transpose(rows, (0, 2, 1))) + 1.5
    return ops.matmul(weights / ops.sum(weights, -1, keepdims=True), x)


def cosines(x: Array) -> Array:
    rows = x / np.linalg.norm(x, axis=-1, keepdims=True)
    weights = rows @ rows.swapaxes(1, 2) + 1.5
    return weights / weights.sum(-1, keepdims=True)


# Contexts, and the weights that they multiply data with. The sparsemax of Keras 3 does not sum to 1
# if several scores are above the threshold, so that its weights are taken from Keras.
CASES: contexts.Cases = {
    "entmax": (lambda x: ops.matmul(_entmax(_scores(x)), x), lambda x: entmax(_scores(x))),
    "sparsemax_of_keras": (
        lambda x: ops.matmul(ops.sparsemax(_scores(x), -1), x),
        lambda x: np.array(ops.sparsemax(_scores(x), -1)),
    ),
    "sparsemax_of_steps": (
        lambda x: ops.sum(ops.sparsemax(ops.matmul(x, PROJECTION), 1) * x, 1),
        lambda x: np.array(ops.sparsemax(x @ PROJECTION, 1))[..., 0],
    ),
    "cosines": (_of_cosines, cosines),
}


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_written_weights_have_maps(format: str, tmp_path: Path) -> None:
    model = contexts.model_of(CASES, (STEPS, FEATURES))
    interface = interface_of(model)
    assert {spec.name for spec in interface.attention} == {f"attention/{name}" for name in CASES}
    assert interface.doubtful == ()
    actual = contexts.run(model, interface, format, X, tmp_path / "m")
    for name, (_, weights) in CASES.items():
        np.testing.assert_allclose(actual[f"attention/{name}"], weights(X), atol=1e-5, err_msg=name)


def test_a_mask_of_features_is_the_map_of_a_model_of_features() -> None:
    """A step of TabNet: the sparsemax of features times the features."""
    inputs = keras.Input((FEATURES,), name="x")
    masks = layers.Activation("sparsemax", name="mask")(layers.Dense(FEATURES)(inputs))
    interface = interface_of(keras.Model(inputs, layers.Dense(1)(masks * inputs)))
    maps = [(spec.name, spec.shape) for spec in interface.attention]
    assert maps == [("attention/mask", (None, FEATURES))]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: (
            ops.matmul(x, PROJECTION) / ops.sum(ops.matmul(x, PROJECTION), 1, keepdims=True) * x
        ),
        lambda x: x * ops.sigmoid(ops.mean(x, 1, keepdims=True)),
        lambda x: x * ops.rsqrt(ops.sum(x**2, -1, keepdims=True)) * ops.roll(x, 1, 1),
        lambda x: ops.relu(x - ops.mean(x, -1, keepdims=True)) * x,
        lambda x: ops.relu(x - ops.top_k(x, 2)[0][..., 1:]) * x,
    ],
    ids=["projection", "gate", "length", "above_the_mean", "largest"],
)
def test_other_quotients_and_thresholds_are_no_weights(call: Callable[[Any], Any]) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    interface = interface_of(keras.Model(inputs, layers.Lambda(call)(inputs)))
    assert (interface.attention, interface.doubtful) == ((), ())
