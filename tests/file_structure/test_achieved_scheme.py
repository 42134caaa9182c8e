"""The scheme that names the arithmetic of a file, on hand-written counts."""

from __future__ import annotations

import pytest

from edgeattn.file_structure.contents import FileContents

KERNEL = {"int8": 4096, "float32": 64}


@pytest.mark.parametrize(
    ("operators", "weights", "dynamic", "expected"),
    [
        ({"int8": 6, "float32": 5}, KERNEL, 0, "int8"),
        ({"int8": 5, "float32": 5}, KERNEL, 0, "int8_weights"),
        # Six integer operators among a hundred do not make a file int8.
        ({"int8": 6, "int8 weights": 20, "float32": 84}, KERNEL, 20, "dynamic_int8"),
        ({"int8 weights": 20, "float32": 84}, KERNEL, 0, "int8_weights"),
        ({"int16": 90, "float32": 4}, KERNEL, 0, "int16x8"),
        ({"int16": 9, "int8 weights": 90}, KERNEL, 90, "dynamic_int8"),
        ({"float32": 84}, {"float32": 4096}, 0, "float32"),
        ({"float32": 84}, {"float16": 4096, "int8": 4095}, 3, "float16"),
        ({"int8 weights": 20, "float32": 84}, {"int4": 4096, "int8": 512}, 20, "int4"),
        ({"float32": 3}, {}, 0, "float32"),
    ],
)
def test_scheme_is_that_of_most_operators_and_weights(
    operators: dict[str, int], weights: dict[str, int], dynamic: int, expected: str
) -> None:
    computes_in = {how: {"ADD": count} for how, count in operators.items()}
    contents = FileContents((), (), {}, computes_in, weights, weights, dynamic=dynamic)
    assert contents.scheme == expected
    assert contents.to_json()["scheme"] == expected


@pytest.mark.parametrize(
    ("integers", "floats", "dynamic", "expected"),
    [
        ({"ADD": 60, "LOGISTIC": 30}, {"FULLY_CONNECTED": 20}, 0, "int8_weights"),
        ({"ADD": 60, "LOGISTIC": 30}, {"FULLY_CONNECTED": 20}, 20, "dynamic_int8"),
        ({"ADD": 60, "FULLY_CONNECTED": 20}, {"FULLY_CONNECTED": 3}, 3, "int8"),
        ({"ADD": 60, "FULLY_CONNECTED": 3}, {"FULLY_CONNECTED": 20}, 0, "int8_weights"),
        ({"Add": 60, "MatMul": 9}, {"Conv": 10}, 0, "int8_weights"),
        # One node has the products of all steps of a recurrence.
        ({"Add": 60, "MatMul": 9}, {"GRU": 1}, 0, "int8_weights"),
        ({"Add": 60, "MatMul": 9}, {"DynamicQuantizeLSTM": 1}, 1, "dynamic_int8"),
        # An embedding multiplies nothing.
        ({"ADD": 60}, {"GATHER": 3}, 0, "int8"),
    ],
)
def test_a_file_with_products_in_float_is_not_int8(
    integers: dict[str, int], floats: dict[str, int], dynamic: int, expected: str
) -> None:
    computes_in = {"int8": integers, "int8 weights": floats}
    contents = FileContents((), (), {}, computes_in, KERNEL, KERNEL, dynamic=dynamic)
    assert contents.scheme == expected
