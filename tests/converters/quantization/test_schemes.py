"""Every scheme in both formats on every kind of model: what it is, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from weighty_models import CONVERTERS, SCHEMES, Workshop

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import tflite
from edgeattn_converters.quantization.candidates import Candidate, Stage

QUANTIZED = SCHEMES[1:]
STORED = {"float16": "float16", "dynamic_int8": "int8", "int8": "int8", "int16x8": "int8"}
# In decibels, on untrained weights, which forgive less than trained ones do.
FLOOR = {"float16": 50, "dynamic_int8": 24, "int8": 12, "int16x8": 24}
BITS = {"float16": "float16", "dynamic_int8": "int8 weights", "int8": "int8", "int16x8": "int16"}


@pytest.mark.parametrize("scheme", QUANTIZED)
@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_outputs_are_near_float32s(workshop: Workshop, format: str, scheme: str) -> None:
    expected = workshop.make(format, "float32").actual
    made = workshop.make(format, scheme)
    for name, want in expected.items():
        got = made.actual[name]
        assert np.isfinite(got).all()
        assert metrics.snr_db(want, got) >= FLOOR[scheme], name
        if name in made.maps:
            assert metrics.jensen_shannon(want, got) <= LIMITS[scheme].attention_jsd


@pytest.mark.parametrize("scheme", QUANTIZED)
@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_a_file_is_what_it_says(workshop: Workshop, format: str, scheme: str) -> None:
    before = workshop.make(format, "float32")
    made = workshop.make(format, scheme)
    stored = made.achieved["weights"]
    share = stored[STORED[scheme]]
    if "are float16" in made.achieved["summary"]:
        share += stored["float16"]  # kept on purpose, and told
    assert share / sum(stored.values()) > 0.75
    assert made.achieved["summary"].startswith(f"{scheme} asked; ")
    if scheme in ("int8", "int16x8"):
        assert "between 4 subsets of the calibration samples" in made.achieved["summary"]
    if scheme != "float16":
        assert BITS[scheme] in made.achieved["computes_in"]
    if scheme in ("float16", "dynamic_int8"):
        assert made.path.stat().st_size < 0.8 * before.path.stat().st_size


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_ends_keep_their_names_and_shapes(workshop: Workshop, format: str) -> None:
    before = workshop.make(format, "float32")
    for scheme in QUANTIZED:
        made = workshop.make(format, scheme)
        assert (made.inputs, made.outputs, made.maps) == (
            before.inputs,
            before.outputs,
            before.maps,
        )


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_integers_in_and_out(workshop: Workshop, format: str) -> None:
    expected = workshop.make(format, "float32").actual
    made = workshop.make(format, "int8", integer_io=True)
    for spec in made.inputs:
        # Tokens are names: they have no scale.
        assert spec.dtype == ("int32" if spec.name == "tokens" else "int8")
    for spec in made.outputs:
        assert spec.dtype == "int8"
        assert spec.scale
        assert spec.zero_point is not None
    for name, want in expected.items():
        if name not in made.maps:
            assert metrics.snr_db(want, made.actual[name]) >= FLOOR["int8"]


def test_embeddings_are_quantized(tmp_path_factory: pytest.TempPathFactory) -> None:
    """They are most of a text model's bytes."""
    workshop = Workshop("text", tmp_path_factory.mktemp("text"))
    for format in CONVERTERS:
        large = sum(v.size for v in map(np.asarray, workshop.model.get_weights()) if v.size > 1023)
        assert workshop.make(format, "dynamic_int8").achieved["weights"]["int8"] >= large


def test_attention_precision_is_what_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    workshop = Workshop("transformer", tmp_path_factory.mktemp("transformer"))
    for format, softmax in (("tflite", "SOFTMAX"), ("onnx", "Softmax")):
        kept = workshop.make(format, "int8", attention_precision="float32").achieved
        assert softmax in kept["computes_in"]["float32"]
        assert "on purpose" in kept["summary"]
    gone = workshop.make("tflite", "int8", attention_precision="int8").achieved
    assert "SOFTMAX" not in gone["computes_in"].get("float32", {})


def test_steps_that_are_kept_are_kept_whole(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's quantizer made int8 of what it was told to leave, if of many outputs."""
    plan = Candidate(recurrence=True)
    monkeypatch.setattr(tflite, "static_stages", lambda *_, **__: (Stage((plan,)),))
    workshop = Workshop("lstm", tmp_path_factory.mktemp("lstm"))
    file = TFLiteFile(workshop.make("tflite", "int8").path.read_bytes())
    kept = [
        {file.dtype(graph.tensors[int(i)]) for i in operator.outputs}
        for graph, operator, kind in file.operators()
        if kind in ("SPLIT", "UNPACK")
    ]
    assert kept
    assert all(dtypes == {"FLOAT32"} for dtypes in kept)
