"""Words that calibration samples do not contain."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from quantized_models import integer_file

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner

WORDS, STEPS, COMMON = 12, 6, 9


def averaged(words):
    return layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, 5)(words))


def steps(words):
    return layers.LSTM(4)(layers.Embedding(WORDS, 5, mask_zero=True)(words))


def beside_positions(words):
    embedded = layers.Embedding(WORDS, 5)(words)
    both = layers.Concatenate()([embedded, layers.Dense(3)(embedded)])
    return layers.Dense(4)(layers.Flatten()(both))


@pytest.mark.parametrize(
    ("build", "least", "integer_only"),
    [
        pytest.param(averaged, 20, False, marks=pytest.mark.long),
        (averaged, 20, True),
        pytest.param(steps, 41, False, marks=pytest.mark.long),
        (beside_positions, 18, False),
        pytest.param(beside_positions, 18, True, marks=pytest.mark.long),
    ],
)
def test_rare_words_are_not_clipped(
    build, least: float, integer_only: bool, tmp_path: Path
) -> None:
    """The rows of rare words are twice as large as those that are calibrated on."""
    inputs = keras.Input((STEPS,), name="x", dtype="int32")
    model = keras.Model(inputs, layers.Dense(3, name="y")(build(inputs)))
    generator = np.random.default_rng(7)
    for variable in model.variables:
        variable.assign(generator.normal(scale=0.5, size=variable.shape))
    (table,) = [item for item in model.variables if item.path.endswith("embeddings")]
    rows = np.clip(generator.normal(size=table.shape), -1, 1)
    table.assign(np.where(np.arange(WORDS)[:, None] < COMMON, rows, 2 * rows))
    common = generator.integers(1, COMMON, (64, STEPS)).astype("int32")
    rare = common.copy()
    rare[:, 2] = generator.integers(COMMON, WORDS, 64)
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": common}, path, integer_only=integer_only)
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    expected, actual = model.predict(rare, verbose=0), runner.run({"x": rare})["y"]
    assert snr_db(expected, actual) > least
