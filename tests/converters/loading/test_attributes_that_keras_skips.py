"""Classes with layers in an attribute that Keras 3 does not save, such as ``self._layers``."""

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


@keras.saving.register_keras_serializable()
class Block(keras.layers.Layer):
    def __init__(self, units, **named):
        super().__init__(**named)
        self.units = units
        {in_init}

    def build(self, shape):
        {in_build}
        super().build(shape)

    def call(self, x):
        for layer in self.{attribute}:
            x = layer(x)
        return x

    def get_config(self):
        return {{**super().get_config(), "units": self.units}}


def build():
    x = keras.Input((8,))
    y = keras.layers.BatchNormalization()(keras.layers.Dense(8)(x))
    return keras.Model(x, keras.layers.Dense(3)(Block(8)(y)))
"""
LISTS = {
    "built": "[keras.layers.Dense(self.units), keras.layers.BatchNormalization()]",
    "named": "[keras.layers.Dense(self.units, name='dense')]",
    "fewer": "[keras.layers.Dense(self.units, use_bias=False, name='dense')]",
    "first": "[keras.layers.Dense(self.units)]",
}


def saved(kind: str, attribute: str, path: Path) -> Any:
    """Save a model, in which the layers of the class may have the names of other layers."""
    line = f"self.{attribute} = {LISTS[kind]}"
    lines = {"in_build": "pass", "in_init": "pass"}
    lines["in_init" if kind == "first" else "in_build"] = line
    text = OWN.format(attribute=attribute, **lines)
    (path.parent / "own.py").write_text(text)
    keras.backend.clear_session()
    names: dict[str, Any] = {"__name__": "own"}
    exec(text, names)
    model = names["build"]()
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    model.save_weights(path) if path.name == "w.weights.h5" else model.save(path)
    return model


@pytest.mark.parametrize("name", only(["m.keras", "w.weights.h5"], "m.keras"))
@pytest.mark.parametrize("kind", LISTS)
def test_layers_that_keras_does_not_save_get_no_weights_of_others(
    kind: str, name: str, tmp_path: Path
) -> None:
    saved(kind, "_layers", tmp_path / name)
    given = {"custom_objects": tmp_path / "own.py"}
    if name == "w.weights.h5":
        given = {"architecture": f"{tmp_path / 'own.py'}:build"}
    with pytest.raises(UnsupportedModelError, match="an attribute named '_layers'") as caught:
        load_model(audit_file(tmp_path / name), **given)
    assert "rename '_layers' in Block" in caught.value.hint


@pytest.mark.parametrize(
    ("attribute", "name"), [("_layers", "m.h5"), ("blocks", "m.keras"), ("_blocks", "m.keras")]
)
@pytest.mark.parametrize("kind", only(["built", "fewer"], "built"))
def test_what_the_message_proposes(kind: str, attribute: str, name: str, tmp_path: Path) -> None:
    model = saved(kind, attribute, tmp_path / name)
    loaded = load_model(audit_file(tmp_path / name), custom_objects=tmp_path / "own.py")
    x = np.random.default_rng(1).normal(size=(4, 8)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-5)
