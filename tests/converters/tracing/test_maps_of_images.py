"""Maps of a softmax over several axes, as over the rows and columns of an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters import convert
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROWS, COLUMNS, CHANNELS = 4, 7, 3
PIXELS = ROWS * COLUMNS


def _sum(values: Any) -> Any:
    return ops.sum(values, axis=(1, 2))


def _quotient(scores: Any, image: Any) -> Any:
    powers = ops.exp(scores)
    return _sum(powers / ops.sum(powers, axis=(1, 2), keepdims=True) * image)


def _divided_afterwards(scores: Any, image: Any) -> Any:
    return _sum(ops.exp(scores) * image) / _sum(ops.exp(scores))


def _flat(scores: Any) -> Any:
    return layers.Softmax()(layers.Flatten()(scores))


def _reshaped(scores: Any, image: Any) -> Any:
    return _sum(layers.Reshape((ROWS, COLUMNS, 1))(_flat(scores)) * image)


def _averaged(scores: Any, image: Any) -> Any:
    weights = layers.Reshape((ROWS, COLUMNS, 1))(_flat(scores))
    return layers.GlobalAveragePooling2D()(layers.Multiply()([weights, image]))


def _equation(scores: Any, image: Any) -> Any:
    weights = layers.Reshape((ROWS, COLUMNS))(_flat(scores))
    return ops.einsum("brc,brcf->bf", weights, image)


# Weighted sums (batch, channels) of an image with scores (batch, rows, columns, 1).
SUMS: dict[str, Callable[[Any, Any], Any]] = {
    "softmax": lambda scores, image: _sum(layers.Softmax(axis=(1, 2))(scores) * image),
    "quotient": _quotient,
    "divided_afterwards": _divided_afterwards,
    "reshaped": _reshaped,
    "averaged": _averaged,
    "equation": _equation,
}


def images(*names: str) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((ROWS, COLUMNS, CHANNELS), name="x")
    sums = [
        SUMS[name](layers.Conv2D(1, 1, name=f"scores_of_{name}")(inputs), inputs) for name in names
    ]
    joined = layers.Concatenate()(sums) if len(sums) > 1 else sums[0]
    return keras.Model(inputs, layers.Dense(2, name="y")(joined))


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_pixels_are_the_keys_of_the_map(format: str, tmp_path: Path) -> None:
    model = images(*SUMS)
    interface = interface_of(model)
    assert [spec.shape[1:] for spec in interface.attention] == len(SUMS) * [(PIXELS,)]
    assert interface.doubtful == ()
    x = np.random.default_rng(5).normal(0, 1, (3, ROWS, COLUMNS, CHANNELS)).astype("float32")
    converter = {"tflite": tflite, "onnx": onnx}[format]
    inputs, outputs, maps, _ = converter.convert(
        model, interface, recipe_for("float32"), tmp_path / "m"
    )
    actual = open_runner(tmp_path / "m", format, inputs, outputs).run({"x": x})
    expected = []
    for name in SUMS:
        kernel, bias = model.get_layer(f"scores_of_{name}").get_weights()
        powers = np.exp((x @ kernel[0, 0] + bias).reshape(3, PIXELS).astype(np.float64))
        expected.append(powers / powers.sum(1, keepdims=True))
    # Each map is that of one of the layers.
    found = [
        [np.allclose(actual[name], weights, atol=1e-5) for weights in expected] for name in maps
    ]
    assert np.array_equal(np.sort(np.argmax(found, 1)), np.arange(len(SUMS)))
    assert np.sum(found) == len(SUMS)
    np.testing.assert_allclose(actual["y"], model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["softmax", "quotient", "reshaped"])
def test_integer_files(kind: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((ROWS, COLUMNS, CHANNELS), name="x")
    features = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    pooled = SUMS[kind](layers.Conv2D(1, 1)(features), features)
    outputs = layers.Dense(3, name="y")(layers.Dense(16, activation="relu")(pooled))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    x = np.random.default_rng(5).normal(0, 1, (200, ROWS, COLUMNS, CHANNELS)).astype("float32")
    np.savez(tmp_path / "c.npz", x=x)
    conversion = convert(
        tmp_path / "m.keras",
        options=ConversionOptions(schemes=("int8",)),
        quantization=QuantizationOptions(calibration=tmp_path / "c.npz"),
    )
    assert conversion.exit_code == 0
    artifacts = conversion.bundle.manifest.artifacts
    assert {artifact.format for artifact in artifacts} == {"tflite", "onnx"}
    assert all(len(artifact.attention) == 1 for artifact in artifacts)
