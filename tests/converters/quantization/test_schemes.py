"""Every scheme in both formats on every kind of model: its outputs and its summary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from long_parameters import only
from quantized_models import CONVERTERS, SCHEMES, Conversions, ConversionsOf

from edgeattn.file_structure.read import read_contents
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import quantizer
from edgeattn_converters.quantization.candidates import Candidate, Stage

QUANTIZED = SCHEMES[1:]
STORED = {"float16": "float16", "dynamic_int8": "int8", "int8": "int8", "int16x8": "int8"}
# SNR in dB on untrained weights, which tolerate less noise than trained ones.
FLOOR = {"float16": 50, "dynamic_int8": 24, "int8": 12, "int16x8": 24}
BITS = {"float16": "float16", "dynamic_int8": "int8 weights", "int8": "int8", "int16x8": "int16"}
# What a file of these models may be, whatever was requested.
WEIGHTS_ONLY = {"dynamic_int8", "int8_weights", "float16"}
NAMES = {
    "float16": {"float16"},
    "dynamic_int8": WEIGHTS_ONLY,
    "int8": {"int8", *WEIGHTS_ONLY},
    "int16x8": {"int16x8", *WEIGHTS_ONLY},
}


@pytest.mark.parametrize("scheme", only(QUANTIZED, "dynamic_int8", "int8"))
@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_outputs_are_close_to_float32(conversions: Conversions, format: str, scheme: str) -> None:
    expected = conversions.make(format, "float32").actual
    converted = conversions.make(format, scheme)
    for name, want in expected.items():
        got = converted.actual[name]
        assert np.isfinite(got).all()
        assert metrics.snr_db(want, got) >= FLOOR[scheme], name
        if name in converted.maps:
            assert metrics.jensen_shannon(want, got) <= LIMITS[scheme].attention_jsd


@pytest.mark.parametrize("scheme", only(QUANTIZED, "dynamic_int8", "int8"))
@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_file_achieves_its_scheme(conversions: Conversions, format: str, scheme: str) -> None:
    original = conversions.make(format, "float32")
    converted = conversions.make(format, scheme)
    weights = converted.achieved["weights"]
    share = weights[STORED[scheme]]
    share += converted.achieved.get("kept_weights", {}).get("float16", 0)
    assert share / sum(weights.values()) > 0.75
    assert converted.achieved["summary"].startswith(f"requested {scheme}; ")
    if scheme in ("int8", "int16x8"):
        notes = converted.achieved["notes"]
        assert any("between 4 subsets of the calibration samples" in note for note in notes)
    assert converted.achieved["scheme"] in NAMES[scheme]
    if scheme == "int16x8":
        assert any(note.startswith("slow on this target") for note in notes)
    elif scheme != "float16":
        assert BITS[scheme] in converted.achieved["computes_in"]
    if scheme != "int16x8":
        assert "int16" not in converted.achieved["computes_in"]
    if scheme in ("float16", "dynamic_int8"):
        assert converted.path.stat().st_size < 0.8 * original.path.stat().st_size


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_inputs_and_outputs_are_those_of_float32(conversions: Conversions, format: str) -> None:
    original = conversions.make(format, "float32")
    for scheme in QUANTIZED:
        converted = conversions.make(format, scheme)
        sizes = {spec.shape[0] for spec in (*converted.inputs, *converted.outputs)}
        operators = converted.achieved["operators"]
        is_dynamic = any(kind.startswith("Dynamic") for kind in operators)
        assert sizes == {1 if format == "tflite" or is_dynamic else None}
        for side in ("inputs", "outputs"):
            own, expected = getattr(converted, side), getattr(original, side)
            assert [replace(spec, shape=(None, *spec.shape[1:])) for spec in own] == [
                replace(spec, shape=(None, *spec.shape[1:])) for spec in expected
            ]
        assert converted.maps == original.maps


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_integer_inputs_and_outputs(conversions: Conversions, format: str) -> None:
    expected = conversions.make(format, "float32").actual
    converted = conversions.make(format, "int8", integer_io=True)
    for spec in converted.inputs:
        # Tokens are indices: they have no scale.
        assert spec.dtype == ("int32" if spec.name == "tokens" else "int8")
    for spec in converted.outputs:
        assert spec.dtype == "int8"
        assert spec.scale
        assert spec.zero_point is not None
    # The structure of a bundle is compared with what is read from the file.
    contents = read_contents(converted.path, format)
    for side in ("inputs", "outputs"):
        in_file = {item.name: item for item in getattr(contents, side)}
        for spec in getattr(converted, side):
            found = in_file[spec.in_file]
            assert (found.scale, found.zero_point) == (
                None if spec.scale is None else pytest.approx(spec.scale),
                spec.zero_point,
            )
    for name, want in expected.items():
        if name not in converted.maps:
            assert metrics.snr_db(want, converted.actual[name]) >= FLOOR["int8"]


@pytest.mark.long
def test_embeddings_are_quantized(conversions_of: ConversionsOf) -> None:
    """They are most of the bytes of a text model."""
    conversions = conversions_of("text")
    for format in CONVERTERS:
        large = sum(
            v.size for v in map(np.asarray, conversions.model.get_weights()) if v.size > 1023
        )
        assert conversions.make(format, "dynamic_int8").achieved["weights"]["int8"] >= large


def test_requested_attention_precision(conversions_of: ConversionsOf) -> None:
    conversions = conversions_of("transformer")
    for format, softmax in (("tflite", "SOFTMAX"), ("onnx", "Softmax")):
        achieved = conversions.make(format, "int8", attention_precision="float32").achieved
        assert softmax in achieved["computes_in"]["float32"]
        assert "in float32: softmax, scores and context of attention" in achieved["notes"][0]
    int8 = conversions.make("tflite", "int8", attention_precision="int8").achieved
    assert "SOFTMAX" not in int8["computes_in"].get("float32", {})


def test_float32_steps_include_operators_of_several_outputs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's quantizer converts excluded operators anyway if they have several outputs."""
    stage = Stage((Candidate(recurrence=True),))
    monkeypatch.setattr(quantizer, "static_stages", lambda *_, **__: (stage,))
    conversions = Conversions("lstm", tmp_path_factory.mktemp("lstm"))
    file = TFLiteFile(conversions.make("tflite", "int8").path.read_bytes())
    dtypes = [
        {file.dtype(graph.tensors[int(i)]) for i in operator.outputs}
        for graph, operator, kind in file.operators()
        if kind in ("SPLIT", "UNPACK")
    ]
    assert dtypes
    assert all(item == {"FLOAT32"} for item in dtypes)
