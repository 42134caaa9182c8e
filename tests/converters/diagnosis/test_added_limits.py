"""Diagnosis of integer files whose exponentials read limited values, unlike those of float32."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
import pytest

import models
from edgeattn.diagnosis.results import GraphComparison
from edgeattn.diagnosis.tflite import compare_tflite
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


@pytest.mark.parametrize("scheme", ["int8", pytest.param("int16x8", marks=pytest.mark.long)])
def test_selu_has_no_faulty_operator(scheme: str, tmp_path: Path) -> None:
    """Otherwise, the constant 1 that is subtracted is compared with a factor of 1.76."""
    inputs = keras.Input((7,), name="x")
    hidden = keras.layers.Dense(11, activation="selu")(inputs)
    model = models.filled(keras.Model(inputs, keras.layers.Dense(3, name="y")(hidden)))
    x = np.random.default_rng(5).normal(0, 1, (64, 7)).astype("float32")
    paths = [tmp_path / f"{name}.tflite" for name in ("float32", scheme)]
    convert = functools.partial(tflite.convert, model, interface_of(model), samples={"x": x})
    reference = convert(recipe_for("float32"), paths[0])
    artifact = convert(recipe_for(scheme), paths[1])
    files = {
        name: {
            "path": str(path),
            "inputs": [spec.to_json() for spec in file.inputs],
            "outputs": [spec.to_json() for spec in file.outputs],
        }
        for name, path, file in zip(
            ("reference", "artifact"), paths, (reference, artifact), strict=True
        )
    }
    comparison = GraphComparison.from_json(
        compare_tflite(**files, limit_db=20.0, maps=[], tensors={"x": x[:8]})
    )
    kinds = {operator.kind for operator in comparison.operators}
    assert {"GREATER", "SELECT_V2"} & kinds
    assert "EXP" not in kinds
    assert comparison.unmatched == 4  # MINIMUM, EXP, SUB and MUL
    causes = {operator.cause for operator in comparison.operators}
    assert not causes & {"weights", "attributes", "offset", "unexplained"}
