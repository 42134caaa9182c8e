"""The remedy for a wrong float32 artifact."""

from dataclasses import replace
from types import SimpleNamespace

import artifacts
import pytest

from edgeattn.diagnosis import causes
from edgeattn.diagnosis.messages import Comparison, diagnosis_of, remedy_of_lowering
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison


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
    remedy = remedy_of_lowering(artifact, {"file": "m.keras", "recurrent": ["lstm"]})
    assert remedy.startswith("Convert the model again: edgeattn convert m.keras --force")
    assert ("--lowering unrolled" in remedy) == has_other_lowering
    # ConvLSTM, cells of the user and loops of TensorFlow are loops too, which --lowering refuses.
    for model in ({"file": "m.keras", "recurrent": []}, {"file": "m.keras"}):
        assert "--lowering" not in remedy_of_lowering(artifact, model)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("other_lowerings", [True, False])
@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("cause", [causes.UNEXPLAINED, causes.ROUNDING])
def test_unrolled_steps_are_recommended_for_recurrent_layers_only(
    cause, scheme, other_lowerings, recurrent, format
):
    """Weights that several steps share may be those of TimeDistributed or of a siamese model."""
    operator = OperatorComparison(
        3, "FULLY_CONNECTED", "dense", 5.0, 5.0, 60.0, cause, recurrent=recurrent
    )
    artifact = SimpleNamespace(scheme=scheme, format=format, label=f"{format} {scheme}")
    comparison = Comparison(
        GraphComparison((operator,)), artifact, artifact, "fail", 20.0, "m.keras",
        other_lowerings=other_lowerings,
    )  # fmt: skip
    remedy = diagnosis_of(comparison).remedy
    allowed = recurrent and other_lowerings and format == "tflite" and cause == causes.UNEXPLAINED
    assert ("--lowering" in remedy) == allowed
