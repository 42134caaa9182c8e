"""The device stage: how far the outputs of two machines may differ."""

from __future__ import annotations

from pathlib import Path

import artifacts
import numpy as np
import pytest

from edgeattn.tensors import TensorSpec
from edgeattn.validation.device_parity import device_checks, tolerance

SCORE = TensorSpec("score", (None, 4), "float32")


def artifact_of(tmp_path: Path, scheme: str):
    path = tmp_path / "any.onnx"
    path.write_bytes(b"x")
    return artifacts.artifact(path, scheme=scheme, outputs=(SCORE,))


@pytest.mark.parametrize(
    ("scheme", "span", "expected"),
    [
        ("float32", (-0.5, 0.5), 1e-5),
        ("float32", (-300.0, 100.0), 3e-3),
        ("dynamic_int8", (0.0, 1.0), 1e-3),
        ("float16", (0.0, 20.0), 0.02),
        ("int8", (0.0, 1.0), 2 / 255),
        ("int16x8", (-51.0, 204.0), 2.0),
    ],
)
def test_tolerances(scheme, span, expected):
    assert tolerance(scheme, np.array(span, np.float32)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("difference", "passed"), [(0.9e-5, True), (1.2e-5, False)])
def test_float32(tmp_path, difference, passed):
    host = np.eye(4)[None, 0].repeat(3, axis=0)
    device = host + difference
    (check,) = device_checks(artifact_of(tmp_path, "float32"), {"score": host}, {"score": device})
    assert (check.stage, check.metric, check.passed) == ("device", "difference_from_host", passed)
    assert check.value == pytest.approx(difference, rel=1e-6)


def test_int8_must_agree_on_the_class(tmp_path):
    host = np.array([[0.0, 1.0, 0.5, 0.25], [1.0, 0.0, 0.25, 0.5]])
    device = host.copy()
    device[1] = [0.49, 0.0, 0.25, 0.5]
    difference, same_class = device_checks(
        artifact_of(tmp_path, "int8"), {"score": host}, {"score": device}
    )
    assert (difference.passed, same_class.passed, same_class.value) == (False, False, 0.5)
    # Classes whose scores are closer than two steps of 256 may swap.
    host = np.array([[0.0, 1.0, 0.995, 0.0]])
    device = np.array([[0.0, 0.994, 1.0, 0.0]])
    checks = list(device_checks(artifact_of(tmp_path, "int8"), {"score": host}, {"score": device}))
    assert [check.passed for check in checks] == [True, True]


def test_only_ordinary_rows_count(tmp_path):
    host = np.zeros((3, 4))
    device = host.copy()
    device[2] = 7.0
    artifact = artifact_of(tmp_path, "float32")
    (check,) = device_checks(artifact, {"score": host}, {"score": device}, rows=2)
    assert check.passed
    (check,) = device_checks(artifact, {"score": host}, {"score": device})
    assert not check.passed


def test_the_same_infinity_is_no_difference_and_nan_is(tmp_path):
    artifact = artifact_of(tmp_path, "float32")
    host = np.array([[np.inf, -np.inf, np.nan, 1.0]])
    (check,) = device_checks(artifact, {"score": host}, {"score": host.copy()})
    assert (check.value, check.passed) == (0.0, True)
    device = np.array([[np.inf, -np.inf, np.nan, np.nan]])
    (check,) = device_checks(artifact, {"score": host}, {"score": device})
    assert not check.passed
