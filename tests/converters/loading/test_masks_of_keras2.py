"""Masks in files of Keras 2: where they end, how they are combined, and beside initial states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only
from tf_keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}


def states_of(x: Any, kind: str) -> list[Any]:
    return getattr(layers, kind)(4, return_state=True)(x)[1:]


def bidirectional(x: Any) -> Any:
    encoder = layers.Bidirectional(layers.LSTM(2, return_state=True))
    decoder = layers.Bidirectional(layers.LSTM(2, return_sequences=True))
    return decoder(x, initial_state=encoder(x)[1:])


# Of a masked sequence and one without a mask.
MODELS: Mapping[str, Callable[[Any, Any], Any]] = {
    **{
        f"{kind} with initial states": lambda x, y, kind=kind: getattr(layers, kind)(
            4, return_sequences=True
        )(x, initial_state=states_of(x, kind))
        for kind in ("LSTM", "GRU", "SimpleRNN")
    },
    "Bidirectional with initial states": lambda x, y: bidirectional(x),
    "initial states without a mask": lambda x, y: layers.GRU(4)(
        y, initial_state=states_of(x, "GRU")
    ),
    "attention of a decoder": lambda x, y: layers.Concatenate()(
        [x, layers.AdditiveAttention()([layers.LSTM(4, return_sequences=True)(
            x, initial_state=states_of(x, "LSTM")), x])]
    ),
    **{
        kind: lambda x, y, kind=kind: layers.GlobalAveragePooling1D()(
            getattr(layers, kind)()([x, y])
        )
        for kind in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    "two masks": lambda x, y: layers.GlobalAveragePooling1D()(
        layers.Add()([x, layers.Masking()(x - 0.25), y])
    ),
    "Identity": lambda x, y: layers.GlobalAveragePooling1D()(layers.Identity()(x)),
    "Lambda": lambda x, y: layers.GlobalAveragePooling1D()(layers.Lambda(lambda t: t)(x)),
    "Rescaling": lambda x, y: layers.GlobalAveragePooling1D()(layers.Rescaling(2.0, 1.0)(x)),
    "Rescaling of features": lambda x, y: layers.GlobalAveragePooling1D()(
        layers.Rescaling([2.0, 1.0, 0.5, 3.0])(x)
    ),
}  # fmt: skip


def build(names: list[str], path: Path) -> tuple[Any, np.ndarray, list[np.ndarray]]:
    """Save a model with these outputs; return it loaded, samples and what tf_keras computes."""
    tokens = tf_keras.Input((6,), dtype="int32", name="tokens")
    masked = layers.Embedding(9, 4, mask_zero=True)(tokens)
    plain = layers.Embedding(9, 4)(tokens)
    model = tf_keras.Model(tokens, [MODELS[name](masked, plain) for name in names])
    generator = np.random.default_rng(6)
    for weight in model.weights:
        weight.assign(generator.normal(0, 0.5, weight.shape))
    model.save(path)
    samples = generator.integers(1, 9, (4, 6)).astype("int32")
    for row, length in enumerate((2, 6, 4, 1)):
        samples[row, length:] = 0
    expected = model.predict(samples, verbose=0)
    return load_model(audit_file(path)), samples, expected


@pytest.mark.long
def test_masks_are_those_of_keras_2(tmp_path: Path) -> None:
    loaded, samples, expected = build(list(MODELS), tmp_path / "model.h5")
    actual = loaded.model.predict(samples, verbose=0)
    for name, value, result in zip(MODELS, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_rows_that_are_masked_throughout(tmp_path: Path) -> None:
    """Equal weights, as in Keras 2, and not zeros, as in Keras 3."""
    scores = tf_keras.Input((3, 4), name="scores")
    keep = tf_keras.Input((3, 4), dtype="bool", name="keep")
    weights = {
        "last": layers.Softmax(name="last")(scores, mask=keep),
        "first": layers.Softmax(axis=1, name="first")(scores, mask=keep),
        "both": layers.Softmax(axis=(1, 2), name="both")(scores, mask=keep),
        "attention": layers.MultiHeadAttention(2, 3, name="attention")(
            scores, scores, attention_mask=keep[:, :, :3]
        ),
    }
    model = tf_keras.Model([scores, keep], list(weights.values()))
    model.save(tmp_path / "model.h5")
    generator = np.random.default_rng(6)
    inputs = {
        "scores": generator.normal(size=(5, 3, 4)).astype("float32"),
        "keep": generator.random((5, 3, 4)) < 0.6,
    }
    inputs["keep"][0] = False
    inputs["keep"][1, 0] = False
    inputs["keep"][2, :, 1] = False
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(expected[0][0], 0.25)
    loaded = load_model(audit_file(tmp_path / "model.h5"))
    actual = loaded.model.predict(list(inputs.values()), verbose=0)
    for name, value, result in zip(weights, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert any("Softmax treats masks as in tf_keras" in note for note in loaded.notes)


@pytest.mark.long
@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_masks_beside_states_convert(format: str, tmp_path: Path) -> None:
    names = ["LSTM with initial states", "attention of a decoder", "Add"]
    loaded, samples, expected = build(names, tmp_path / "model.h5")
    interface = interface_of(loaded.model)
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(loaded.model, interface, recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"tokens": samples})
    for spec, value in zip(interface.outputs, expected, strict=True):
        np.testing.assert_allclose(actual[spec.name], value, rtol=1e-4, atol=1e-5)
