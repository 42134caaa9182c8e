"""Layers of the user that compute something else while the number of samples is not known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters import ConversionOptions, ModelSource, convert
from edgeattn_converters.loading.own_code import own_classes
from edgeattn_converters.reference.free_batches import with_known_batch
from edgeattn_converters.tracing.trace import interface_of

STEPS, TAGS = 6, 4
LAYERS = """
import keras
import tensorflow as tf
from keras import ops


class Decode(keras.layers.Layer):
    # As the CRF of keras3-crf: the shape alone matters while Keras infers it.
    def call(self, x):
        if any(size is None for size in x.shape):
            return ops.argmax(x, axis=-1)
        return ops.argmin(x, axis=-1)

    def compute_output_shape(self, shape):
        return shape[:-1]


class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * (2.0 if x.shape[0] is None else 3.0)


class Reshaped(keras.layers.Layer):
    # Which fits any number while it is free, but is that of inference in the program.
    def call(self, x):
        return x * ops.tanh(ops.reshape(x, (1, x.shape[1], x.shape[2])))


class Joined(keras.layers.Layer):
    def call(self, x):
        return x + ops.concatenate([x, ops.ones((1, x.shape[1], 1))], axis=-1)[..., 1:]


class Squeezed(keras.layers.Layer):
    def call(self, x):
        return x * tf.squeeze(x, 0)[None]


class Separate(keras.layers.Layer):
    def call(self, x):
        count = ops.shape(x)[0] if x.shape[0] is None else x.shape[0]
        return ops.reshape(x, (count, x.shape[1] * x.shape[2]))


class Noise(keras.layers.Layer):
    def build(self, shape):
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.generator)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "free_batch_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("free_batch_layers")
    del sys.modules["free_batch_layers"]


def model_of(own: Any, name: str) -> Any:
    x = keras.Input((STEPS, 3), name="x")
    h = keras.layers.Dense(TAGS, name="scores", bias_initializer="normal")(x)
    if name == "nested":
        a = keras.Input((STEPS, TAGS))
        y = keras.Model(a, own.Scaled()(a), name="inner")(h)
    elif name == "Lambda":
        y = keras.layers.Lambda(lambda t: t * (2.0 if t.shape[0] is None else 3.0))(h)
    else:
        y = getattr(own, name)(name="own")(h)
    return keras.Model(x, {"y": y, "h": h})


def samples() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(40, STEPS, 3)).astype("float32")


@pytest.mark.parametrize("name", ["Decode", "Scaled", "nested", "Lambda"])
def test_the_number_of_samples_is_one(own: Any, name: str) -> None:
    model = model_of(own, name)
    interface, (note,) = with_known_batch(model, interface_of(model))
    assert interface.batch == 1
    assert "'y' has other values" in note


@pytest.mark.parametrize("name", ["Reshaped", "Joined", "Squeezed"])
def test_layers_of_one_sample(own: Any, name: str) -> None:
    """Keras computes no others, although it builds the model for any number."""
    model = model_of(own, name)
    with pytest.raises((ValueError, tf.errors.OpError)):
        model.predict(samples()[:2], verbose=0)
    interface, (note,) = with_known_batch(model, interface_of(model))
    assert interface.batch == 1
    assert note.startswith("Keras computes single samples only")


@pytest.mark.parametrize("name", only(["Separate", "Noise"], "Separate"))
def test_other_models_have_files_for_any_number(own: Any, name: str) -> None:
    model = model_of(own, name)
    assert own_classes.is_own_class(type(model.get_layer("own")))
    interface, notes = with_known_batch(model, interface_of(model))
    assert interface.batch is None
    assert not notes


@pytest.mark.parametrize(
    "name", only(["Decode", "Scaled", "Reshaped", "Joined"], "Scaled", "Reshaped")
)
def test_files_compute_as_keras_does_for_known_numbers(own: Any, name: str, tmp_path: Path) -> None:
    model = model_of(own, name)
    model.save(tmp_path / "m.keras")
    x = samples()
    np.savez(tmp_path / "x.npz", x=x)
    source = ModelSource(
        str(tmp_path / "m.keras"),
        custom_objects=str(tmp_path / "free_batch_layers.py"),
        samples=str(tmp_path / "x.npz"),
    )
    result = convert(source, tmp_path / "m.edge", options=ConversionOptions(schemes=("float32",)))
    assert result.report.verdict == "pass"
    for artifact in result.bundle.manifest.artifacts:
        path = result.bundle.artifact_path(artifact)
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        for sample in x[:8]:
            expected = model(sample[None])["y"]
            actual = runner.run({"x": sample[None]})["y"]
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
