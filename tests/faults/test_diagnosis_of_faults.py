"""``--explain`` names the operator that contains a planted fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from long_parameters import every_third
from onnx import numpy_helper

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, sha256, write_manifest
from edgeattn.diagnosis.diagnose import ArtifactDiagnosis, diagnose
from edgeattn.metrics.verdict import PASS
from edgeattn.validation.artifact import validate_artifact

from .catalog import FAULTS
from .fault import Fault, recounted
from .fault_table import open_file
from .tflite_faults import operators, tflite_fault

# The models of all faults are converted first.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.long]

# TFLite has two operators that multiply by weights.
PRODUCTS = {"FULLY_CONNECTED": ("FULLY_CONNECTED", "BATCH_MATMUL")}
# The kind of the operator that contains the fault, and a part of its name.
FAULTY_OPERATORS = {
    ("input and output gate swapped", "onnx"): ("LSTM", "memory"),
    ("GRU's update and reset gate swapped", "onnx"): ("GRU", "memory"),
    ("one gate's recurrent kernel transposed", "onnx"): ("LSTM", "memory"),
    ("hard_sigmoid of Keras 2 in the gates", "onnx"): ("LSTM", "memory"),
    ("sequence read backwards", "onnx"): ("LSTM", "memory"),
    ("reset_after treated as reset_before", "onnx"): ("GRU", "memory"),
    ("gate activations clipped at 1", "onnx"): ("LSTM", "memory"),
    ("query shifted by one step", "onnx"): ("Gather", "look"),
    ("score kernel transposed", "onnx"): ("MatMul", "bahdanau_w2"),
    ("softmax over the wrong axis", "onnx"): ("Softmax", "look"),
    ("softmax of the output omitted", "onnx"): ("Identity", "answer"),
    ("outdated row of the embedding", "onnx"): ("Gather", "words"),
    ("one class's bias increased by 0.01", "onnx"): ("Add", "answer"),
    ("one weight increased by 0.01", "onnx"): ("MatMul", "w_c"),
    ("tanh of the attentional vector omitted", "onnx"): ("Identity", "w_c"),
    ("epsilon of the normalization 100 times too small", "onnx"): ("LayerNormalization", "norm"),
    ("bias after the heads omitted", "onnx"): ("Add", "attention_output"),
    ("map of another head", "onnx"): ("Gather", "attention/look"),
    ("one gate's recurrent kernel transposed", "tflite"): ("BATCH_MATMUL", "memory"),
    ("recurrent gates rolled", "tflite"): ("BATCH_MATMUL", "memory"),
    ("softmax temperature of attention too low", "tflite"): ("SOFTMAX", "look"),
    ("one class's bias increased by 0.01", "tflite"): ("FULLY_CONNECTED", "answer"),
    ("outdated row of the embedding", "tflite"): ("GATHER", "words"),
    ("NaN in one word's embedding", "tflite"): ("GATHER", "words"),
    ("a weight overflowed in float16", "tflite"): ("FULLY_CONNECTED", "w_c"),
    ("int8 scales of the recurrence shifted by one row", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 scales of the recurrence doubled", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 weights read as uint8", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 scales of the recurrence halved", "tflite"): ("FULLY_CONNECTED", "lstm"),
}


def planted(bundle: Bundle, fault: Fault, folder: Path) -> tuple[Bundle, Artifact]:
    """A copy of ``bundle`` with the fault planted and the hash updated, and the faulty artifact."""
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    (sound,) = bundle.select((fault.format,), (fault.scheme,))
    path = folder / sound.path
    content = path.read_bytes()
    content = fault.plant(content) if fault.plant else content
    path.write_bytes(content)
    faulty = replace(recounted(sound, content), sha256=sha256(path))
    entries = (faulty if item == sound else item for item in bundle.manifest.artifacts)
    copy = Bundle(folder, replace(bundle.manifest, artifacts=tuple(entries)))
    write_manifest(folder, copy.manifest)
    return copy, faulty


def diagnosed(bundle: Bundle, *artifacts: Artifact) -> tuple[ArtifactDiagnosis, ...]:
    reference = bundle.reference()

    def validated(item: Artifact) -> Any:
        return validate_artifact(
            bundle, item, reference, lambda a: open_file(bundle.artifact_path(a), a)
        )

    return diagnose(bundle, [validated(item) for item in artifacts], validate=validated)


@pytest.mark.parametrize(
    "fault",
    every_third([fault for fault in FAULTS if (fault.name, fault.format) in FAULTY_OPERATORS]),
    ids=lambda fault: f"{fault.format} {fault.name}",
)
def test_the_faulty_operator_is_named(fault: Fault, converted, tmp_path) -> None:
    kind, name = FAULTY_OPERATORS[fault.name, fault.format]
    (item,) = diagnosed(*planted(converted[fault.model], fault, tmp_path))
    operator = item.diagnosis.operator
    assert operator is not None, item.diagnosis.message
    assert operator.kind in PRODUCTS.get(kind, (kind,)), item.diagnosis.message
    assert name in operator.name, item.diagnosis.message
    assert operator.name in item.diagnosis.message
    assert item.diagnosis.remedy is not None


def test_swapped_names_are_not_attributed_to_an_operator(converted, tmp_path) -> None:
    swaps = [fault for fault in FAULTS if fault.name in ("outputs swapped", "inputs swapped")]
    for number, fault in enumerate(swaps):
        folder = tmp_path / str(number)
        (item,) = diagnosed(*planted(converted[fault.model], fault, folder))
        assert item.diagnosis.operator is None
        assert "names" in item.diagnosis.message


# Faults of quantization


def first_product(model: Any) -> Any:
    """The first matrix product with an int8 output."""
    graph = model.subgraphs[0]
    products = operators(model, "FULLY_CONNECTED")
    return next(o for o in products if dtype(graph.tensors[o.outputs[0]]) == "INT8")


def dtype(tensor: Any) -> str:
    from ai_edge_litert.schema_py_generated import TensorType

    return next(name for name, value in vars(TensorType).items() if value == tensor.type)


def scaled(factor: float) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        index = first_product(model).outputs[0]
        quantization = model.subgraphs[0].tensors[index].quantization
        quantization.scale = np.array(quantization.scale) * factor

    return edit


def halved(model: Any) -> None:
    """Halve the scales of the weights of a matrix product."""
    weights = model.subgraphs[0].tensors[first_product(model).inputs[1]].quantization
    weights.scale = np.array(weights.scale) / 2


@pytest.mark.parametrize(
    ("edit", "kind", "cause", "remedy"),
    [
        (scaled(0.01), "FULLY_CONNECTED", "clipping", "--calibration"),
        (scaled(400.0), "FULLY_CONNECTED", "coarse", "--scheme int16x8"),
        (halved, "FULLY_CONNECTED", "weights", "--force"),
    ],
    ids=["scale too small", "scale of a mask value of -1e9", "scale of weights halved"],
)
def test_quantization_in_tflite(edit, kind, cause, remedy, converted, tmp_path) -> None:
    fault = tflite_fault("", "digits", "numbers", edit, scheme="int8")
    (item,) = diagnosed(*planted(converted["digits"], fault, tmp_path))
    operator = item.diagnosis.operator
    assert operator is not None, item.diagnosis.message
    assert (operator.kind, operator.cause) == (kind, cause), item.diagnosis.message
    assert remedy in str(item.diagnosis.remedy)


def onnx_scaled(factor: float) -> Callable[[bytes], bytes]:
    def plant(content: bytes) -> bytes:
        proto = onnx.load_from_string(content)
        node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
        item = next(i for i in proto.graph.initializer if i.name == node.input[1])
        value = numpy_helper.to_array(item) * np.float32(factor)
        item.CopyFrom(numpy_helper.from_array(value, item.name))
        edited: bytes = proto.SerializeToString()
        return edited

    return plant


def onnx_shifted(content: bytes) -> bytes:
    """Shift the zero point of quantization, but not that of dequantization."""
    proto = onnx.load_from_string(content)
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    item = next(i for i in proto.graph.initializer if i.name == node.input[2])
    value = numpy_helper.to_array(item)
    proto.graph.initializer.append(
        numpy_helper.from_array((value + (1 if value < 100 else -1)).astype(value.dtype), "off")
    )
    node.input[2] = "off"
    edited: bytes = proto.SerializeToString()
    return edited


@pytest.mark.parametrize(
    ("plant", "causes"),
    [
        (onnx_scaled(0.01), {"clipping"}),
        (onnx_scaled(200.0), {"coarse"}),
        (onnx_shifted, {"offset"}),
    ],
    ids=["scale too small", "scale of a mask value of -1e9", "zero point off by one"],
)
def test_quantization_in_onnx(plant, causes, converted, tmp_path) -> None:
    fault = Fault("", "digits", "numbers", plant, scheme="int8")
    (item,) = diagnosed(*planted(converted["digits"], fault, tmp_path))
    operator = item.diagnosis.operator
    assert operator is not None, item.diagnosis.message
    assert operator.kind in ("QuantizeLinear", "DequantizeLinear")
    assert operator.cause in causes


def test_sound_artifacts_have_no_faulty_operator(all_converted) -> None:
    compared = 0
    for bundle in all_converted.values():
        for item in diagnosed(bundle, *bundle.manifest.artifacts):
            if item.verdict != PASS or item.reference is None:
                continue
            label = f"{bundle.path.stem} {item.artifact.label}"
            assert item.diagnosis.operator is None, f"{label}: {item.diagnosis.message}"
            assert "No faults" in item.diagnosis.message, label
            assert item.comparison.unmatched == 0, label
            compared += 1
    assert compared >= 20


def test_explain_as_text_and_as_json(converted, tmp_path, edgeattn) -> None:
    fault = next(f for f in FAULTS if f.name == "int8 scales of the recurrence halved")
    bundle, _ = planted(converted["digits"], fault, tmp_path / "digits.edge")
    # As a command of edgeattn: click stores the help options of a command that runs by itself.
    arguments = ("validate", bundle.path, "--format", "tflite", "--scheme", "int8", "--explain")
    result = edgeattn(*arguments)
    assert result.code == 1
    assert "FULLY_CONNECTED" in result.out
    assert "edgeattn convert model.h5 --force" in result.out
    (explanation,) = edgeattn(*arguments, "--json").document["explanation"]
    assert explanation["reference"] == "tflite float32"
    assert explanation["operator"]["operator"] == "FULLY_CONNECTED"
    assert explanation["operator"]["cause"] == "weights"
    assert explanation["worst"][0]["position"] == explanation["operator"]["position"]


def test_without_onnx_the_remedy_is_to_install_it(converted, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (artifact,) = converted["digits"].select(("onnx",), ("float16",))
    (item,) = diagnosed(converted["digits"], artifact)
    assert item.reference is None
    assert "edgeattn[convert]" in str(item.diagnosis.remedy)
