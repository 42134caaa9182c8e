"""Datasets of other sequence lengths than the bundle's."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import SampleError
from edgeattn.evaluation.data_lengths import open_fitting
from edgeattn.samples.files import open_samples
from edgeattn.tensors import TensorSpec

X, Y = TensorSpec("x", (None, 5, 2), "float32"), TensorSpec("y", (None, 5, 3), "float32")
FIXED = Artifact("tflite", "float32", "m.tflite", "", 0, (replace(X, shape=(1, 5, 2)),), (Y,), ())
FREE = replace(FIXED, format="onnx", path="m.onnx", inputs=(X,), free_axes={"x": (1,), "y": (1,)})
ALSO_FIXED = replace(FREE, scheme="int8", free_axes={})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npz"


def opened(path: Path, *artifacts: Artifact) -> tuple[int, Artifact]:
    file, artifact = open_fitting(functools.partial(open_samples, path), artifacts)
    return len(file), artifact


def test_samples_of_the_length_of_the_bundle(path: Path) -> None:
    np.savez(path, x=np.zeros((4, 5, 2), "float32"))
    for artifacts in ((FIXED,), (FREE,), (FIXED, FREE)):
        assert opened(path, *artifacts) == (4, artifacts[0])


def test_samples_of_another_length(path: Path) -> None:
    np.savez(path, x=np.zeros((4, 9, 2), "float32"))
    count, artifact = opened(path, FREE)
    assert count == 4
    assert artifact.inputs[0].shape == (None, 9, 2)
    assert artifact.outputs[0].shape == (None, None, 3)
    with pytest.raises(SampleError, match=r"found \(4, 9, 2\)"):
        opened(path, FIXED)


@pytest.mark.parametrize(
    ("fixed", "options"),
    [(FIXED, "--format onnx (or"), (ALSO_FIXED, "--format onnx --scheme float32 (or")],
)
def test_an_artifact_of_one_length_is_named(path: Path, fixed: Artifact, options: str) -> None:
    np.savez(path, x=np.zeros((4, 9, 2), "float32"))
    with pytest.raises(SampleError, match=f"one length: {fixed.label}") as caught:
        opened(path, fixed, FREE)
    assert options in str(caught.value.hint)


def test_an_error_about_another_axis(path: Path) -> None:
    np.savez(path, x=np.zeros((4, 9, 3), "float32"))
    for artifacts in ((FREE,), (FIXED, FREE)):
        with pytest.raises(SampleError, match=r"\(samples, 5, 2\), found \(4, 9, 3\).$"):
            opened(path, *artifacts)
