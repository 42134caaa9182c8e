"""Subclassed models that are compiled: Keras stores their optimizers with the weights."""

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CLASSES = """
import keras

class Classifier(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = keras.layers.Dense(4), keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))

class Encoder(Classifier):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.encoder_optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        self.parts = [keras.optimizers.Adam(), keras.layers.Dense(3), keras.metrics.Mean()]

    def call(self, x):
        return self.parts[1](super().call(x))

class Adversarial(Classifier):
    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def optimizers(self):
        return [self.d_optimizer, self.g_optimizer]
"""
X = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(CLASSES)
    return path, runpy.run_path(str(path))


def _compiled(name: str, classes: dict[str, Any]) -> Any:
    model = classes[name]()
    model(X)
    if name == "Adversarial":
        model.compile(keras.optimizers.Adam(), keras.optimizers.RMSprop())
        optimizers = model.optimizers()
    else:
        model.compile("adam", "mse", metrics=["mae"])
        model.fit(X, np.zeros((3, 3)), verbose=0)
        optimizers = [model.encoder_optimizer, model.parts[0]] if name == "Encoder" else []
    for optimizer in optimizers:
        optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("nested", only((False, True), False))
@pytest.mark.parametrize("name", only(["Classifier", "Encoder", "Adversarial"], "Classifier"))
def test_optimizers_are_not_weights(name: str, nested: bool, program: Any, tmp_path: Path) -> None:
    file, classes = program
    model = _compiled(name, classes)
    if nested:
        inputs = keras.Input((5,))
        model = keras.Model(inputs, keras.layers.Dense(2)(model(inputs)))
        model.compile("adam", "mse")
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=file)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_weights_of_a_missing_attribute_are_an_error(program: Any, tmp_path: Path) -> None:
    _, classes = program
    _compiled("Classifier", classes).save(tmp_path / "m.keras")
    other = tmp_path / "other.py"
    other.write_text(CLASSES.replace("self.hidden", "self.first"))
    with pytest.raises(UnsupportedModelError, match="no such attribute"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=other)
