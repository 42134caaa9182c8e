"""Names that no file stores are the same whenever a file is loaded.

A model with a free time axis is loaded twice, and what both compute is matched by name.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.tracing.free_time import free_model
from edgeattn_converters.tracing.trace import interface_of

CLASSES = """
import keras
from keras import layers


class Looking(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)
        self.attention = layers.Attention()

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, inputs):
        return self.attention([self.dense(inputs), inputs])


class Network(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.Attention()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.attention([inputs, inputs]))


def build():
    inputs = keras.Input((None, 4))
    return keras.Model(inputs, layers.Dense(2)(Looking()(inputs)))


def subclassed():
    network = Network()
    network(keras.Input((None, 4)))
    return network
"""


@pytest.mark.parametrize("kind", ["class", "subclassed", "architecture"])
def test_a_file_that_is_loaded_twice(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = tmp_path / f"{kind}_classes.py"
    classes.write_text(CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(classes.stem)
    try:
        model = module.subclassed() if kind == "subclassed" else module.build()
    finally:
        del sys.modules[classes.stem]
    path = tmp_path / "m.keras"
    options: dict[str, Any] = {"custom_objects": classes}
    if kind == "architecture":
        path, options = tmp_path / "m.weights.h5", {"architecture": f"{classes}:build"}
        model.save_weights(path)
    else:
        model.save(path)
    file = audit_file(path)
    keras.layers.Dense(1), keras.layers.Attention()
    fixed = load_model(file, **options, time_steps=3).model
    free = load_model(file, **options, allow_free_time=True).model
    interface = interface_of(fixed, time_steps=3)
    found = free_model(free, interface)
    assert found is not None
    assert [spec.name for spec in interface.attention] == ["attention/attention"]
    again = interface_of(free, time_steps=3)
    assert (again.outputs, again.attention) == (interface.outputs, interface.attention)
