"""Integer files of calibration samples of which one has an extreme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import CONVERTERS, tflite_of

from edgeattn.runners import open_runner
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.loop_ranges import LoopRanges
from edgeattn_converters.quantization.mask_fills import Extent
from edgeattn_converters.quantization.ranges import measure_ranges
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROWS = 64
# In the last quarter of the samples, and at every position of a group of four.
POSITIONS = range(48, 52)
CASES = [
    (format, scheme, row)
    for format in ("tflite", "onnx")
    for scheme in ("int8", "int16x8")
    for row in POSITIONS
]


def _dense() -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((7,), name="x")
    hidden = layers.Dense(67, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="answer")(hidden))


def _samples(row: int) -> Any:
    values = np.random.default_rng(1).normal(0, 1, (ROWS, 7)).astype("float32")
    values[row] *= 8
    return values


@pytest.mark.parametrize("case", only(CASES, ("tflite", "int8", 48), ("onnx", "int8", 48)))
def test_no_calibration_sample_is_clipped(case: tuple[str, str, int], tmp_path: Path) -> None:
    format, scheme, row = case
    model, samples = _dense(), _samples(row)
    inputs, outputs, _, _ = CONVERTERS[format].convert(
        model,
        interface_of(model),
        recipe_for(scheme),
        tmp_path / "file",
        quantization=QuantizationOptions(),
        samples={"x": samples},
    )
    runner = open_runner(tmp_path / "file", format, inputs, outputs, as_deployed=True)
    extreme = {"x": samples[row : row + 1]}
    actual, expected = runner.run(extreme)["answer"], np.asarray(model(extreme["x"]))
    # Ranges of the other samples end at less than half of its values: an error of at least 50%.
    assert np.linalg.norm(actual - expected) < 0.1 * np.linalg.norm(expected)


def test_values_inside_loops_are_measured_on_all_samples() -> None:
    import tensorflow as tf

    def halved_sums(x: Any) -> Any:
        return tf.while_loop(
            lambda step, _: step < 5,
            lambda step, total: (step + 1, 0.5 * total + x),
            (tf.constant(0), tf.zeros((1, 2))),
        )[1]

    content = tflite_of(halved_sums, (1, 2))
    file, loops = TFLiteFile(content), LoopRanges(content)
    (name,) = (file.name(file.main.tensors[int(index)]) for index in file.main.inputs)
    samples = {name: np.ones((41, 2), np.float32)}
    samples[name][40] = 8
    measure_ranges(file, content, samples, [name], loops.add)
    (inside,) = loops.ranges.values()
    # 8 + 4 + 2 + 1 + 1/2
    assert max(high for _, high in inside.values()) == 15.5


def test_values_that_are_not_finite_do_not_count() -> None:
    assert Extent.of(np.array([1.0, np.nan, -2.0], np.float32)).whole == (-2.0, 1.0)
