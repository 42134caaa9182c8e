"""Weights that a class adds to a layer of Keras 3, and that Keras does not save."""

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

PROGRAM = """
from keras import layers

class Scaled(layers.{base}):
    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(name="scale", shape=(3,), initializer="random_normal")

    def call(self, x):
        return super().call(x) * self.scale
"""
KEEPS = """
    def save_own_variables(self, store):
        for index, variable in enumerate(self._trainable_variables):
            store[str(index)] = variable

    def load_own_variables(self, store):
        for index, variable in enumerate(self._trainable_variables):
            variable.assign(store[str(index)])
"""
BASES: dict[str, tuple[Any, ...]] = {
    "Embedding": (9, 3),
    "Dense": (3,),
    "Conv1D": (3, 2),
    "DepthwiseConv1D": (2,),
    "SeparableConv1D": (3, 2),
    "Conv1DTranspose": (3, 2),
    "EinsumDense": ("abc,cd->abd", (None, 3)),
}
DROPPED = ["Embedding", "Dense", "Conv1D", "EinsumDense"]
X = np.array([[3, 1, 4, 0], [8, 2, 6, 7]], dtype="int32")


def _saved(path: Path, base: str, methods: str = "") -> Any:
    program = PROGRAM.format(base=base) + methods
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(program, names)
    x = keras.Input((4,), dtype="int32")
    hidden = x if base == "Embedding" else keras.layers.Embedding(9, 3)(x)
    model = keras.Model(x, names["Scaled"](*BASES[base], name="own")(hidden))
    generator = np.random.default_rng(5)
    for variable in model.weights:
        variable.assign(generator.normal(size=variable.shape))
    model.save(path)
    (path.parent / "own.py").write_text(program)
    return model


@pytest.mark.parametrize("base", only(DROPPED, "Embedding", "Dense"))
def test_weights_that_keras_does_not_save(base: str, tmp_path: Path) -> None:
    """The error had the advice to pass a number of steps, which the model has not."""
    _saved(tmp_path / "m.keras", base)
    file = audit_file(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(file, custom_objects=tmp_path / "own.py", time_steps=4)
    assert error.value.message == (
        f"The file lacks 'scale' of layer 'own': Keras 3 saves only the weights of {base} itself, "
        "from which your class Scaled is derived, and loads none that the class adds."
    )
    assert "save_own_variables" in str(error.value.hint)


@pytest.mark.parametrize("base", only([base for base in BASES if base not in DROPPED]))
def test_layers_of_keras_that_save_all_weights(base: str, tmp_path: Path) -> None:
    model = _saved(tmp_path / "m.keras", base)
    file = audit_file(tmp_path / "m.keras")
    loaded = load_model(file, custom_objects=tmp_path / "own.py").model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", only(BASES, "Embedding"))
def test_the_file_that_the_error_advises(base: str, tmp_path: Path) -> None:
    model = _saved(tmp_path / "m.h5", base)
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py").model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", only(("Embedding", "Dense", "EinsumDense"), "Dense"))
def test_a_class_that_saves_its_weights(base: str, tmp_path: Path) -> None:
    model = _saved(tmp_path / "m.keras", base, KEEPS)
    file = audit_file(tmp_path / "m.keras")
    loaded = load_model(file, custom_objects=tmp_path / "own.py").model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)
