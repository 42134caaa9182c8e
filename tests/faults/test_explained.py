"""Planted faults, and where they are: ``--explain`` must name the operator that holds the fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, sha256, write_manifest
from edgeattn.cli.validate import command
from edgeattn.diagnosis.diagnose import ArtifactDiagnosis, diagnose
from edgeattn.metrics.verdict import PASS
from edgeattn.validation.validate import validate_artifact

from .judging import opened
from .planting import FAULTS, Fault, operators, tflite_fault

pytestmark = pytest.mark.filterwarnings("default")

# TFLite has two operators for a product with weights.
PRODUCTS = {"FULLY_CONNECTED": ("FULLY_CONNECTED", "BATCH_MATMUL")}
# For faults inside of an operator: its kind, and what its name must say.
HELD_BY = {
    ("input and output gate swapped", "onnx"): ("LSTM", "memory"),
    ("GRU's update and reset gate swapped", "onnx"): ("GRU", "memory"),
    ("one gate's recurrent kernel transposed", "onnx"): ("LSTM", "memory"),
    ("hard_sigmoid of Keras 2 in the gates", "onnx"): ("LSTM", "memory"),
    ("sequence read backwards", "onnx"): ("LSTM", "memory"),
    ("reset_after taken for reset_before", "onnx"): ("GRU", "memory"),
    ("gate activations cut at 1", "onnx"): ("LSTM", "memory"),
    ("query one step off", "onnx"): ("Gather", "look"),
    ("score kernel transposed", "onnx"): ("MatMul", "bahdanau_w2"),
    ("softmax over the wrong axis", "onnx"): ("Softmax", "look"),
    ("softmax left out of the answer", "onnx"): ("Identity", "answer"),
    ("stale row of the embedding", "onnx"): ("Gather", "words"),
    ("one class's bias moved by 0.01", "onnx"): ("Add", "answer"),
    ("one weight off by 0.01", "onnx"): ("MatMul", "w_c"),
    ("tanh of the attentional vector left out", "onnx"): ("Identity", "w_c"),
    ("normalization's epsilon a hundred times too small", "onnx"): ("LayerNormalization", "norm"),
    ("bias behind the heads dropped", "onnx"): ("Add", "attention_output"),
    ("map of another head", "onnx"): ("Gather", "attention/look"),
    ("one gate's recurrent kernel transposed", "tflite"): ("BATCH_MATMUL", "memory"),
    ("recurrent gates rolled", "tflite"): ("BATCH_MATMUL", "memory"),
    ("attention's softmax half as warm", "tflite"): ("SOFTMAX", "look"),
    ("one class's bias moved by 0.01", "tflite"): ("FULLY_CONNECTED", "answer"),
    ("stale row of the embedding", "tflite"): ("GATHER", "words"),
    ("NaN in one word's embedding", "tflite"): ("GATHER", "words"),
    ("a weight that overflowed float16", "tflite"): ("FULLY_CONNECTED", "w_c"),
    ("int8 scales of the recurrence one row off", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 scales of the recurrence doubled", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 weights read as uint8", "tflite"): ("FULLY_CONNECTED", "lstm"),
    ("int8 scales of the recurrence halved", "tflite"): ("FULLY_CONNECTED", "lstm"),
}


def planted(bundle: Bundle, fault: Fault, folder: Path) -> tuple[Bundle, Artifact]:
    """A copy of ``bundle`` with the fault in its file, and a manifest that says so."""
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    (right,) = bundle.select((fault.format,), (fault.scheme,))
    path = folder / right.path
    content = path.read_bytes()
    path.write_bytes(fault.plant(content) if fault.plant else content)
    wrong = replace(right, sha256=sha256(path))
    made = tuple(wrong if item.label == wrong.label else item for item in bundle.manifest.artifacts)
    copy = Bundle(folder, replace(bundle.manifest, artifacts=made))
    write_manifest(folder, copy.manifest)
    return copy, wrong


def explained(bundle: Bundle, *artifacts: Artifact) -> tuple[ArtifactDiagnosis, ...]:
    reference = bundle.reference()

    def judged(item: Artifact) -> Any:
        return validate_artifact(
            bundle, item, reference, lambda a: opened(bundle.artifact_path(a), a)
        )

    return diagnose(bundle, [judged(item) for item in artifacts], validate=judged)


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if (fault.name, fault.format) in HELD_BY],
    ids=lambda fault: f"{fault.format} {fault.name}",
)
def test_the_operator_that_holds_the_fault_is_named(fault: Fault, converted, tmp_path) -> None:
    kind, name = HELD_BY[fault.name, fault.format]
    (found,) = explained(*planted(converted[fault.model], fault, tmp_path))
    operator = found.diagnosis.operator
    assert operator is not None, found.diagnosis.message
    assert operator.kind in PRODUCTS.get(kind, (kind,)), found.diagnosis.message
    assert name in operator.name, found.diagnosis.message
    assert operator.name in found.diagnosis.message
    assert found.diagnosis.remedy is not None


def test_names_that_are_swapped_are_no_operators_fault(converted, tmp_path) -> None:
    swaps = [fault for fault in FAULTS if fault.name in ("outputs swapped", "inputs swapped")]
    for number, fault in enumerate(swaps):
        folder = tmp_path / str(number)
        (found,) = explained(*planted(converted[fault.model], fault, folder))
        assert found.diagnosis.operator is None
        assert "names" in found.diagnosis.message


# Faults that only integers have


def first_product(model: Any) -> Any:
    """The first product that makes integers."""
    graph = model.subgraphs[0]
    products = operators(model, "FULLY_CONNECTED")
    return next(o for o in products if dtype(graph.tensors[o.outputs[0]]) == "INT8")


def dtype(tensor: Any) -> str:
    from ai_edge_litert.schema_py_generated import TensorType

    return next(name for name, value in vars(TensorType).items() if value == tensor.type)


def scaled(factor: float) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        made = first_product(model).outputs[0]
        quantization = model.subgraphs[0].tensors[made].quantization
        quantization.scale = np.array(quantization.scale) * factor

    return edit


def halved(model: Any) -> None:
    """The scales of a product's weights, and of nothing else."""
    weights = model.subgraphs[0].tensors[first_product(model).inputs[1]].quantization
    weights.scale = np.array(weights.scale) / 2


@pytest.mark.parametrize(
    ("edit", "kind", "cause", "cure"),
    [
        (scaled(0.01), "FULLY_CONNECTED", "clipping", "--calibration"),
        (scaled(400.0), "FULLY_CONNECTED", "coarse", "--scheme int16x8"),
        (halved, "FULLY_CONNECTED", "weights", "--force"),
    ],
    ids=["scale too small", "scale of a fill of -1e9", "scale of weights halved"],
)
def test_integers_of_tflite(edit, kind, cause, cure, converted, tmp_path) -> None:
    fault = tflite_fault("", "digits", "numbers", edit, scheme="int8")
    (found,) = explained(*planted(converted["digits"], fault, tmp_path))
    operator = found.diagnosis.operator
    assert operator is not None, found.diagnosis.message
    assert (operator.kind, operator.cause) == (kind, cause), found.diagnosis.message
    assert cure in str(found.diagnosis.remedy)


def onnx_scaled(factor: float) -> Callable[[bytes], bytes]:
    def plant(content: bytes) -> bytes:
        proto = onnx.load_from_string(content)
        node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
        item = next(i for i in proto.graph.initializer if i.name == node.input[1])
        value = numpy_helper.to_array(item) * np.float32(factor)
        item.CopyFrom(numpy_helper.from_array(value, item.name))
        made: bytes = proto.SerializeToString()
        return made

    return plant


def onnx_shifted(content: bytes) -> bytes:
    """The zero point with which integers are made, and not the one with which they are read."""
    proto = onnx.load_from_string(content)
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    item = next(i for i in proto.graph.initializer if i.name == node.input[2])
    value = numpy_helper.to_array(item)
    proto.graph.initializer.append(
        numpy_helper.from_array((value + (1 if value < 100 else -1)).astype(value.dtype), "off")
    )
    node.input[2] = "off"
    made: bytes = proto.SerializeToString()
    return made


@pytest.mark.parametrize(
    ("plant", "causes"),
    [
        (onnx_scaled(0.01), {"clipping"}),
        (onnx_scaled(40.0), {"coarse"}),
        (onnx_shifted, {"offset"}),
    ],
    ids=["scale too small", "scale of a fill of -1e9", "zero point off by one"],
)
def test_integers_of_onnx(plant, causes, converted, tmp_path) -> None:
    fault = Fault("", "digits", "numbers", plant, scheme="int8")
    (found,) = explained(*planted(converted["digits"], fault, tmp_path))
    operator = found.diagnosis.operator
    assert operator is not None, found.diagnosis.message
    assert operator.kind in ("QuantizeLinear", "DequantizeLinear")
    assert operator.cause in causes


def test_nothing_stands_out_in_sound_artifacts(converted) -> None:
    compared = 0
    for bundle in converted.values():
        for found in explained(bundle, *bundle.manifest.artifacts):
            if found.verdict != PASS or found.reference is None:
                continue
            label = f"{bundle.path.stem} {found.artifact.label}"
            assert found.diagnosis.operator is None, f"{label}: {found.diagnosis.message}"
            assert "No faults" in found.diagnosis.message, label
            assert found.comparison.unmatched == 0, label
            compared += 1
    assert compared >= 20


def test_the_command_tells_it_in_words_and_in_json(converted, tmp_path) -> None:
    fault = next(f for f in FAULTS if f.name == "int8 scales of the recurrence halved")
    bundle, _ = planted(converted["digits"], fault, tmp_path / "digits.edge")
    asked = [str(bundle.path), "--format", "tflite", "--scheme", "int8", "--explain"]
    result = CliRunner().invoke(command, asked, standalone_mode=False)
    assert result.return_value == 1
    assert "FULLY_CONNECTED" in result.stdout
    assert "edgeattn convert model.h5 --force" in result.stdout
    document = json.loads(CliRunner().invoke(command, [*asked, "--json"]).stdout)
    (told,) = document["explanation"]
    assert told["reference"] == "tflite float32"
    assert told["operator"]["operator"] == "FULLY_CONNECTED"
    assert told["operator"]["cause"] == "weights"
    assert told["worst"][0]["position"] == told["operator"]["position"]


def test_without_the_package_onnx_it_says_what_to_install(converted, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (artifact,) = converted["digits"].select(("onnx",), ("float16",))
    (found,) = explained(converted["digits"], artifact)
    assert found.reference is None
    assert "edgeattn[convert]" in str(found.diagnosis.remedy)
