"""Values of padded steps in graphs, and the ranges of inputs that have them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.tensors import Array, TensorSpec, quantize
from edgeattn_converters.quantization.arithmetic import affine_parameters
from edgeattn_converters.quantization.mask_values import (
    MaskValue,
    Node,
    mask_values,
    range_beside,
    saturated,
)

CONSTANTS = {"value": np.array(-9, np.float32), "other": np.array(4, np.float32)}
CONSTANTS.update(zero=np.array(0, np.float32), axis=np.array([-1]))


def node(kind: str, inputs: str, outputs: str) -> Node:
    return Node(kind, tuple(inputs.split()), tuple(outputs.split()))


MASKING = [
    node("RESHAPE", "x axis", "moved"),
    node("NOT_EQUAL", "moved value", "is_real"),
    node("REDUCE_ANY", "is_real axis", "mask"),
    node("SELECT_V2", "mask moved zero", "masked"),
    node("FULLY_CONNECTED", "masked zero", "y"),
]


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([], MaskValue(-9, True)),
        ([node("CAST", "mask", "real"), node("MUL", "moved real", "z")], MaskValue(-9, True)),
        # Steps with the value have another effect.
        ([node("MUL", "moved zero", "z")], MaskValue(-9, False)),
        ([node("MUL", "moved second", "z")], MaskValue(-9, False)),
        ([node("ADD", "x masked", "z")], MaskValue(-9, False)),
        ([node("EQUAL", "x other", "z")], None),
    ],
)
def test_masks_in_graphs(added: list[Node], expected: MaskValue | None) -> None:
    values = mask_values([*MASKING, *added], ["x", "second"], ["y"], CONSTANTS.get)
    assert values == ({} if expected is None else dict.fromkeys(("x", "moved"), expected))


def test_a_category_is_no_padding() -> None:
    values = mask_values(MASKING[:2], ["x"], ["is_real"], CONSTANTS.get)
    assert values["x"] == MaskValue(-9, False)


def test_an_input_that_is_returned_keeps_its_values() -> None:
    values = mask_values(MASKING, ["x"], ["x", "y"], CONSTANTS.get)
    assert not values["x"].is_left_out


def samples(value: float) -> Array:
    """Steps with features from -2 to 2, and padded ones; one real step has the value once."""
    return np.array([[[-2, 1], [0.5, 2], [value, 1], [value, value]]], np.float32)


@pytest.mark.parametrize(
    ("value", "is_left_out", "dtype", "expected"),
    [
        (-1.0, True, None, (-2, 2)),
        (-999.0, False, None, (-999, 2)),
        # One of the features of a real step is 3.
        (3.0, True, None, (-2, 3)),
    ],
)
def test_ranges_of_real_comparisons(
    value: float, is_left_out: bool, dtype: str | None, expected: tuple[float, float]
) -> None:
    assert range_beside(MaskValue(value, is_left_out), samples(value), dtype) == expected


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("value", [-1.0, -3.3, 7.9])
def test_a_near_value_is_an_integer_of_the_range(value: float, dtype: str) -> None:
    found = range_beside(MaskValue(value, True), samples(value), dtype)
    assert found is not None
    scale, _ = affine_parameters(*found, dtype)
    # Scales are float32, of which the largest int16 is 1/500 away.
    assert abs(value / scale - round(value / scale)) < 0.01
    assert found[0] <= min(-2, value) * (1 - 1e-6)
    assert found[1] >= max(2, value) * (1 - 1e-6)


@pytest.mark.parametrize(("value", "last"), [(-999.0, -128), (1e9, 127)])
def test_a_value_far_away_is_the_last_integer(value: float, last: int) -> None:
    """The room of a quarter of the range, 1, keeps real values from it."""
    data = np.where(samples(value) == value, np.float32(value), samples(value))
    data[0, 2, 0] = 0
    found = range_beside(MaskValue(value, True), data, "int8")
    assert found == ((-3, 2) if value < 0 else (-2, 3))
    scale, zero_point = affine_parameters(*found, "int8")
    spec = TensorSpec("x", (1, 4, 2), "int8", scale, zero_point)
    integers = quantize(data, spec)
    assert (integers == last).sum() == 2
    exact = np.array(value / scale + zero_point)
    assert saturated(MaskValue(value, True), exact, "int8") == last
    assert saturated(MaskValue(value, False), exact, "int8") == exact
