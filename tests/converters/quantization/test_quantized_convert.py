"""Schemes through the whole pipeline: what is asked for, what is wrong, what stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import weighty_models

from edgeattn.bundle import Bundle
from edgeattn.errors import SampleError, UsageError
from edgeattn_converters import convert


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    weighty_models.filled(weighty_models.lstm()).save(path)
    return path


@pytest.fixture(scope="module")
def calibration(saved: Path) -> Path:
    values = np.random.default_rng(3).normal(size=(64, 19, 5)).astype("float32")
    np.save(saved.parent / "calibration.npy", values)
    return saved.parent / "calibration.npy"


def test_all_schemes_for_one_target(saved: Path, calibration: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.edge"
    made = convert(saved, target, calibration=calibration, targets=["tflite-runtime"])
    assert made.failures == ()
    artifacts = Bundle.open(target).manifest.artifacts
    assert [(item.format, item.scheme) for item in artifacts] == [
        ("tflite", scheme) for scheme in weighty_models.SCHEMES
    ]
    for item in artifacts:
        assert "tflite-runtime" in item.runtimes
    assert artifacts[3].achieved["calibration"]["samples"] == 64
    notes = made.bundle.manifest.model["notes"]
    assert "64 calibration samples are few: aim for 100 or more" in notes


def test_bad_calibration_leaves_the_others_whole(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.full((9, 19, 5), 0.5, "float32"))
    made = convert(
        saved,
        tmp_path / "out.edge",
        schemes=["dynamic_int8", "int8"],
        calibration=tmp_path / "constant.npy",
    )
    assert made.exit_code == 3
    assert {failure["scheme"] for failure in made.failures} == {"int8"}
    assert "every value in constant.npy is 0.5" in made.failures[0]["reason"]
    opened = Bundle.open(tmp_path / "out.edge")
    opened.verify()
    assert {item.scheme for item in opened.manifest.artifacts} == {"dynamic_int8"}


def test_bad_calibration_alone_is_an_error(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.full((9, 19, 5), 0.5, "float32"))
    with pytest.raises(SampleError, match="no range can be measured"):
        convert(
            saved,
            tmp_path / "out.edge",
            schemes=["int8"],
            calibration=tmp_path / "constant.npy",
        )
    assert not (tmp_path / "out.edge").exists()


def test_a_scheme_that_measures_without_samples(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        convert(saved, tmp_path / "out.edge", schemes=["int8"])


def test_int16_attention_in_an_int8_file(saved: Path, calibration: Path, tmp_path: Path) -> None:
    made = convert(
        saved,
        tmp_path / "out.edge",
        schemes=["float32", "int8"],
        formats=["onnx"],
        calibration=calibration,
        attention_precision="int16",
    )
    (failure,) = made.failures
    assert "ask for the scheme int16x8" in failure["reason"]
