"""The remedy for a wrong float32 artifact."""

from dataclasses import replace

import artifacts
import pytest

from edgeattn.diagnosis.diagnose import remedy_of_lowering


@pytest.mark.parametrize(
    ("format", "operators", "has_other_lowering"),
    [
        ("tflite", {"SUB": 1, "TRANSPOSE": 1}, False),
        ("tflite", {"FULLY_CONNECTED": 9, "TANH": 3}, False),
        ("tflite", {"FULLY_CONNECTED": 1, "WHILE": 1}, True),
        ("tflite", {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2}, True),
        ("onnx", {"LSTM": 1}, False),
        ("onnx", {"Loop": 1}, False),
    ],
)
def test_lowering_is_recommended_for_loops_only(format, operators, has_other_lowering, tmp_path):
    path = tmp_path / f"m.{format}"
    path.write_bytes(b"")
    artifact = replace(artifacts.artifact(path), achieved={"operators": operators})
    remedy = remedy_of_lowering(artifact, "m.keras")
    assert remedy.startswith("Convert the model again: edgeattn convert m.keras --force")
    assert ("--lowering unrolled" in remedy) == has_other_lowering
