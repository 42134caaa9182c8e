"""int8 in TFLite where TensorFlow's quantizer gives values the scale of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from quantized_models import CONVERTERS

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

SIZE = 16
# The first half of the values is a tenth of the others.
SMALL = np.repeat(np.array([0.05, 0.5], "float32"), SIZE // 2)
OPERATIONS: Mapping[str, Callable[[Any], Any]] = {
    "minimum": lambda x: ops.minimum(x, 0.5) - x,
    "maximum": lambda x: ops.maximum(x, 0.2 * x) + 0.5 * x,
    "select": lambda x: ops.where(x > 0.3, x, 0.0) - 0.1 * x,
    "reshaped": lambda x: ops.reshape(ops.minimum(ops.reshape(x, (-1, 4, 4)), 0.0), (-1, 16)) - x,
    "relu": keras.layers.ReLU(1.5, negative_slope=0.1, threshold=0.3),
    "one_hot": lambda x: ops.sum(ops.one_hot(ops.cast(ops.abs(x), "int32"), 4) * 0.7, axis=1),
    "padded": lambda x: ops.pad(x, ((0, 0), (1, 2)), constant_values=0.5) * 0.7,
    "both": lambda x: ops.maximum(ops.minimum(x, 0.5), -0.5) * x,
    "joined maximum": lambda x: _largest_and_mean(x * 0.9) * x,
    "joined pooling": lambda x: ops.concatenate([_pooled(x * 0.8, 8), _pooled(x * 0.8, 4)], axis=1),
    "stacked pooling": lambda x: ops.stack([_pooled(x * 0.7, 8), _pooled(x * 0.6, 8)], axis=1),
    "joined resizing": lambda x: ops.concatenate([_resized(x * 0.5), _resized(x * 0.4)], axis=1),
    "joined slice": lambda x: (
        ops.concatenate([(x * SMALL)[:, :8], x[:, :8] ** 2 / 90], 1) + x * SMALL
    ),
}


def _largest_and_mean(y: Any) -> Any:
    joined = [call(y, axis=1, keepdims=True) for call in (ops.max, ops.mean)]
    return ops.max(ops.concatenate(joined, axis=1), axis=1, keepdims=True) * y


def _pooled(y: Any, size: int) -> Any:
    return keras.layers.AveragePooling1D(size)(ops.reshape(y, (-1, SIZE, 1)))


def _resized(y: Any) -> Any:
    return keras.layers.Resizing(2, 2)(ops.reshape(y, (-1, 4, 4, 1)))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, Tensors]:
    """What Keras and the file compute."""
    x = keras.Input((SIZE,), name="x")
    model = keras.Model(x, {name: call(x) for name, call in OPERATIONS.items()})
    data = np.random.default_rng(5).uniform(-3, 3, (64, SIZE)).astype("float32")
    path = tmp_path_factory.mktemp("scales") / "model.tflite"
    file = CONVERTERS["tflite"].convert(
        model, interface_of(model), recipe_for("int8"), path, samples={"x": data}
    )
    assert "int8" in file.achieved["computes_in"]
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": data})
    return model.predict(data, verbose=0), actual


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_have_the_scale_of_their_range(name: str, outputs: tuple[Tensors, Tensors]) -> None:
    expected, actual = outputs
    assert metrics.snr_db(expected[name], actual[name]) > (24 if name == "select" else 28)
