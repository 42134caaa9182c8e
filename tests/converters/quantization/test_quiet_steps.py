"""int8 steps whose states are quiet in calibration, compared with Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from quantized_models import filled, integer_file, tflite_of

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.least_ranges import with_least_ranges

STEPS, FEATURES, ROWS = 12, 6, 64
PADDING = (3, 8)  # zeros before each sample of calibration


@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        pytest.param(layers.LSTM, PADDING, marks=pytest.mark.long),
        pytest.param(layers.GRU, PADDING, marks=pytest.mark.long),
        (layers.SimpleRNN, PADDING),
        pytest.param(layers.LSTM, (0, 1), marks=pytest.mark.long),
    ],
)
def test_states_that_calibration_sees_later(
    kind: Any, padding: tuple[int, int], tmp_path: Path
) -> None:
    """Zero states in calibration end no process, and longer sequences are not clipped."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    # Without a bias, a state stays zero until the first value.
    states = kind(32, use_bias=False, name="steps")(inputs)
    model = filled(keras.Model(inputs, layers.Dense(3, name="answer")(states)))
    generator = np.random.default_rng(1)
    longer, samples = generator.normal(0, 1, (2, ROWS, STEPS, FEATURES)).astype("float32")
    for sample, zeros in zip(samples, generator.integers(*padding, ROWS), strict=True):
        sample[:zeros] = 0
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": samples}, path)
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": longer})["answer"]
    assert snr_db(np.asarray(model(longer)), actual) > 24


def twice(x: Any) -> Any:
    import tensorflow as tf

    return tf.tanh(x) + (x - 0.5)


def test_sums_have_a_part_of_the_width_of_their_operands() -> None:
    """By hand: tanh is always from -1 to 1, and a constant has the width from zero."""
    file = TFLiteFile(tflite_of(twice, (1, 5)))
    results = {file.kind(op): int(op.outputs[0]) for op in file.main.operators}
    difference = results.get("SUB") or next(
        int(op.outputs[0]) for op in file.main.operators if int(op.outputs[0]) != results["ADD"]
    )
    total = int(file.main.outputs[0])
    x = int(file.main.inputs[0])
    quiet = {x: (0.0, 0.0), results["TANH"]: (0.0, 0.0), difference: (-0.5, -0.5)}
    widened = with_least_ranges(file, file.main, {**quiet, total: (-1e-9, 0.0)})
    assert widened[total][1] - widened[total][0] == pytest.approx(2 / 255)
    assert {index: widened[index] for index in quiet} == quiet
    wide = {**quiet, total: (-0.5, 0.5)}
    assert with_least_ranges(file, file.main, wide) == wide
