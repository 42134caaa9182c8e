"""Ranges without the fill values of masks, and masks in integer files, against Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only
from quantized_models import filled as with_weights
from quantized_models import integer_file

from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.quantization.mask_fills import Extent, has_fills, range_of_constant

LOWEST = np.finfo(np.float32).min
STEPS = 6
VISIBLE = np.tril(np.ones((STEPS, STEPS), np.float32))


def extent(*arrays: list[float]) -> Extent:
    whole = Extent()
    for array in arrays:
        whole = whole.merged(Extent.of(np.array(array, np.float32)))
    return whole


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        # With room for values that a softmax makes zero.
        ([[-3, 2, -1e9], [4, -1e9, -1e9]], (-3 - 8, 4)),
        ([[-3, 2, 1e9], [4, 1e9, 1e9]], (-3, 4 + 8)),
        ([[-3, 2, LOWEST], [4, -np.inf, 1]], (-3 - 8, 4)),
        ([[1, -1e9, -2e9]], (1 - 8, 1)),  # two masks
        ([[7, -1.01e4, -0.99e4]], (7 - 8, 7)),  # with scores
        ([[0, -1e9], [-1e9, 0]], None),  # the mask itself
        ([[-1e9, -1e9]], None),
        ([[0, -np.inf], [-np.inf, 0]], None),
        ([[-3, 2, -np.inf], [4, 1, 1]], (-3 - 8, 4)),
        ([[-3, 2, np.inf]], (-3, 2 + 8)),
        ([[21, 98e3, 0], [19, 104e3, 1]], (0, 104e3)),  # a pressure in Pa
        ([[12e3], [3e5], [9e5]], (12e3, 9e5)),  # prices
        ([[-2e8, 3, 3.3e9, 4.7e9]], (-2e8, 4.7e9)),  # squares
    ],
)
def test_values_that_differ_are_no_fill_values(
    arrays: list[list[float]], expected: tuple[float, float] | None
) -> None:
    real = extent(*arrays).range(masked=True)
    assert real == (None if expected is None else pytest.approx(expected))


def test_large_values_are_real_if_no_constant_could_fill() -> None:
    steady = extent([1, 101300], [3, 101400])
    assert steady.range(masked=False) == (1, 101400)
    assert steady.range(masked=True) == (1, 3 + 8)
    assert steady.whole == (1, 101400)
    assert extent([-3, 2, -np.inf]).range(masked=False) == (-3, 2)  # an overflow


@pytest.mark.parametrize(
    ("constant", "expected", "filled"),
    [
        ([0.0, -1e9], (0.0, 0.0), True),
        ([-1e4], None, True),
        ([0.5, -2.0, LOWEST], (-2.0, 0.5), True),
        ([20.0, 101325.0, 50.0], (20.0, 101325.0), False),  # the means of features
        ([0.0, 3.0], (0.0, 3.0), False),
    ],
)
def test_fill_values_of_constants(
    constant: list[float], expected: tuple[float, float] | None, filled: bool
) -> None:
    value = np.array(constant, np.float32)
    assert range_of_constant(value) == expected
    assert has_fills([value]) is filled


def scores(x: Any) -> Any:
    query, key = layers.Dense(8)(x), layers.Dense(8)(x)
    return ops.matmul(query, ops.transpose(key, (0, 2, 1))) / 8**0.5


MASKED: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda s, m: s + (VISIBLE - 1.0) * np.float32(1e9),
    "difference": lambda s, m: s - (1.0 - VISIBLE) * np.float32(1e9),
    "lowest": lambda s, m: s + np.where(VISIBLE > 0, 0, LOWEST / 2).astype("float32"),
    "small": lambda s, m: s + (VISIBLE - 1.0) * np.float32(1e4),
    "where": lambda s, m: ops.where(VISIBLE > 0, s, -1e9),
    "computed": lambda s, m: s + (1.0 - ops.expand_dims(m, 1)) * -1e9,
    "computed, small": lambda s, m: s + (ops.expand_dims(m, 1) - 1.0) * 1e4,
    "difference of computed": lambda s, m: s - (1.0 - ops.expand_dims(m, 1)) * 1e9,
}


def attention(masked: Callable[[Any, Any], Any]) -> Any:
    x, mask = keras.Input((STEPS, 12), name="x"), keras.Input((STEPS,), name="mask")
    weights = layers.Softmax(name="weights")(masked(scores(x), mask))
    h = layers.Dense(8)(ops.matmul(weights, layers.Dense(8)(x)))
    return with_weights(keras.Model([x, mask], layers.Dense(3, name="y")(layers.Flatten()(h))))


def inputs(rows: int, seed: int) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    mask = np.arange(STEPS) < generator.integers(2, STEPS + 1, (rows, 1))
    return {
        "x": generator.normal(0, 1, (rows, STEPS, 12)).astype("float32"),
        "mask": mask.astype("float32"),
    }


def snr(expected: Array, actual: Array) -> float:
    return float(10 * np.log10((expected**2).sum() / ((actual - expected) ** 2).sum()))


LIMITS = {"int8": 20, "int16x8": 35}
CASES = [(name, scheme) for name in MASKED for scheme in LIMITS]


QUICK = [("sum", "int16x8"), ("small", "int8"), ("computed", "int16x8")]


@pytest.mark.parametrize("case", only(CASES, *QUICK), ids=" ".join)
def test_masks_in_integers(case: tuple[str, str], tmp_path: Path) -> None:
    """LiteRT ends the process if a fill value is an operand of a sum in integers."""
    name, scheme = case
    precision = scheme.removesuffix("x8")
    model = attention(MASKED[name])
    path = tmp_path / "m.tflite"
    file = integer_file(model, inputs(60, 1), path, scheme, attention_precision=precision)
    data = inputs(8, 2)
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run(data)
    assert snr(model.predict(data, verbose=0), actual["y"]) > LIMITS[scheme]
    weights = keras.Model(model.inputs, model.get_layer("weights").output)
    difference = weights.predict(data, verbose=0) - actual["attention/weights"]
    assert np.abs(difference).max() < (0.05 if scheme == "int8" else 5e-3)
