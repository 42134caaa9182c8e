"""The class of all layers as a layer: Keras 2 returned its inputs, to give an output a name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from edgeattn.errors import EdgeattnError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

G = np.random.default_rng(3)
X = G.normal(size=(5, 6, 4)).astype("float32")


def model(kind: str) -> Any:
    layers = tf_keras.layers
    x = tf_keras.Input((6, 4), name="x")
    if kind == "nested":
        inner = tf_keras.Sequential([tf_keras.Input((6, 4)), layers.Layer(), layers.Dense(4)])
        h = inner(x)
    elif kind == "over_time":
        h = layers.TimeDistributed(layers.Layer())(x)
    else:
        h = layers.Layer()(x)
    gate = layers.Layer(name="gate")(layers.Dense(3, activation="softmax")(layers.LSTM(5)(h)))
    result = tf_keras.Model(x, [gate, layers.Dense(2)(gate)])
    result.set_weights([G.normal(0, 0.7, w.shape) for w in result.get_weights()])
    return result


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("kind", ["model", "nested", "over_time"])
def test_outputs_are_the_inputs(kind: str, suffix: str, tmp_path: Path) -> None:
    saved, path = model(kind), tmp_path / f"m{suffix}"
    saved.save(path)
    loaded = load_model(audit_file(path)).model
    for actual, expected in zip(loaded(X), saved(X), strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert loaded.outputs[0]._keras_history.operation.name == "gate"


class Layer(keras.layers.Layer):  # type: ignore[misc]
    """A class of the user with this name, which computes something else."""

    def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return self.factor * x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_an_own_class_of_this_name_is_needed(suffix: str, tmp_path: Path) -> None:
    x = keras.Input((4,))
    keras.Model(x, Layer(name="own")(x)).save(tmp_path / f"m{suffix}")
    with pytest.raises(EdgeattnError, match="'own' needs the class 'Layer'"):
        load_model(audit_file(tmp_path / f"m{suffix}"))


def test_keras_3_computes_no_base_layer(tmp_path: Path) -> None:
    """A file that was written so by hand."""
    path = tmp_path / "m.keras"
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Identity(name="own")(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"Identity"', b'"Layer"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(EdgeattnError, match="call"):
        load_model(audit_file(path))
