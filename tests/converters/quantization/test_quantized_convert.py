"""Schemes through the whole pipeline: what is asked for, what is wrong, what stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import weighty_models

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import ConversionError, SampleError, UsageError
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, QuantizationOptions


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
    made = convert(
        saved,
        target,
        options=ConversionOptions(targets=["tflite-runtime"]),
        quantization=QuantizationOptions(calibration=calibration),
    )
    assert made.failures == ()
    artifacts = Bundle.open(target).manifest.artifacts
    assert [(item.format, item.scheme) for item in artifacts] == [
        ("tflite", scheme) for scheme in weighty_models.SCHEMES
    ]
    for item in artifacts:
        assert "tflite-runtime" in item.runtimes
    assert artifacts[3].achieved["calibration"]["samples"] == 64
    notes = made.bundle.manifest.model["notes"]
    assert "only 64 calibration samples: at least 100 are recommended" in notes


def test_bad_calibration_leaves_the_others_whole(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.full((9, 19, 5), 0.5, "float32"))
    made = convert(
        saved,
        tmp_path / "out.edge",
        options=ConversionOptions(schemes=["dynamic_int8", "int8"]),
        quantization=QuantizationOptions(calibration=tmp_path / "constant.npy"),
    )
    assert made.exit_code == 3
    assert {failure["scheme"] for failure in made.failures} == {"int8"}
    assert "every value in constant.npy is 0.5" in made.failures[0]["reason"]
    opened = Bundle.open(tmp_path / "out.edge")
    opened.verify()
    assert {item.scheme for item in opened.manifest.artifacts} == {"dynamic_int8"}


def test_bad_calibration_alone_is_an_error(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.full((9, 19, 5), 0.5, "float32"))
    with pytest.raises(SampleError, match="there is no range to measure"):
        convert(
            saved,
            tmp_path / "out.edge",
            options=ConversionOptions(schemes=["int8"]),
            quantization=QuantizationOptions(calibration=tmp_path / "constant.npy"),
        )
    assert not (tmp_path / "out.edge").exists()


def test_dynamic_int8_is_chosen_on_the_calibration_samples(
    saved: Path, calibration: Path, tmp_path: Path
) -> None:
    """Seeded inputs may not show what real ones do: a map may be far sharper on these."""
    options = ConversionOptions(schemes=["dynamic_int8"], formats=["onnx"])
    made = convert(
        saved,
        tmp_path / "a.edge",
        options=options,
        quantization=QuantizationOptions(calibration=calibration),
    )
    (artifact,) = made.bundle.manifest.artifacts
    assert artifact.achieved["calibration"]["samples"] == 64
    made = convert(saved, tmp_path / "b.edge", options=options)
    (artifact,) = made.bundle.manifest.artifacts
    assert "calibration" not in artifact.achieved


def test_calibration_that_only_a_choice_is_made_on_must_be_right_too(
    saved: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", np.full((9, 19, 5), np.nan, "float32"))
    with pytest.raises(SampleError):
        convert(
            saved,
            tmp_path / "out.edge",
            options=ConversionOptions(schemes=["dynamic_int8"]),
            quantization=QuantizationOptions(calibration=tmp_path / "bad.npy"),
        )
    assert not (tmp_path / "out.edge").exists()


def test_a_scheme_that_measures_without_samples(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        convert(saved, tmp_path / "out.edge", options=ConversionOptions(schemes=["int8"]))


def test_int16_attention_in_an_int8_file(saved: Path, calibration: Path, tmp_path: Path) -> None:
    made = convert(
        saved,
        tmp_path / "out.edge",
        options=ConversionOptions(schemes=["float32", "int8"], formats=["onnx"]),
        quantization=QuantizationOptions(calibration=calibration, attention_precision="int16"),
    )
    (failure,) = made.failures
    assert "ask for the scheme int16x8" in failure["reason"]


def _shaped(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (_shaped(9, 19, 5) * 1e9, "values up to"),
        (_shaped(0, 19, 5), "holds no samples"),
        (_shaped(9, 17, 5), "shape (samples, 19, 5) expected, the samples are (9, 17, 5)"),
    ],
    ids=["huge", "empty", "wrong shape"],
)
def test_whatever_is_wrong_with_it(
    saved: Path, values: np.ndarray, told: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", values)
    made = convert(
        saved,
        tmp_path / "out.edge",
        options=ConversionOptions(formats=["onnx"], schemes=["float32", "int8", "int16x8"]),
        quantization=QuantizationOptions(calibration=tmp_path / "bad.npy"),
    )
    assert made.exit_code == 3
    assert [failure["scheme"] for failure in made.failures] == ["int8", "int16x8"]
    assert all(told in failure["reason"] for failure in made.failures)
    opened = Bundle.open(tmp_path / "out.edge")
    opened.verify()
    assert [report.verdict for report in made.report.artifacts] == ["pass"]


def test_a_target_that_cannot_run_a_scheme(saved: Path, tmp_path: Path) -> None:
    made = convert(
        saved,
        tmp_path / "out.edge",
        options=ConversionOptions(schemes=["float32", "int4"], targets=["tflite-runtime"]),
    )
    (failure,) = made.failures
    assert made.exit_code == 3
    assert (failure["format"], failure["scheme"]) == ("tflite", "int4")
    assert "no kernel for int4" in failure["reason"]
    assert [item.scheme for item in Bundle.open(tmp_path / "out.edge").manifest.artifacts] == [
        "float32"
    ]


def test_a_fallback_that_was_allowed_is_told(saved: Path, tmp_path: Path) -> None:
    """A file that did not reach its scheme is no failure where that was allowed."""
    path = tmp_path / "model.h5"
    weighty_models.filled(weighty_models.convolutional()).save(path)
    options = ConversionOptions(schemes=["int4"], formats=["tflite"])
    with pytest.raises(ConversionError, match="int4 was not reached"):
        convert(path, tmp_path / "refused.edge", options=options)
    made = convert(
        path,
        tmp_path / "kept.edge",
        options=options,
        quantization=QuantizationOptions(allow_float_fallback=True),
    )
    (report,) = made.report.artifacts
    assert report.artifact.achieved["fallback"] is True
    assert "31% of" in report.artifact.achieved["summary"]
    assert "weights_in_scheme" not in [check.metric for check in report.failed]
