"""Conversions of subclassed models with attention layers, which have no ``inputs`` in Keras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing.trace import interface_of

STEPS, WORDS = 7, 16
CLASSES = """
import keras
from keras import layers, ops


class Text(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.embedding = layers.Embedding(16, 8)
        self.attention = layers.MultiHeadAttention(2, 4)
        self.dense = layers.Dense(3)

    def call(self, words, training=False):
        hidden = self.embedding(words)
        return self.dense(ops.mean(self.attention(hidden, hidden), 1))


class Encoder(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.recurrent = layers.LSTM(4, return_sequences=True)
        self.attention = layers.Attention(use_scale=True)

    def call(self, series):
        hidden = self.recurrent(series)
        return self.attention([hidden, hidden])


class Nested(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.encoder = Encoder()
        self.pooling = layers.GlobalAveragePooling1D()
        self.dense = layers.Dense(2)

    def call(self, series):
        return self.dense(self.pooling(self.encoder(series)))


class Pair(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.attention = layers.AdditiveAttention()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        query, value = inputs
        return {"context": self.dense(self.attention([query, value]))}
"""


@pytest.fixture(params=["Text", "Nested", "Pair"])
def subclassed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """A model that is saved as ``model.keras`` beside ``samples.npz``, and the samples."""
    classes: dict[str, Any] = {"__name__": "classes"}
    exec(CLASSES, classes)
    generator = np.random.default_rng(2)
    series = generator.normal(0, 1, (12, STEPS, 4)).astype("float32")
    samples: dict[str, Any] = {
        "Text": {"words": generator.integers(0, WORDS, (12, STEPS)).astype("int32")},
        "Nested": {"series": series},
        "Pair": {"query": series[:, :5], "value": series[:, ::-1]},
    }[request.param]
    model = classes[request.param]()
    arrays = list(samples.values())
    model(arrays[0] if len(arrays) == 1 else arrays)
    model.set_weights([generator.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    (tmp_path / "classes.py").write_text(CLASSES)
    np.savez(tmp_path / "samples.npz", **samples)
    model.save(tmp_path / "model.keras")
    return model, samples


def test_generated_samples(subclassed: Any, tmp_path: Path) -> None:
    """They follow from the layers that use an input, none of which is known inside a class."""
    _, samples = subclassed
    loaded = load_model(
        audit_file(tmp_path / "model.keras"),
        custom_objects=tmp_path / "classes.py",
        samples=tmp_path / "samples.npz",
    ).model
    inputs = plausible_inputs(loaded, interface_of(loaded), np.random.default_rng(0))
    shapes = {name: array.shape[1:] for name, array in inputs.items()}
    assert shapes == {name: array.shape[1:] for name, array in samples.items()}
    if "words" in samples:
        assert set(np.unique(inputs["words"])) <= set(range(WORDS))


@pytest.mark.long
def test_conversion(subclassed: Any, edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    from edgeattn import load

    model, samples = subclassed
    options = ("--custom-objects", "classes.py")
    inspected = edgeattn("inspect", "model.keras", *options)
    assert inspected.code == 0, inspected.err
    assert "converts to tflite: yes" in inspected.out
    result = edgeattn(
        *("convert", "model.keras", *options, "--samples", "samples.npz"),
        *("--scheme", "float32", "--output", "model.edge"),
    )
    assert result.code == 0, result.err
    arrays = list(samples.values())
    expected = model(arrays[0] if len(arrays) == 1 else arrays)
    expected = np.asarray(next(iter(keras.tree.flatten(expected))))
    for format in ("tflite", "onnx"):
        converted = load(tmp_path / "model.edge", format=format)
        for row in range(4):
            outputs = converted.predict({k: array[row : row + 1] for k, array in samples.items()})
            actual = next(iter(outputs.values()))
            np.testing.assert_allclose(actual[0], expected[row], rtol=1e-4, atol=1e-5)
