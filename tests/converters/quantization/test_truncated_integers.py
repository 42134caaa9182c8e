"""Categories and positions that a model computes with floats and then truncates to integers.

An integer file that stores the category 3 as 2.996 looks up category 2.
"""

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
from edgeattn_converters import ConversionOptions, ModelSource, QuantizationOptions, convert

CATEGORIES = 11


def _embedded(index: Any) -> Any:
    return layers.Embedding(40 * CATEGORIES, 4)(ops.cast(index, "int32"))


# The category, an input of shape (batch, 1), as features.
FEATURES: dict[str, Callable[[Any], Any]] = {
    "encoding": lambda x: layers.CategoryEncoding(CATEGORIES, output_mode="one_hot")(x),
    "moved": lambda x: _embedded(ops.reshape(ops.cast(x, "float32"), (-1, 1, 1))[:, 0]),
    "offset": lambda x: _embedded(ops.cast(x, "float32") + 5.0),
    "combined": lambda x: _embedded(ops.cast(x, "float32") * 7.0 + ops.cast(x, "float32")),
    "joined": lambda x: _embedded(
        ops.concatenate([ops.cast(x, "float32"), ops.cast(CATEGORIES - x, "float32")], axis=-1)
    ),
}


def model_of(kind: str) -> Any:
    category = keras.Input((1,), dtype="int32", name="category")
    amount = keras.Input((1,), name="amount")
    features = layers.Concatenate()([layers.Flatten()(FEATURES[kind](category)), amount])
    h = layers.Dense(8, activation="relu")(features)
    model = keras.Model([category, amount], layers.Dense(2, name="y")(h))
    generator = np.random.default_rng(8)
    for weight in model.weights:
        weight.assign(generator.normal(0, 0.7, weight.shape))
    return model


def samples(count: int, seed: int) -> dict[str, Any]:
    amounts = np.random.default_rng(seed).uniform(-1, 1, (count, 1)).astype("float32")
    categories = np.arange(count, dtype="int32")[:, None] % CATEGORIES
    return {"category": categories, "amount": amounts}


@pytest.mark.parametrize("kind", only(FEATURES, "encoding"))
def test_every_category_is_looked_up(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "samples.npz", **samples(CATEGORIES, 1))
    np.savez(tmp_path / "calibration.npz", **samples(6 * CATEGORIES, 2))
    conversion = convert(
        ModelSource(tmp_path / "model.keras", samples=tmp_path / "samples.npz"),
        options=ConversionOptions(schemes=("int8", "int16x8"), attention=False),
        quantization=QuantizationOptions(calibration=tmp_path / "calibration.npz"),
    )
    fresh = samples(2 * CATEGORIES, 3)
    expected = model.predict([fresh["category"], fresh["amount"]], verbose=0)
    artifacts = conversion.bundle.manifest.artifacts
    assert {artifact.scheme for artifact in artifacts} == {"int8", "int16x8"}
    for artifact in artifacts:
        path = conversion.bundle.path / artifact.path
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        error = np.abs(runner.run(fresh)["y"] - expected).max() / np.ptp(expected)
        # Another category changes outputs by a fifth of their range and more.
        assert error < 0.08, artifact.label
