"""Names and configs of initializers, regularizers and constraints of Keras 1 and 2."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.legacy.legacy_identifiers import accepted
from edgeattn_converters.loading.load import load_model

KINDS = ("constraints", "initializers", "regularizers")
PROGRAM = """
from tensorflow import keras
from tensorflow.keras import constraints, initializers, regularizers
from tensorflow.keras.layers import *

OLD = False
CONFIG = {"class_name": "VarianceScaling", "config": {
    "scale": 2.0, "mode": "fan_in", "distribution": "normal", "seed": None, "dtype": "float32"}}

class Scale(Layer):
    def __init__(self, constraint="nonneg", start=None, **kwargs):
        super().__init__(**kwargs)
        self.constraint = constraints.get(constraint)
        self.name_of_constraint = constraint
        self.start = initializers.get(CONFIG if OLD else "ones")

    def build(self, shape):
        self.w = self.add_weight(
            name="w", shape=(shape[-1], 3), initializer=self.start, constraint=self.constraint,
            regularizer=regularizers.get("l1_l2"))

    def call(self, x):
        return keras.backend.dot(x, self.w)

    def get_config(self):
        return {**super().get_config(), "constraint": self.name_of_constraint, "start": CONFIG}

def build():
    model = keras.Sequential()
    model.add(Dense(8, input_shape=(5,), kernel_constraint="maxnorm", activation="relu"))
    model.add(Scale("unitnorm"))
    model.add(Dense(3, kernel_constraint="nonneg", bias_initializer="constant"))
    model.add(Dense(2, kernel_regularizer="l1_l2", bias_constraint="radial_constraint"))
    return model
"""


def names_of_tf_keras(kind: str) -> list[str]:
    """The strings that it accepts."""
    public, source = getattr(tf_keras, kind), importlib.import_module(f"tf_keras.src.{kind}")
    found = {name for name in (*dir(public), *dir(source)) if not name.startswith("_")}
    result = []
    for name in sorted(found | {name.lower() for name in found}):
        value = getattr(public, name, getattr(source, name, None))
        if inspect.isclass(value) or (value is None and not inspect.ismodule(value)):
            try:
                public.get(name)
            except Exception:  # such as a name without an argument that has no default
                continue
            result.append(name)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_tf_keras_is_accepted(kind: str) -> None:
    names = names_of_tf_keras(kind)
    assert len(names) > 3
    with accepted():
        for name in names:
            found = getattr(keras, kind).get(name)
            assert found is not None or kind != "initializers"
    with pytest.raises(ValueError, match="nonneg"):  # as before
        keras.constraints.get("nonneg")


@pytest.mark.parametrize("stored", ["weights", "model"])
def test_models_with_such_names(stored: str, tmp_path: Path) -> None:
    model, generator = run_in_tf_keras(PROGRAM)["build"](), np.random.default_rng(1)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    own = tmp_path / "own.py"
    own.write_text(PROGRAM.replace("OLD = False", "OLD = True"))
    (model.save_weights if stored == "weights" else model.save)(tmp_path / "m.h5")
    options: dict[str, Any] = (
        {"architecture": f"{own}:build"} if stored == "weights" else {"custom_objects": own}
    )
    loaded = load_model(audit_file(tmp_path / "m.h5"), **options)
    x = generator.normal(size=(4, 5)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
