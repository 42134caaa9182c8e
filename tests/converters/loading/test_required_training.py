"""Subclassed models whose ``call`` has ``training`` without a default, which ``predict`` passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OWN = """
import keras

@keras.saving.register_keras_serializable()
class Net(keras.Model):
    def __init__(self, **named):
        super().__init__(**named)
        self.lstm = keras.layers.LSTM(8)
        self.drop = keras.layers.Dropout(0.5)
        self.out = keras.layers.Dense(3)

    def call(self, {arguments}):
        {line}
        return self.out(self.drop(self.lstm(x), training=training))

    def get_config(self):
        return {{}}

def build():
    return Net()
"""
CALLS = {
    "one": ("x, training", "pass"),
    "keyword": ("x, *, training", "pass"),
    "list": ("inputs, training", "a, b = inputs; x = a + b"),
    "dictionary": ("inputs, training", "x = inputs['a'] + inputs['b']"),
    "mask": ("x, training, mask=None", "pass"),
}


@pytest.mark.parametrize("name", only(["w.weights.h5", "m.keras"], "w.weights.h5"))
@pytest.mark.parametrize("kind", only(CALLS, "one", "list"))
def test_models_compute_without_training(kind: str, name: str, tmp_path: Path) -> None:
    arguments, line = CALLS[kind]
    (tmp_path / "own.py").write_text(OWN.format(arguments=arguments, line=line))
    names: dict[str, Any] = {"__name__": "own"}
    exec((tmp_path / "own.py").read_text(), names)
    model = names["build"]()
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 10, 4)).astype("float32")
    inputs = {"list": [a, b], "dictionary": {"a": a, "b": b}}.get(kind, a)
    expected = model.predict(inputs, verbose=0)
    samples = {"a": a, "b": b} if kind in ("list", "dictionary") else {"x": a}
    np.savez(tmp_path / "samples.npz", **samples)
    if name == "w.weights.h5":
        model.save_weights(tmp_path / name)
        given = {"architecture": f"{tmp_path / 'own.py'}:build"}
    else:
        model.save(tmp_path / name)
        given = {"custom_objects": tmp_path / "own.py"}
    loaded = load_model(audit_file(tmp_path / name), samples=tmp_path / "samples.npz", **given)
    flat = [samples[key] for key in sorted(samples)]
    actual = loaded.model(keras.tree.pack_sequence_as(loaded.model._inputs_struct, flat))
    np.testing.assert_allclose(keras.tree.flatten(actual)[0], expected, rtol=1e-5, atol=1e-6)
