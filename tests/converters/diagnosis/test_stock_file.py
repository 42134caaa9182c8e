"""``--explain`` of a file that TensorFlow's own converter wrote, with interchanged operands."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import sha256, write_manifest
from edgeattn.diagnosis.diagnose import ArtifactDiagnosis, diagnose
from edgeattn.runners import open_runner
from edgeattn.validation.artifact import validate_artifact
from edgeattn_converters import ConversionOptions, convert
from edgeattn_converters.formats import tflite, tflite_float
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "reciprocal": lambda t: 1.0 / (t + 1.0),
    "SUB": lambda t: 1.0 - t,
    "twice": lambda t: 2.0 / (t + 1.0),
}


def bundle_with_stock_file(kind: str, schemes: tuple[str, ...], folder: Path) -> Bundle:
    """A bundle whose float32 TFLite file is written without our lowering."""
    inputs = keras.Input((4, 3), name="x")
    hidden = keras.layers.Dense(5, activation="sigmoid", name="hidden")(inputs)
    moved = FUNCTIONS[kind](keras.layers.Permute((2, 1))(hidden))
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(moved))
    model.save(folder / "m.keras")
    options = ConversionOptions(schemes=schemes)
    bundle = convert(folder / "m.keras", folder / "m.edge", options=options).bundle
    (artifact,) = bundle.select(("tflite",), ("float32",))
    path = bundle.artifact_path(artifact)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite_float, "ordered_constants", contextlib.nullcontext)
        tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    faulty = replace(artifact, sha256=sha256(path))
    artifacts = tuple(faulty if a == artifact else a for a in bundle.manifest.artifacts)
    bundle = Bundle(bundle.path, replace(bundle.manifest, artifacts=artifacts))
    write_manifest(bundle.path, bundle.manifest)
    return bundle


def diagnosis_of_tflite(bundle: Bundle) -> ArtifactDiagnosis:
    reference = bundle.reference()

    def validated(item: Any) -> Any:
        return validate_artifact(
            bundle,
            item,
            reference,
            lambda a: open_runner(
                bundle.artifact_path(a), a.format, a.inputs, a.outputs, as_deployed=True
            ),
        )

    (artifact,) = bundle.select(("tflite",), ("float32",))
    (result,) = diagnose(bundle, [validated(artifact)], validate=validated)
    return result


@pytest.mark.parametrize(
    ("kind", "schemes", "reference"),
    [
        ("SUB", ("float32",), "onnx float32"),
        pytest.param("SUB", ("float32", "float16"), "tflite float16", marks=pytest.mark.long),
    ],
)
def test_operator_with_interchanged_operands_is_named(
    kind: str, schemes: tuple[str, ...], reference: str, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    result = diagnosis_of_tflite(bundle_with_stock_file(kind, schemes, tmp_path))
    assert result.verdict == "fail"
    assert result.reference == reference
    operator = result.diagnosis.operator
    assert operator is not None, result.diagnosis.message
    assert operator.kind == kind, result.diagnosis.message
    if reference.startswith("onnx"):
        assert "Its operands are interchanged" in result.diagnosis.message
    assert kind in json.dumps(result.to_json())
    assert np.isfinite(operator.accumulated_db)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "operator"),
    [("reciprocal", "Reciprocal"), ("twice", "Div")],
)
def test_operator_that_the_converter_dropped_is_named(
    kind: str, operator: str, tmp_path: Path
) -> None:
    """``c / transpose(x)`` becomes ``transpose(x / c)``, which is no division but a product."""
    bundle = bundle_with_stock_file(kind, ("float32",), tmp_path)
    result = diagnosis_of_tflite(bundle)
    message = result.diagnosis.message
    assert f"onnx float32 applies {operator} " in message
    assert "which the file lacks" in message
