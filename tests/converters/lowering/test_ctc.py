"""Greedy decoding of CTC scores, compared with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS, LABELS = 9, 4


def of_keras(**options: Any) -> Callable[[Any, Any], Any]:
    def decode(x: Any, lengths: Any) -> Any:
        labels, scores = ops.ctc_decode(x, lengths, strategy="greedy", **options)
        return labels[0], scores

    return decode


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "first label is blank": of_keras(),
    "last label is blank": of_keras(mask_index=LABELS - 1),
    "blank from the end": of_keras(mask_index=-2),
    "with repeated ones": of_keras(mask_index=1, merge_repeated=False),
    "backend of Keras 2": lambda x, lengths: [
        item[0] if isinstance(item, list) else item
        for item in tf_keras.backend.ctc_decode(tf.nn.softmax(x), lengths)
    ],
}


class Decoders(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, functions: dict[str, Callable[[Any, Any], Any]]) -> None:
        super().__init__()
        self.functions = functions

    def call(self, x: Any, lengths: Any) -> Any:
        found = {name: function(x, lengths) for name, function in self.functions.items()}
        return {
            f"{name} {kind}": value
            for name, pair in found.items()
            for kind, value in zip(("labels", "scores"), pair, strict=True)
        }

    def compute_output_spec(self, x: Any, lengths: Any) -> Any:
        return {
            f"{name} {kind}": keras.KerasTensor((None, size), dtype)
            for name in self.functions
            for kind, size, dtype in (("labels", STEPS, "int32"), ("scores", 1, "float32"))
        }


def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Random scores, of all and of some steps, of repeated labels, and of each label only."""
    random = np.random.default_rng(3)
    scores = [random.normal(size=(STEPS, LABELS)) for _ in range(3)]
    scores.append(np.eye(LABELS)[[1, 1, 0, 1, 2, 2, 3, 3, 2]])
    scores.extend(np.eye(LABELS)[[label] * STEPS] for label in range(LABELS))
    lengths = [STEPS, 5, 0, *[STEPS] * (LABELS + 1)]
    return [
        (score[None].astype("float32"), np.array([length], "int32"))
        for score, length in zip(scores, lengths, strict=True)
    ]


def model_of(functions: dict[str, Callable[[Any, Any], Any]]) -> Any:
    x = keras.Input((STEPS, LABELS), name="x")
    lengths = keras.Input((), dtype="int32", name="lengths")
    return keras.Model([x, lengths], Decoders(functions)(x, lengths))


def check(model: Any, original: Callable[..., Any], format: str, path: Path) -> None:
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    for x, lengths in samples():
        actual = runner.run({"x": x, "lengths": lengths})
        for name, expected in original([x, lengths]).items():
            np.testing.assert_allclose(actual[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_labels_and_scores(format: str, tmp_path: Path) -> None:
    model = model_of(FUNCTIONS)
    check(model, model, format, tmp_path / "m")


@pytest.mark.parametrize("format", CONVERTERS)
def test_operations_of_a_file(format: str, tmp_path: Path) -> None:
    x = keras.Input((STEPS, LABELS), name="x")
    lengths = keras.Input((), dtype="int32", name="lengths")
    labels, scores = ops.ctc_decode(keras.layers.Dense(LABELS)(x), lengths)
    model = keras.Model([x, lengths], {"labels": labels[0], "scores": scores})
    model.save(tmp_path / "m.keras")
    check(load_model(audit_file(tmp_path / "m.keras")).model, model, format, tmp_path / "m")


def test_samples_of_a_batch(tmp_path: Path) -> None:
    """ONNX files have a free batch axis; the samples have different numbers of labels."""
    model = model_of({"y": of_keras()})
    path = tmp_path / "m.onnx"
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), path)
    x, lengths = (np.concatenate(values) for values in zip(*samples(), strict=True))
    actual = open_runner(path, "onnx", file.inputs, file.outputs).run({"x": x, "lengths": lengths})
    for name, expected in model([x, lengths]).items():
        np.testing.assert_allclose(actual[name], expected, atol=1e-5, err_msg=name)
