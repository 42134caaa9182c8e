"""Integer files of models without weights: right, or refused if no operator computes in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import CONVERTERS

from edgeattn.errors import SchemeError
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


def _attention() -> Any:
    query, value = keras.Input((5, 4), name="query"), keras.Input((6, 4), name="value")
    outputs = layers.Attention()([query, value], return_attention_scores=True)
    return keras.Model([query, value], list(outputs))


def _weighted_sum() -> Any:
    scores, values = keras.Input((6, 1), name="scores"), keras.Input((6, 4), name="values")
    weights = layers.Softmax(axis=1)(scores)
    return keras.Model([scores, values], layers.Dot(axes=1)([weights, values]))


def _pooled_head() -> Any:
    inputs = keras.Input((5, 4), name="x")
    return keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling1D()(inputs)))


def _maximum() -> Any:
    inputs = keras.Input((6, 4), name="x")
    return keras.Model(inputs, layers.MaxPooling1D(2)(inputs))


def _similarity() -> Any:
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    return keras.Model([a, b], layers.Dot(axes=1, normalize=True)([a, b]))


def _merge() -> Any:
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    return keras.Model([a, b], layers.Multiply()([layers.Add()([a, b]), a]))


MODELS = {
    "attention": _attention,
    "weighted sum": _weighted_sum,
    "pooled head": _pooled_head,
    "maximum": _maximum,
    "similarity": _similarity,
    "merge": _merge,
}
# onnxruntime has no integer operators for these.
REFUSED = {("pooled head", "onnx"), ("maximum", "onnx")}


@pytest.mark.parametrize(
    "case",
    only(
        [(kind, format) for kind in MODELS for format in sorted(CONVERTERS)],
        *REFUSED,
        *[("attention", "onnx"), ("weighted sum", "tflite"), ("maximum", "tflite")],
        *[("similarity", "onnx"), ("merge", "tflite"), ("pooled head", "tflite")],
    ),
    ids="-".join,
)
def test_int8_is_right_or_refused(case: tuple[str, str], tmp_path: Path) -> None:
    kind, format = case
    model = MODELS[kind]()
    assert not model.weights
    interface, generator = interface_of(model), np.random.default_rng(1)
    samples = {
        spec.name: generator.normal(size=(64, *spec.shape[1:])).astype("float32")
        for spec in interface.inputs
    }
    path = tmp_path / "model"
    convert = CONVERTERS[format].convert
    if (kind, format) in REFUSED:
        with pytest.raises(SchemeError, match="no operator computes in int8"):
            convert(model, interface, recipe_for("int8"), path, samples=samples)
        assert not path.exists()
        return
    file = convert(model, interface, recipe_for("int8"), path, samples=samples)
    assert file.achieved["computes_in"]["int8"]
    actual = open_runner(path, format, file.inputs, file.outputs, as_deployed=True).run(samples)
    expected = model.predict(samples, verbose=0)
    expected = expected if isinstance(expected, list) else [expected]
    for spec, value in zip(interface.outputs, expected, strict=True):
        assert metrics.snr_db(value, actual[spec.name]) > 25
