"""Bounds of values that hold for any input, and the steps of int16 that they give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import tflite_of

from edgeattn.metrics.pairwise import max_abs_error
from edgeattn.runners import open_runner
from edgeattn.schemes import MICRO
from edgeattn.tensors import TensorSpec
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.integer_pass import IntegerPass
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.value_bounds import needed_magnitudes, value_bounds

WEIGHTS = np.array([[1.0, 0.5], [-2.0, 0.5]], np.float32)


def bounds_of_output(function: Callable[[Any], Any]) -> Range | None:
    file = TFLiteFile(tflite_of(function, (1, 2)))
    return value_bounds(file).get(int(file.main.outputs[0]))


def gate(x: Any) -> Any:
    import tensorflow as tf

    return tf.sigmoid(x)


def cell(x: Any) -> Any:
    """That of the first step, at most 1."""
    import tensorflow as tf

    return tf.sigmoid(x) * tf.tanh(x + 1.0)


def second_cell(x: Any) -> Any:
    import tensorflow as tf

    return tf.sigmoid(x - 1.0) * cell(x) + cell(2.0 * x)


def closed(x: Any) -> Any:
    return 1.0 - gate(x)


def product(x: Any) -> Any:
    """Its units are 1 + a - 2b and 0.5 a + 0.5 b, with a and b from -1 to 1."""
    import tensorflow as tf

    return tf.matmul(tf.tanh(x), WEIGHTS) + np.array([1.0, 0.0], np.float32)


def parts(x: Any) -> Any:
    import tensorflow as tf

    return tf.concat([cell(x)[:, :1], 3.0 - gate(x)], 1)


@pytest.mark.parametrize(
    ("function", "bounds"),
    [
        (gate, (0.0, 1.0)),
        (cell, (-1.0, 1.0)),
        (second_cell, (-2.0, 2.0)),
        (closed, (0.0, 1.0)),
        (product, (-2.0, 4.0)),
        (parts, (-1.0, 3.0)),
        (lambda x: x + 1.0, None),
        (lambda x: x * gate(x), None),
    ],
)
def test_bounds(function: Callable[[Any], Any], bounds: Range | None) -> None:
    """Worked out by hand."""
    assert bounds_of_output(function) == (bounds and pytest.approx(bounds))


def in_micro(content: bytes, x: np.ndarray, ranges: dict[str, Range], path: Path) -> np.ndarray:
    """The output of a graph in integers, with ``ranges`` by type of operator, or those of ``x``."""
    file = TFLiteFile(content)
    source, result = int(file.main.inputs[0]), int(file.main.outputs[0])
    by_index = {source: (float(x.min()), float(x.max()))}
    for operator in file.main.operators:
        if file.kind(operator) in ranges:
            by_index[int(operator.outputs[0])] = ranges[file.kind(operator)]
    IntegerPass(file, by_index, {}).run()
    names = [file.name(file.main.tensors[index]) for index in (source, result)]
    shape = tuple(map(int, file.main.tensors[result].shape))
    specs = TensorSpec(names[0], x[:1].shape, "float32"), TensorSpec(names[1], shape, "float32")
    path.write_bytes(file.pack())
    runner = open_runner(path, "tflite", specs[:1], specs[1:], runtime=MICRO)
    return np.asarray(runner.run({names[0]: x})[names[1]])


def test_a_range_beyond_the_bounds_does_not_round_more(tmp_path: Path) -> None:
    """As if a later step reached 50: a step would be 100 / 32767, and errors up to 0.0015."""
    pytest.importorskip("tflite_micro")
    x = np.linspace(-2, 2, 200, dtype=np.float32).reshape(100, 2)
    ranges = {"LOGISTIC": (0.0, 1.0), "TANH": (-1.0, 1.0), "MUL": (-50.0, 50.0), "ADD": (-1.0, 3.0)}
    actual = in_micro(tflite_of(cell, (1, 2)), x, ranges, tmp_path / "m.tflite")
    want = np.tanh(x + 1) / (1 + np.exp(-x))
    assert max_abs_error(want, actual) < 0.0005


def test_the_largest_value_of_a_gate_is_not_clipped(tmp_path: Path) -> None:
    """Lite Micro has it in int8 only, with steps of 1/127."""
    pytest.importorskip("tflite_micro")
    import tensorflow as tf

    x = np.linspace(-5, 5, 60, dtype=np.float32).reshape(15, 2, 2)
    ranges = {"LOGISTIC": (0.0, 1.0), "REDUCE_MAX": (0.0, 1.0)}

    def largest(x: Any) -> Any:
        return tf.reduce_max(tf.sigmoid(x), axis=1)

    actual = in_micro(tflite_of(largest, (1, 2, 2)), x, ranges, tmp_path / "m.tflite")
    assert max_abs_error(1 / (1 + np.exp(-x.max(axis=1))), actual) < 1 / 127


def gate_of_sum(x: Any) -> Any:
    return gate(300.0 * x[:, :1] + x[:, 1:])


def moved(x: Any) -> Any:
    """Values that a gate and a tanh read, by way of others."""
    import tensorflow as tf

    first, second = tf.split(x + 1.0, 2, axis=1)
    return tf.tanh(first) + gate(second)


def read_twice(x: Any) -> Any:
    total = x + 1.0
    return gate(total) + total


@pytest.mark.parametrize(
    ("function", "magnitudes"),
    [(gate_of_sum, [10.6]), (moved, [5.6, 10.6, 10.6]), (read_twice, [])],
)
def test_values_of_saturated_gates(function: Any, magnitudes: list[float]) -> None:
    """Sums that a result has, too, are needed as they are. Inputs are not computed."""
    file = TFLiteFile(tflite_of(function, (1, 4 if function is moved else 2)))
    assert sorted(needed_magnitudes(file).values()) == magnitudes


def test_gates_of_large_sums_are_precise(tmp_path: Path) -> None:
    """Sums up to 300 would have steps of 600 / 32767, and their gates errors of 0.002."""
    pytest.importorskip("tflite_micro")
    x = np.zeros((200, 2), np.float32)
    x[:, 1] = np.linspace(-1, 1, 200)
    x[:2, 0] = -1, 1
    ranges = {"MUL": (-300.0, 300.0), "ADD": (-301.0, 301.0), "LOGISTIC": (0.0, 1.0)}
    ranges["STRIDED_SLICE"] = (-1.0, 1.0)
    actual = in_micro(tflite_of(gate_of_sum, (1, 2)), x, ranges, tmp_path / "m.tflite")
    sums = x.astype("float64") @ [[300.0], [1.0]]
    assert max_abs_error(1 / (1 + np.exp(-sums)), actual) < 0.0002
