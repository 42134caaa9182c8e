"""Options that have no effect together end with exit code 2, before the model is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeattn.errors import MissingCalibrationError
from edgeattn_converters.option_conflicts import RULES, Request, check_combination
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions

INT8 = ("--scheme", "int8", "--calibration", "c.npy")
MICRO = ("--target", "tflite-micro", "--calibration", "c.npy")
INTEGERS = ("--integer-only", "--calibration", "c.npy")
TFLITE, ONNX, FLOAT = ("--format", "tflite"), ("--format", "onnx"), ("--scheme", "float32")
# Options, and the one that has no effect or lacks another.
WITHOUT_EFFECT = [
    ((*ONNX, "--lowering", "fused"), "--lowering fused"),
    ((*ONNX, "--batch", "4"), "--batch 4"),
    (("--target", "onnxruntime", "--batch", "4"), "--batch 4"),
    ((*TFLITE, "--opset", "18"), "--opset 18"),
    (("--target", "litert", "--opset", "18"), "--opset 18"),
    (("--integer-io",), "--integer-io"),
    (("--scheme", "dynamic_int8", "--integer-io"), "--integer-io"),
    (("--attention-precision", "int8"), "--attention-precision int8"),
    ((*INT8, "--attention-precision", "int16"), "--attention-precision int16"),
    # int16x8 is converted only if it is named.
    (("--calibration", "c.npy", "--attention-precision", "int16"), "--attention-precision int16"),
    (
        ("--scheme", "int16x8", "--calibration", "c.npy", "--attention-precision", "int8"),
        "--attention-precision int8",
    ),
    ((*FLOAT, "--attention-precision", "float32"), "--attention-precision float32"),
    ((*FLOAT, "--allow-float-fallback"), "--allow-float-fallback"),
    ((*FLOAT, "--samples", "s.npy", "--calibration", "c.npy"), "--calibration"),
    (
        ("--scheme", "float16", "--scheme", "int4", "--samples", "s.npy", "--calibration", "c.npy"),
        "--calibration",
    ),
    ((*ONNX, "--target", "litert"), "--target litert"),
    ((*TFLITE, "--target", "litert", "--target", "onnxruntime"), "--target onnxruntime"),
    (("--no-attention", "--attention", "look"), "contradict"),
    ((*MICRO, "--target", "litert"), "cannot be combined with litert"),
    ((*MICRO, "--target", "onnxruntime"), "cannot be combined with onnxruntime"),
    ((*MICRO, *ONNX), "--target tflite-micro and --format onnx"),
    ((*MICRO, *FLOAT), "--target tflite-micro and --scheme float32"),
    ((*MICRO, "--lowering", "chunked"), "--lowering chunked contradict"),
    ((*MICRO, "--attention-precision", "float32"), "--attention-precision float32 contradict"),
    (("--target", "tflite-micro"), "calibration samples are missing"),
    (("--integer-only",), "calibration samples are missing"),
    ((*INTEGERS, *ONNX), "--integer-only and --format onnx"),
    ((*INTEGERS, "--scheme", "dynamic_int8"), "--integer-only and --scheme dynamic_int8"),
    ((*INTEGERS, "--attention-precision", "float32"), "--attention-precision float32 contradict"),
    ((*INTEGERS, "--allow-float-fallback"), "--allow-float-fallback contradict"),
    ((*INTEGERS, "--lowering", "fused"), "--lowering fused contradict"),
    (("--arena", "9000"), "--arena 9000"),
    (("--target", "litert", "--arena", "9000"), "--arena 9000"),
    (("--scheme", "int8"), "calibration samples are missing"),
    (("--scheme", "all", "--scheme", "int16x8"), "calibration samples are missing"),
]
EFFECTIVE = [
    (),
    ("--lowering", "fused"),
    (*TFLITE, "--lowering", "unrolled", "--batch", "4"),
    (*ONNX, "--lowering", "auto", "--batch", "1", "--opset", "21"),
    (*INT8, "--integer-io", "--attention-precision", "int8", "--allow-float-fallback"),
    (
        *("--scheme", "all", "--scheme", "int16x8", "--calibration", "c.npy"),
        *("--integer-io", "--attention-precision", "int16"),
    ),
    ("--scheme", "dynamic_int8", "--samples", "s.npy", "--calibration", "c.npy"),
    # The reference is drawn from it.
    (*FLOAT, "--calibration", "c.npy"),
    ("--target", "tflite-runtime", "--target", "onnxruntime"),
    ("--scheme", "all", "--scheme", "int4"),
    (*MICRO, "--integer-only", "--arena", "9000", "--lowering", "fused"),
    (*MICRO, "--scheme", "int8", "--attention-precision", "int16"),
    (*INTEGERS, "--target", "litert", "--scheme", "int8"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file that is not a model, so that the next error is about it."""
    (tmp_path / "model.h5").write_text("epoch,loss\n1,0.5\n")
    for name in ("c.npy", "s.npy"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), WITHOUT_EFFECT)
def test_options_without_effect(
    arguments: tuple[str, ...], message: str, folder: Path, edgeattn: Callable
) -> None:
    before = sorted(folder.iterdir())
    result = edgeattn("convert", "model.h5", *arguments)
    assert result.code == 2
    error, hint = result.err.strip().splitlines()[:2]
    assert message in error
    assert hint.strip()
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", EFFECTIVE)
def test_effective_options(arguments: tuple[str, ...], folder: Path, edgeattn: Callable) -> None:
    result = edgeattn("convert", "model.h5", *arguments)
    assert result.code == 3
    assert "not a Keras model" in result.err


def test_every_rule_is_tested() -> None:
    errors = " ".join(message for _, message in WITHOUT_EFFECT)
    request = Request(
        ModelSource("m"), ConversionOptions().with_defaults(calibrated=False), QuantizationOptions()
    )
    for rule in RULES:
        assert rule.option(request).split()[0] in errors
    check_combination(request)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*FLOAT, "--samples", "s.npy", "--calibration", "c.npy"), "--calibration has no effect"),
        (("--scheme", "int8"), "calibration samples are missing"),
    ],
)
def test_tune(arguments: tuple[str, ...], message: str, folder: Path, edgeattn: Callable) -> None:
    (folder / "d.npz").touch()
    result = edgeattn("tune", "model.h5", "--data", "d.npz", *arguments)
    assert result.code == 2
    assert message in result.err


def test_missing_calibration_has_a_class_of_its_own() -> None:
    options = ConversionOptions(schemes=("int8",)).with_defaults(calibrated=False)
    request = Request(ModelSource("m"), options, QuantizationOptions())
    with pytest.raises(MissingCalibrationError):
        check_combination(request, named_schemes=("int8",))


def test_all_and_an_experimental_scheme() -> None:
    options = ConversionOptions(schemes=("all", "int4"), formats=("onnx", "onnx"))
    named = options.with_defaults(calibrated=False)
    assert named.schemes == ("float32", "float16", "dynamic_int8", "int4")
    assert named.formats == ("onnx",)
