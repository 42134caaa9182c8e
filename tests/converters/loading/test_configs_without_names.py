"""Classes whose ``get_config`` returns no name, with a ``from_config`` of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(5).normal(size=(4, 5, 3)).astype("float32")
GATED = """
class Gated(keras.layers.Layer):
    def __init__(self, units=3):
        super().__init__()
        self.score = keras.layers.Dense(units, activation="sigmoid")

    def call(self, inputs):
        return inputs * self.score(inputs)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
"""
WITH_UNITS = GATED.replace("return {}", 'return {"units": self.score.units}')
OF_PARENT = GATED + "\nclass Other(Gated):\n    pass\n"
# Their arguments contain a name, which the method needs.
POPPED = """
class Gated(keras.layers.Layer):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.score = keras.layers.Dense(3, activation="sigmoid")

    def call(self, inputs):
        return inputs * self.score(inputs)

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(name=config.pop("name"))
"""
TEXTS = {"empty": GATED, "units": WITH_UNITS, "parent": OF_PARENT, "popped": POPPED}


def saved(root: Any, text: str, path: Path, *, over_time: bool) -> np.ndarray:
    """Save a model of ``root``, Keras 2 or 3, with two layers of a class; return its outputs."""
    names: dict[str, Any] = {"__name__": "own", "keras": root}
    exec(text, names)
    create = names.get("Other", names["Gated"])
    x = root.Input((5, 3))
    first = root.layers.TimeDistributed(create()) if over_time else create()
    model = root.Model(x, create()(root.layers.Dense(3)(first(x))))
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    model.save(path)
    return np.asarray(model(X))


CASES = [
    (tf_keras, ".h5", "empty", False),
    (keras, ".keras", "empty", False),
    *(
        pytest.param(root, suffix, name, over_time, marks=pytest.mark.long)
        # Keras 3 does not build layers inside such a layer of a TimeDistributed.
        for root, suffix, over_time in (
            (tf_keras, ".h5", False), (tf_keras, ".h5", True), (keras, ".keras", False)
        )
        for name in TEXTS
        if name != "empty" or over_time
    ),
]  # fmt: skip


@pytest.mark.parametrize(("root", "suffix", "name", "over_time"), CASES)
def test_from_config_gets_what_get_config_returned(
    root: Any, suffix: str, name: str, over_time: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"m{suffix}"
    expected = saved(root, TEXTS[name], path, over_time=over_time)
    own = tmp_path / "own.py"
    own.write_text(f"import keras\n{TEXTS[name]}")
    loaded = load_model(audit_file(path), custom_objects=own)
    assert not loaded.is_graph
    np.testing.assert_allclose(np.asarray(loaded.model(X)), expected, rtol=1e-5, atol=1e-6)
