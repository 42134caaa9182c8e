"""Classes that build a ``Sequential`` whose first layer is an ``Embedding`` in their ``build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OWN = """
import keras

def parts():
    return [{parts}]

@keras.saving.register_keras_serializable()
class Encoder(keras.layers.Layer):
    def __init__(self, **named):
        super().__init__(**named)
        self.model = keras.Sequential(parts())

    def build(self, input_shape):
        self.model.build({shape})

    def call(self, x):
        return self.model(x)

@keras.saving.register_keras_serializable()
class Net(keras.Model):
    def __init__(self, **named):
        super().__init__(**named)
        self.query = {query}
        self.out = keras.layers.Dense(4)

    def build(self, input_shape):
        self.query.build({shape})
        self.out.build((None, 8))
        super().build(input_shape)

    def call(self, inputs, training=False):
        return self.out(self.query(inputs))

    def get_config(self):
        return {{}}

def build():
    return Net()
"""
RECURRENT = "keras.layers.Embedding(61, 8), keras.layers.GRU(8)"
KINDS = {
    "recurrent": (RECURRENT, "input_shape", "keras.Sequential(parts())"),
    "pooled": (
        "keras.layers.Embedding(61, 8), keras.layers.Conv1D(8, 3), "
        "keras.layers.GlobalMaxPooling1D()",
        "input_shape",
        "keras.Sequential(parts())",
    ),
    "list": (RECURRENT, "list(input_shape)", "keras.Sequential(parts())"),
    "layer": (RECURRENT, "input_shape", "Encoder()"),
}
TOKENS = np.random.default_rng(1).integers(0, 61, (5, 10)).astype("int32")


@pytest.mark.parametrize("name", only(["w.weights.h5", "m.keras"], "w.weights.h5"))
@pytest.mark.parametrize("kind", only(KINDS, "recurrent", "layer"))
def test_models_with_the_shape_of_samples(kind: str, name: str, tmp_path: Path) -> None:
    parts, shape, query = KINDS[kind]
    (tmp_path / "own.py").write_text(OWN.format(parts=parts, shape=shape, query=query))
    names: dict[str, Any] = {"__name__": "own"}
    exec((tmp_path / "own.py").read_text(), names)
    model = names["build"]()
    expected = model.predict(TOKENS, verbose=0)
    np.savez(tmp_path / "samples.npz", inputs=TOKENS)
    given: dict[str, Any] = {"samples": tmp_path / "samples.npz"}
    if name == "w.weights.h5":
        model.save_weights(tmp_path / name)
        given["architecture"] = f"{tmp_path / 'own.py'}:build"
    else:
        model.save(tmp_path / name)
        given["custom_objects"] = tmp_path / "own.py"
    loaded = load_model(audit_file(tmp_path / name), **given)
    np.testing.assert_allclose(loaded.model(TOKENS), expected, rtol=1e-5, atol=1e-6)


def test_other_shapes_do_not_fit(tmp_path: Path) -> None:
    """A model that was built with eight steps is not built again with ten."""
    parts = f"keras.Input((8,)), {RECURRENT}"
    text = OWN.format(parts=parts, shape="input_shape", query="keras.Sequential(parts())")
    (tmp_path / "own.py").write_text(text)
    keras.Sequential(
        [keras.Input((8,)), keras.layers.Embedding(61, 8), keras.layers.GRU(8)]
    ).save_weights(tmp_path / "w.weights.h5")
    np.savez(tmp_path / "samples.npz", inputs=TOKENS)
    with pytest.raises(UnsupportedModelError, match="already been configured to use input shape"):
        load_model(
            audit_file(tmp_path / "w.weights.h5"),
            architecture=f"{tmp_path / 'own.py'}:build",
            samples=tmp_path / "samples.npz",
        )
