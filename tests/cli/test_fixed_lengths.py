"""The column of lengths in the table of ``convert``."""

from __future__ import annotations

import pytest

from edgeattn.bundle.manifest import Artifact
from edgeattn.cli.conversion import _steps
from edgeattn.tensors import TensorSpec


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 20, 3)], "20"),
        ([(1, 20), (1, 20, 3)], "20"),
        ([(1, 64, 48, 3)], "64x48"),
        ([(1, 5, 64, 48, 3)], "5x64x48"),
        ([(1, 9, 4), (1, 7)], "7, 9"),
    ],
)
def test_fixed_lengths(shapes: list[tuple[int, ...]], text: str) -> None:
    inputs = tuple(TensorSpec(f"x{k}", shape, "float32") for k, shape in enumerate(shapes))
    artifact = Artifact("tflite", "float32", "m.tflite", "0" * 64, 1, inputs, ())
    assert _steps(artifact, [spec.name for spec in inputs]) == text
