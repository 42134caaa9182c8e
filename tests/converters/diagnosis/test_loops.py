"""A fault inside a loop, which is a single operator of the main graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import models
from edgeattn.diagnosis.comparison import compare_models
from edgeattn.diagnosis.tflite import InstrumentedTFLite
from edgeattn_converters.formats import tflite
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


def with_halved_scales(content: bytes) -> bytes:
    """Halve the scales of the first int8 weights that only a loop body has."""
    file = TFLiteFile(content)
    body = next(
        graph
        for graph in file.model.subgraphs[1:]
        if any(file.dtype(t) == "INT8" and file.constant(t) is not None for t in graph.tensors)
    )
    weights = next(t for t in body.tensors if file.dtype(t) == "INT8")
    weights.quantization.scale = np.array(weights.quantization.scale) / 2
    return file.pack()


def test_operator_in_a_loop_body_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((40, 16), name="x")
    states = keras.layers.LSTM(24, return_sequences=True, name="memory")(inputs)
    vector = models.Attention(5, name="look")(states)
    model = models.filled(keras.Model(inputs, keras.layers.Dense(2, name="y")(vector)), scale=0.2)
    interface = interface_of(model)
    files: dict[str, Any] = {}
    for scheme in ("float32", "dynamic_int8"):
        path = tmp_path / f"{scheme}.tflite"
        options = ConversionOptions(lowering="chunked")
        specs = tflite.convert(model, interface, recipe_for(scheme), path, options=options)
        files[scheme] = (path, *specs[:2])
    assert TFLiteFile(files["float32"][0].read_bytes()).model.subgraphs[1:]
    samples = {"x": np.random.default_rng(1).normal(0, 1, (3, 40, 16)).astype("float32")}
    reference = InstrumentedTFLite(*files["float32"])
    correct = compare_models(reference, InstrumentedTFLite(*files["dynamic_int8"]), samples, 30.0)
    assert [operator.cause for operator in correct.operators if operator.cause] == []
    assert correct.unmatched == 0
    path, *specs = files["dynamic_int8"]
    path.write_bytes(with_halved_scales(path.read_bytes()))
    faulty = compare_models(reference, InstrumentedTFLite(path, *specs), samples, 30.0)
    first = next(operator for operator in faulty.operators if operator.cause)
    assert (first.kind, first.cause) == ("WHILE", "weights")
    assert "BATCH_MATMUL" in first.name
