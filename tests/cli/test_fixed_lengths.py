"""The column of lengths in the table of ``convert``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from edgeattn.bundle.manifest import Artifact
from edgeattn.cli.conversion import _compared_lengths, _steps
from edgeattn.tensors import TensorSpec


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 20, 3)], "20"),
        ([(1, 20), (1, 20, 3)], "20"),
        ([(1, 64, 48, 3)], "64x48"),
        ([(1, 5, 64, 48, 3)], "5x64x48"),
        ([(1, 9, 4), (1, 7)], "9, 7"),
        ([(1, 20, 4), (1, 10)], "20, 10"),
        ([(1, 10, 4), (1, 5)], "10, 5"),
        ([(1, 64, 48, 3), (1, 9)], "64x48, 9"),
    ],
)
def test_fixed_lengths(shapes: list[tuple[int, ...]], text: str) -> None:
    artifact = of_shapes(shapes)
    names = {spec.name for spec in artifact.inputs}
    assert _steps(artifact, names) == text
    # A name with other lengths says nothing about the order.
    assert _steps(artifact, names, "steps-3.edge") == text


@pytest.mark.parametrize(
    ("shapes", "dtypes", "text"),
    [
        ([(1, 1), (1, 20), (1, 9, 20)], ("int32", "float32", "float32"), "1, 9"),
        ([(1, 20), (1, 7, 3)], ("float32", "float32"), "7"),
        ([(1, 800)], ("float32",), "800"),
    ],
)
def test_states_have_no_length_if_no_artifact_accepts_any(
    shapes: list[tuple[int, ...]], dtypes: tuple[str, ...], text: str
) -> None:
    artifact = of_shapes(shapes)
    inputs = zip(artifact.inputs, dtypes, strict=True)
    typed = tuple(replace(spec, dtype=dtype) for spec, dtype in inputs)
    assert _steps(replace(artifact, inputs=typed), set()) == text


def of_shapes(shapes: Sequence[tuple[int, ...]], **options: Any) -> Artifact:
    inputs = tuple(TensorSpec(f"x{k}", shape, "float32") for k, shape in enumerate(shapes))
    return Artifact("tflite", "float32", "m.tflite", "0" * 64, 1, inputs, (), **options)


def test_lengths_in_the_order_of_the_folder() -> None:
    artifact = of_shapes([(1, 10), (1, 20, 4)])
    assert _steps(artifact, {"x0", "x1"}, "steps-20-10") == "20, 10"
    assert _steps(artifact, {"x0", "x1"}, "steps-10-20") == "10, 20"
    assert _steps(of_shapes([(1, 9), (1, 9)]), {"x0", "x1"}, "steps-9-9") == "9"


@pytest.mark.parametrize(
    ("shapes", "end"),
    [
        ([(1, 20, 4)], "10, 21, 40 steps too."),
        ([(1, 20, 4), (1, 20)], "10, 21, 40 steps too."),
        (
            [(1, 20, 4), (1, 10), (1, 3)],
            "10, 21, 40 steps of x0 too, with x1 and x2 shortened or lengthened in the same way.",
        ),
    ],
)
def test_the_line_on_other_lengths(shapes: list[tuple[int, ...]], end: str) -> None:
    free = of_shapes(shapes, free_axes={f"x{k}": (1,) for k in range(len(shapes))})
    line = _compared_lengths([of_shapes(shapes), free], [10, 21, 40])
    assert line == f"Files for sequences of any length were compared at {end}"
