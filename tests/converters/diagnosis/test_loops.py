"""A fault in the steps of a loop, which is one operator from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import models
from edgeattn.diagnosis.measure import measure
from edgeattn.diagnosis.tflite import InstrumentedTFLite
from edgeattn_converters.formats import tflite
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


def halved(content: bytes) -> bytes:
    """The scales of the first int8 weights that only a loop has."""
    file = TFLiteFile(content)
    body = next(
        graph
        for graph in file.model.subgraphs[1:]
        if any(file.dtype(t) == "INT8" and file.constant(t) is not None for t in graph.tensors)
    )
    weights = next(t for t in body.tensors if file.dtype(t) == "INT8")
    weights.quantization.scale = np.array(weights.quantization.scale) / 2
    return file.pack()


def test_the_operator_in_the_body_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((40, 16), name="x")
    states = keras.layers.LSTM(24, return_sequences=True, name="memory")(inputs)
    vector = models.Attention(5, name="look")(states)
    model = models.filled(keras.Model(inputs, keras.layers.Dense(2, name="y")(vector)), scale=0.2)
    interface = interface_of(model)
    made: dict[str, Any] = {}
    for scheme in ("float32", "dynamic_int8"):
        path = tmp_path / f"{scheme}.tflite"
        ends = tflite.convert(
            model,
            interface,
            recipe_for(scheme),
            path,
            options=ConversionOptions(lowering="chunked"),
        )
        made[scheme] = (path, *ends[:2])
    assert TFLiteFile(made["float32"][0].read_bytes()).model.subgraphs[1:]
    x = {"x": np.random.default_rng(1).normal(0, 1, (3, 40, 16)).astype("float32")}
    right = InstrumentedTFLite(*made["float32"])
    sound = measure(right, InstrumentedTFLite(*made["dynamic_int8"]), x, 30.0)
    assert [item.cause for item in sound.operators if item.cause] == []
    assert sound.unmatched == 0
    path, *ends = made["dynamic_int8"]
    path.write_bytes(halved(path.read_bytes()))
    found = measure(right, InstrumentedTFLite(path, *ends), x, 30.0)
    first = next(item for item in found.operators if item.cause)
    assert (first.kind, first.cause) == ("WHILE", "weights")
    assert "FULLY_CONNECTED" in first.name
