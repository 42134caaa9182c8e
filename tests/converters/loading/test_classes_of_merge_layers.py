"""Classes of the user that are derived from layers of Keras 2, in whole files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CLASSES = """
from tensorflow import keras
from tensorflow.keras import layers

class Weighted(layers.Add):
    def _merge_function(self, inputs):
        return inputs[0] + 2.0 * inputs[1]

class Joined(layers.Concatenate):
    pass

class Add(layers.Add):
    def _merge_function(self, inputs):
        return inputs[0] - inputs[1]

class Product(layers.Dot):
    pass

class Scaled(layers.Dense):
    def build(self, shape):
        super().build(shape)
        self.extra = self.add_weight(name="extra", shape=(self.units,), initializer="ones")

    def call(self, x):
        return super().call(x) * self.extra

class Words(layers.Embedding):
    def build(self, shape):
        super().build(shape)
        self.extra = self.add_weight(name="extra", shape=(1,), initializer="ones")

    def call(self, x):
        return super().call(x) * self.extra
"""


def classes(package: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "own"}
    exec(CLASSES.replace("from tensorflow import keras", f"import {package} as keras")
         .replace("tensorflow.keras", package), found)  # fmt: skip
    return found


def merging(name: str, own: dict[str, Any]) -> Any:
    layers = tf_keras.layers
    a, b = tf_keras.Input((6, 4)), tf_keras.Input((6, 4))
    x, y = layers.Masking()(a), layers.Masking()(b)
    if name == "Product":
        return tf_keras.Model([a, b], layers.Dense(3)(own[name]((2, 2))([x, y])))
    return tf_keras.Model([a, b], layers.LSTM(3)(own[name]()([x, y])))


def random(model: Any) -> np.random.Generator:
    generator = np.random.default_rng(7)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    return generator


@pytest.mark.long
@pytest.mark.parametrize("suffix", only((".h5", ".keras"), ".h5"))
@pytest.mark.parametrize("name", only(("Weighted", "Joined", "Add", "Product"), "Weighted"))
def test_masks_of_classes_that_merge(name: str, suffix: str, tmp_path: Path) -> None:
    """A step is valid if it is valid in both inputs."""
    model = merging(name, classes("tf_keras"))
    generator = random(model)
    model.save(tmp_path / f"m{suffix}")
    (tmp_path / "own.py").write_text(CLASSES)
    values = [generator.normal(size=(4, 6, 4)).astype("float32") for _ in range(2)]
    for row, (first, second) in enumerate(((6, 6), (6, 3), (2, 5), (4, 1))):
        values[0][row, first:] = values[1][row, second:] = 0
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(values), model(values), rtol=1e-4, atol=1e-5)


def with_weight(name: str, package: Any, own: dict[str, Any]) -> Any:
    x = package.Input((4,))
    layer = own["Scaled"](3) if name == "Scaled" else own["Words"](9, 3)
    return package.Model(x, package.layers.Dense(2)(layer(x)))


@pytest.mark.parametrize("name", only(("Scaled", "Words"), "Scaled"))
def test_weights_that_a_class_adds(name: str, tmp_path: Path) -> None:
    model = with_weight(name, tf_keras, classes("tf_keras"))
    generator = random(model)
    model.save(tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(CLASSES)
    x = generator.uniform(1, 8, size=(5, 4)).astype("int32").astype("float32")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", only(("Scaled", "Words"), "Scaled"))
def test_weights_that_keras_3_does_not_save(name: str, tmp_path: Path) -> None:
    """``save_own_variables`` of Dense and Embedding stores their own variables only."""
    import keras

    model = with_weight(name, keras, classes("keras"))
    random(model)
    model.save(tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(CLASSES)
    with pytest.raises(UnsupportedModelError, match="Keras 3 saves only the weights of"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
