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
