"""int16x8 in TFLite: the operators that LiteRT has int16 kernels for, against Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from quantized_models import CONVERTERS

from edgeattn.file_structure.tflite import read_tflite
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

SHAPE = (8, 8, 3)
# What each makes of an int16 tensor, and the type of its operator.
OPERATIONS: Mapping[str, Callable[[Any], Any]] = {
    "AVERAGE_POOL_2D": layers.AveragePooling2D(2, padding="same"),
    "MEAN": layers.GlobalAveragePooling2D(),
    "LEAKY_RELU": lambda y: layers.LeakyReLU(0.2)(y),
    "RELU": lambda y: ops.relu(y) + ops.tanh(y),
    "RESIZE_NEAREST_NEIGHBOR": layers.Resizing(3, 3, interpolation="nearest"),
    "MAX_POOL_2D": layers.MaxPooling2D(3, 2),
    "REDUCE_MAX": layers.GlobalMaxPooling2D(),
    "PAD": layers.ZeroPadding2D(((1, 0), (2, 1))),
    "GATHER": lambda y: ops.take(y, [5, 0, 0], axis=1),
    "CONCATENATION": lambda y: ops.concatenate([y, ops.tanh(y), y * y], axis=-1),
    "PACK": lambda y: ops.stack([y, y * y], axis=-1),
    "SPLIT": lambda y: ops.split(y, 2, axis=1)[1] * 0.7,
    "TRANSPOSE": layers.Permute((3, 1, 2)),
}


def converted(call: Any, path: Path) -> tuple[Any, Tensors, Tensors]:
    """The contents of the int16x8 file, what Keras computes, and what the file computes."""
    x = keras.Input(SHAPE, name="x")
    model = keras.Model(x, call(x))
    data = np.random.default_rng(5).uniform(-2, 2, (64, *SHAPE)).astype("float32")
    file = CONVERTERS["tflite"].convert(
        model, interface_of(model), recipe_for("int16x8"), path, samples={"x": data}
    )
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": data[:8]})
    expected = model.predict(data[:8], verbose=0)
    return read_tflite(path.read_bytes()), expected, actual


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tensors, Tensors]:
    path = tmp_path_factory.mktemp("int16") / "model.tflite"
    return converted(
        lambda x: {
            name: call(x * (1.0 + number / 10))
            for number, (name, call) in enumerate(OPERATIONS.items())
        },
        path,
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operator_with_a_kernel_computes_in_int16(
    name: str, outputs: tuple[Any, Tensors, Tensors]
) -> None:
    contents, expected, actual = outputs
    assert name in contents.computes_in["int16"]
    assert name not in contents.computes_in.get("float32", {})
    # A step is at most 1/16384 of the largest value, which gives over 80 dB; tanh and y * y share
    # the scale of what they are joined with.
    assert metrics.snr_db(expected[name], actual[name]) > 70


@pytest.mark.parametrize("strides", [1, 2])
def test_a_transposed_convolution(strides: int, tmp_path: Path) -> None:
    layer = layers.Conv2DTranspose(5, 3, strides, bias_initializer="random_normal")
    contents, expected, actual = converted(layer, tmp_path / "model.tflite")
    assert contents.computes_in == {"int16": {"TRANSPOSE_CONV": 1}}
    assert contents.weights == {"int8": 5 * 3 * 3 * 3}
    assert metrics.snr_db(expected, next(iter(actual.values()))) > 40


def test_weights_of_batch_matmul_are_stored_in_8_bits(tmp_path: Path) -> None:
    """Its kernel needs int16 weights, which would take twice the size."""
    weights = np.random.default_rng(3).normal(0, 0.3, (8, 3, 32)).astype("float32")
    contents, expected, actual = converted(
        lambda x: ops.matmul(x, weights), tmp_path / "model.tflite"
    )
    assert contents.computes_in == {"int16": {"BATCH_MATMUL": 1}}
    assert contents.weights == {"int8": weights.size}
    assert metrics.snr_db(expected, next(iter(actual.values()))) > 40


def test_only_moved_values_are_not_rounded(tmp_path: Path) -> None:
    from edgeattn.errors import SchemeError

    with pytest.raises(SchemeError, match="no operator computes in int16"):
        converted(layers.MaxPooling2D(2), tmp_path / "model.tflite")


def test_the_variance_of_a_normalization_stays_float32(tmp_path: Path) -> None:
    contents, expected, actual = converted(
        lambda x: layers.LayerNormalization()(x * 1.0), tmp_path / "model.tflite"
    )
    assert contents.computes_in["float32"]["MEAN"] == contents.computes_in["int16"]["MEAN"] == 1
    assert metrics.snr_db(expected, next(iter(actual.values()))) > 60


def test_a_large_constant_of_a_sum_is_int16(tmp_path: Path) -> None:
    """The kernel requires it, so that the file has no large int8 weight, and is right."""
    mask = np.random.default_rng(3).normal(0, 1, (8, 8, 24)).astype("float32")
    contents, expected, actual = converted(
        lambda x: ops.concatenate([x] * 8, axis=-1) + mask, tmp_path / "model.tflite"
    )
    assert contents.weights == {"int16": mask.size}
    assert metrics.snr_db(expected, next(iter(actual.values()))) > 70


# What is steep in the size of the data, and the scale of the data that calibration has not seen.
STEEP: Mapping[str, tuple[Callable[[Any], Any], float]] = {
    "RSQRT": (lambda x: ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + 1e-3), 0.3),
    "DIV": (lambda x: 1.0 / (ops.mean(ops.abs(x), axis=-1, keepdims=True) + 0.01), 0.3),
    "POW": (lambda x: (ops.mean(ops.abs(x), axis=-1, keepdims=True) + 0.01) ** -0.8, 0.3),
}


def test_steep_results_are_not_clipped(tmp_path: Path) -> None:
    """A normalization of data with three tenths of the size of all calibration samples."""
    x = keras.Input((8, 24), name="x")
    outputs = {
        name: layers.Dense(5, kernel_initializer=keras.initializers.RandomNormal(seed=number))(
            x * layers.Permute((1, 2))(function(x)) * 0.5
        )
        for number, (name, (function, _)) in enumerate(STEEP.items())
    }
    model = keras.Model(x, outputs)
    data = np.random.default_rng(5).uniform(-2, 2, (64, 8, 24)).astype("float32")
    interface = interface_of(model)
    path = tmp_path / "model.tflite"
    file = CONVERTERS["tflite"].convert(
        model, interface, recipe_for("int16x8"), path, samples={"x": data}
    )
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    for name, (_, scale) in STEEP.items():
        other = data[:8] * np.float32(scale)
        expected, actual = model.predict(other, verbose=0)[name], runner.run({"x": other})[name]
        assert metrics.snr_db(expected, actual) > 40, name
