"""Schemes in the whole pipeline: targets, calibration data, and failures of single schemes."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import quantized_models

from edgeattn.bundle.bundle import Bundle
from edgeattn.cli.conversion import conversion_lines
from edgeattn.errors import ConversionError, SampleError, UsageError
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, QuantizationOptions


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    quantized_models.filled(quantized_models.lstm()).save(path)
    return path


@pytest.fixture(scope="module")
def calibration(saved: Path) -> Path:
    values = np.random.default_rng(3).normal(size=(64, 19, 5)).astype("float32")
    np.save(saved.parent / "calibration.npy", values)
    return saved.parent / "calibration.npy"


@pytest.mark.long
def test_all_schemes_for_one_target(saved: Path, calibration: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.edge"
    result = convert(
        saved,
        target,
        options=ConversionOptions(targets=["tflite-runtime"], schemes=["all", "int16x8"]),
        quantization=QuantizationOptions(calibration=calibration),
    )
    assert result.failures == ()
    artifacts = Bundle.open(target).manifest.artifacts
    assert [(item.format, item.scheme) for item in artifacts] == [
        ("tflite", scheme) for scheme in quantized_models.SCHEMES
    ]
    for item in artifacts:
        assert "tflite-runtime" in item.runtimes
    # A fifth of the 64 samples is the reference.
    assert artifacts[3].achieved["calibration"]["samples"] == 52
    assert result.bundle.manifest.reference["samples"] == 12
    notes = result.bundle.manifest.model["notes"]
    assert "only 52 calibration samples: at least 100 are recommended" in notes


@pytest.mark.parametrize("schemes", [["int8"], ["dynamic_int8", "int8"], []])
def test_invalid_calibration_is_an_error(schemes: list[str], saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.full((9, 19, 5), 0.5, "float32"))
    with pytest.raises(SampleError, match="there is no range to measure"):
        convert(
            saved,
            tmp_path / "out.edge",
            options=ConversionOptions(schemes=schemes),
            quantization=QuantizationOptions(calibration=tmp_path / "constant.npy"),
        )
    assert not (tmp_path / "out.edge").exists()


@pytest.mark.long
def test_dynamic_int8_is_selected_on_the_calibration_samples(
    saved: Path, calibration: Path, tmp_path: Path
) -> None:
    """Attention maps of real inputs can be much sharper than those of random inputs."""
    options = ConversionOptions(schemes=["dynamic_int8"], formats=["onnx"])
    result = convert(
        saved,
        tmp_path / "a.edge",
        options=options,
        quantization=QuantizationOptions(calibration=calibration),
    )
    (artifact,) = result.bundle.manifest.artifacts
    assert artifact.achieved["calibration"]["samples"] == 52
    result = convert(saved, tmp_path / "b.edge", options=options)
    (artifact,) = result.bundle.manifest.artifacts
    assert "calibration" not in artifact.achieved


def test_calibration_must_be_valid_for_dynamic_int8_too(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.full((9, 19, 5), np.nan, "float32"))
    with pytest.raises(SampleError):
        convert(
            saved,
            tmp_path / "out.edge",
            options=ConversionOptions(schemes=["dynamic_int8"]),
            quantization=QuantizationOptions(calibration=tmp_path / "bad.npy"),
        )
    assert not (tmp_path / "out.edge").exists()


def test_calibrated_scheme_without_samples(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        convert(saved, tmp_path / "out.edge", options=ConversionOptions(schemes=["int8"]))


def _shaped(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (_shaped(9, 19, 5) * 1e9, "values up to"),
        (_shaped(0, 19, 5), "has no samples"),
        (_shaped(9, 17, 5), "the shape (samples, 19, 5), found (9, 17, 5)"),
    ],
    ids=["huge", "empty", "wrong shape"],
)
def test_messages_for_invalid_calibration(
    saved: Path, values: np.ndarray, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(SampleError) as error:
        convert(
            saved,
            tmp_path / "out.edge",
            options=ConversionOptions(formats=["onnx"], schemes=["float32", "int8", "int16x8"]),
            quantization=QuantizationOptions(calibration=tmp_path / "bad.npy"),
        )
    assert message in str(error.value)
    assert not (tmp_path / "out.edge").exists()


@pytest.mark.long
def test_target_without_kernels_for_a_scheme(saved: Path, tmp_path: Path) -> None:
    result = convert(
        saved,
        tmp_path / "out.edge",
        options=ConversionOptions(schemes=["float32", "int4"], targets=["tflite-runtime"]),
    )
    (failure,) = result.failures
    assert result.exit_code == 3
    assert (failure["format"], failure["scheme"]) == ("tflite", "int4")
    assert "no kernel for int4" in failure["reason"]
    assert [item.scheme for item in Bundle.open(tmp_path / "out.edge").manifest.artifacts] == [
        "float32"
    ]


@pytest.fixture(scope="module")
def recurrence_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without any operator that ONNX computes in integers, and inputs for calibration."""
    folder = tmp_path_factory.mktemp("recurrence")
    inputs = keras.Input((7, 3), name="x")
    outputs = keras.layers.Bidirectional(keras.layers.LSTM(3, name="steps"))(inputs)
    keras.Model(inputs, outputs).save(folder / "model.keras")
    values = np.random.default_rng(4).uniform(-1, 1, (200, 7, 3)).astype("float32")
    np.save(folder / "calibration.npy", values)
    return folder / "model.keras"


@pytest.mark.long
def test_schemes_that_a_format_cannot_achieve(recurrence_alone: Path, tmp_path: Path) -> None:
    """A run without schemes reports them and succeeds."""
    result = convert(
        recurrence_alone,
        tmp_path / "out.edge",
        options=ConversionOptions(formats=["onnx"]),
        quantization=QuantizationOptions(calibration=recurrence_alone.with_name("calibration.npy")),
    )
    artifacts = Bundle.open(tmp_path / "out.edge").manifest.artifacts
    assert [item.scheme for item in artifacts] == ["float32", "float16", "dynamic_int8"]
    assert [failure["scheme"] for failure in result.failures] == ["int8"]
    assert [failure["required"] for failure in result.failures] == [False]
    assert all("no operator computes in" in item["reason"] for item in result.failures)
    assert result.exit_code == 0
    table = "\n".join(conversion_lines(result, verbose=False))
    assert re.search(r"not achieved +onnx +int8 ", table)
    assert f"saved by Keras {keras.__version__}" in table.splitlines()[0]
    result.bundle.manifest.model["keras_version"] = None  # as of a graph of TensorFlow
    assert next(conversion_lines(result, verbose=False)).endswith(", without a Keras version")


def test_a_scheme_requested_by_name_must_be_achieved(
    recurrence_alone: Path, tmp_path: Path
) -> None:
    result = convert(
        recurrence_alone,
        tmp_path / "out.edge",
        options=ConversionOptions(formats=["onnx"], schemes=["float32", "int8"]),
        quantization=QuantizationOptions(calibration=recurrence_alone.with_name("calibration.npy")),
    )
    assert [(item["scheme"], item["required"]) for item in result.failures] == [("int8", True)]
    assert result.exit_code == 3


@pytest.mark.long
def test_options_that_exclude_a_scheme(recurrence_alone: Path, tmp_path: Path) -> None:
    """int16x8 needs operator set 21, which the requested one excludes."""
    result = convert(
        recurrence_alone,
        tmp_path / "out.edge",
        options=ConversionOptions(formats=["onnx"], schemes=["float32", "int16x8"]),
        quantization=QuantizationOptions(
            calibration=recurrence_alone.with_name("calibration.npy"), opset=17
        ),
    )
    assert "needs ONNX operator set 21" in result.failures[-1]["reason"]
    assert result.exit_code == 3


@pytest.mark.long
def test_allowed_float_fallback_is_recorded(saved: Path, tmp_path: Path) -> None:
    """With ``allow_float_fallback``, a file that does not achieve its scheme is kept."""
    path = tmp_path / "model.h5"
    quantized_models.filled(quantized_models.convolutional()).save(path)
    options = ConversionOptions(schemes=["int4"], formats=["tflite"])
    with pytest.raises(ConversionError, match="int4 was not achieved"):
        convert(path, tmp_path / "refused.edge", options=options)
    result = convert(
        path,
        tmp_path / "kept.edge",
        options=options,
        quantization=QuantizationOptions(allow_float_fallback=True),
    )
    (report,) = result.report.artifacts
    assert report.artifact.achieved["fallback"] is True
    assert "31% of" in report.artifact.achieved["summary"]
    assert "weights_in_scheme" not in [check.metric for check in report.failed]
