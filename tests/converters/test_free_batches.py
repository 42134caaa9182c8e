"""Layers of the user that compute something else while the number of samples is not known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters import ConversionOptions, ModelSource, convert
from edgeattn_converters.loading import own_classes
from edgeattn_converters.reference.free_batches import with_known_batch
from edgeattn_converters.tracing.trace import interface_of

STEPS, TAGS = 6, 4
LAYERS = """
import keras
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


@pytest.mark.parametrize("name", only(["Separate", "Noise"], "Separate"))
def test_other_models_have_files_for_any_number(own: Any, name: str) -> None:
    model = model_of(own, name)
    assert own_classes.is_own_class(type(model.get_layer("own")))
    interface, notes = with_known_batch(model, interface_of(model))
    assert interface.batch is None
    assert not notes


@pytest.mark.parametrize("name", only(["Decode", "Scaled"], "Scaled"))
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


NUMBERS = """
import keras
from keras import ops


class Recurrent(keras.layers.Layer):
    # As in the functional guide of Keras.
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.recurrent = self.add_weight(shape=(4, 4), name="recurrent")

    def call(self, x):
        state, outputs = ops.zeros((x.shape[0], 4)), []
        for step in range(x.shape[1]):
            state = ops.tanh(x[:, step] @ self.kernel + state @ self.recurrent)
            outputs.append(state)
        return ops.stack(outputs, axis=1)


class Rows(keras.layers.Layer):
    def call(self, x):
        return ops.stack([ops.sum(x[row], axis=0) for row in range(x.shape[0])])


def build(kind):
    inputs = keras.Input(batch_shape=(4, 6, 3), name="x")
    layer = Rows() if kind == "rows" else Recurrent()
    if kind == "nested":
        inner = keras.Input(batch_shape=(4, 6, 3))
        layer = keras.Model(inner, layer(inner))
    return keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
"""


@pytest.mark.parametrize("kind", only(["layer", "nested", "rows"], "layer"))
def test_programs_that_need_the_number_of_samples(kind: str, tmp_path: Path) -> None:
    """Keras computes them for batches of one size; files compute one sample at a time."""
    (tmp_path / "own.py").write_text(f"{NUMBERS}\nmodel = build({kind!r})\n")
    names: dict[str, Any] = {"__name__": "own"}
    exec(NUMBERS, names)
    model = names["build"](kind)
    model.save_weights(tmp_path / "m.weights.h5")
    x = np.random.default_rng(5).normal(size=(4, STEPS, 3)).astype("float32")
    np.savez(tmp_path / "samples.npz", x=np.concatenate([x] * 20))
    source = ModelSource(
        str(tmp_path / "m.weights.h5"),
        architecture=f"{tmp_path / 'own.py'}:model",
        samples=str(tmp_path / "samples.npz"),
    )
    result = convert(source, tmp_path / "m.edge", options=ConversionOptions(schemes=("float32",)))
    assert result.report.verdict == "pass"
    expected = model.predict(x, batch_size=4, verbose=0)
    for artifact in result.bundle.manifest.artifacts:
        path = result.bundle.artifact_path(artifact)
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        outputs = [next(iter(runner.run({"x": x[k : k + 1]}).values())) for k in range(4)]
        np.testing.assert_allclose(np.concatenate(outputs), expected, rtol=1e-4, atol=1e-5)
