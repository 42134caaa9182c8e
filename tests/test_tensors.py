"""Tensor specifications and quantization, with hand-calculated numbers."""

import numpy as np
import pytest

from edgeattn.tensors import TensorSpec, dequantize, quantize

INT8 = TensorSpec("x", (1, 3), "int8", 0.5, -3)


def test_spec_to_json_and_back():
    for spec in (INT8, TensorSpec("é/:0", (None, 7, None), "float32")):
        assert TensorSpec.from_json(spec.to_json()) == spec


def test_spec_as_text():
    assert str(TensorSpec("x", (None, 3), "float16")) == "x (?, 3) float16"
    assert INT8.quantized
    assert not TensorSpec("x", (1,), "int8").quantized


@pytest.mark.parametrize(
    "invalid",
    [
        {"dtype": "object"},
        {"dtype": "nonsense"},
        {"dtype": ">f4"},
        {"shape": []},
        {"shape": [1, 0]},
        {"shape": [1, -5]},
        {"shape": 7},
        {"shape": ["a"]},
        {"scale": 0.0},
        {"scale": -0.5},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": "a"},
        {"dtype": "float32"},  # of a quantized tensor
    ],
)
def test_invalid_spec(invalid):
    with pytest.raises((ValueError, TypeError)):
        TensorSpec.from_json({**INT8.to_json(), **invalid})


def test_quantize_rounds_half_to_even():
    # real / 0.5 - 3: 0 -> -3, 1 -> -1, -2 -> -7. Halves go to even: 0.5 to 0, 1.5 to 2.
    real = np.array([0.0, 1.0, -2.0, 0.25, 0.75])
    assert quantize(real, INT8).tolist() == [-3, -1, -7, -3, -1]
    assert quantize(real, INT8).dtype == np.int8


def test_quantize_saturates():
    assert quantize(np.array([1e9, -1e9, np.inf, -np.inf]), INT8).tolist() == [127, -128] * 2
    # int8 holds (-128 + 3) / 2 = -62.5 to (127 + 3) / 2 = 65.
    assert dequantize(np.array([-128, 127], np.int8), INT8).tolist() == [-62.5, 65.0]


def test_dequantize_does_not_wrap():
    # Neither -128 - 100 nor 127 + 100 fits into int8.
    spec = TensorSpec("x", (1,), "int8", 1.0, 100)
    assert dequantize(np.array([-128], np.int8), spec).tolist() == [-228.0]


def test_quantize_round_trip_is_within_half_a_step():
    real = np.linspace(-62, 64, 1009)
    assert np.abs(dequantize(quantize(real, INT8), INT8) - real).max() <= 0.25


def test_without_a_scale_numbers_are_unchanged():
    spec = TensorSpec("x", (1,), "int32")
    assert quantize(np.array([5, -7]), spec).dtype == np.int32
    assert dequantize(np.array([True]), TensorSpec("x", (1,), "bool")).dtype == bool
