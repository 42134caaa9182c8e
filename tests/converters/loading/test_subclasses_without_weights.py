"""Subclassed models in files that lack weights of their layers, which samples would create."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code import custom_objects

CLASSES = """
import keras


class Base(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(3)
        self.second = keras.layers.Dense(3)


class Arguments(Base):
    def call(self, x, enc):
        return self.first(x) + self.second(enc)


class Optional(Base):
    def call(self, x, enc=None):
        return self.first(x) if enc is None else self.first(x) + self.second(enc)


class Dictionary(Base):
    def call(self, inputs):
        return self.first(inputs["x"]) + self.second(inputs["enc"])


class Unpacked(Base):
    def call(self, inputs):
        x, enc = inputs
        return self.first(x) + self.second(enc)


class Lazy(keras.Model):
    dense = None

    def call(self, x, enc):
        if self.dense is None:
            self.dense = keras.layers.Dense(3)
        return self.dense(x) + enc
"""
X = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
ENC = np.random.default_rng(2).normal(size=(4, 3)).astype("float32")


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Any]:
    """A file of classes, and its module; samples are beside it."""
    (tmp_path / "own.py").write_text(CLASSES)
    np.savez(tmp_path / "samples.npz", x=X, enc=ENC)
    return tmp_path / "own.py", custom_objects.load_module(tmp_path / "own.py", option="")


def _load(path: Path, file: Path) -> Any:
    samples = path.parent / "samples.npz"
    return load_model(audit_file(path), custom_objects=file, samples=samples).model


UNBUILT = [
    ("Arguments", "keras", "no weights for 4 of 4 variables"),
    ("Arguments", "h5", "no weights for 4 of 4 variables"),
    ("Optional", "keras", "no weights for 4 of 4 variables"),
    ("Dictionary", "keras", "no weights for 4 of 4 variables"),
    ("Dictionary", "h5", "no weights for 4 of 4 variables"),
    ("Unpacked", "keras", "cannot be called"),
    ("Unpacked", "h5", "cannot be called"),
    ("Lazy", "keras", "no weights for 2 of 2 variables"),
]


@pytest.mark.parametrize("case", only(UNBUILT, *UNBUILT[:2]))
def test_model_saved_before_it_was_built(
    case: tuple[str, str, str], own: Any, tmp_path: Path
) -> None:
    name, kind, message = case
    file, module = own
    getattr(module, name)().save(tmp_path / f"m.{kind}")
    with pytest.raises(UnsupportedModelError, match=message):
        _load(tmp_path / f"m.{kind}", file)


def test_layer_that_was_not_called_before_saving(own: Any, tmp_path: Path) -> None:
    """The file is of the model without the second argument, the samples contain it."""
    file, module = own
    model = module.Optional()
    model(X)
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="no weights for 2 of 4 variables"):
        _load(tmp_path / "m.keras", file)


def test_layer_with_weights_of_a_model_that_was_not_called(own: Any, tmp_path: Path) -> None:
    """The error asked for the samples that were passed."""
    file, module = own
    model = module.Arguments()
    model.first(X)
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="no weights for 2 of 4 variables"):
        _load(tmp_path / "m.keras", file)


def test_h5_file_of_several_arguments_as_keras(own: Any, tmp_path: Path) -> None:
    """What the error for such a .h5 file says to do."""
    file, module = own
    model = module.Arguments()
    expected = model(X, ENC)
    model.save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match="without a list of its layers") as error:
        _load(tmp_path / "m.h5", file)
    assert "call it with its inputs, then model.load_weights('m.h5')" in str(error.value.hint)
    other = module.Arguments()
    other(X, ENC)
    other.load_weights(tmp_path / "m.h5")
    other.save(tmp_path / "m.keras")
    actual = _load(tmp_path / "m.keras", file)({"x": X, "enc": ENC})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


AUTOENCODER = """
import keras
from keras import layers

i = keras.Input((6,))
encoder = keras.Model(i, [layers.Dense(2, name="mean")(i), layers.Dense(2, name="var")(i)])
j = keras.Input((2,))
decoder = keras.Model(j, layers.Dense(6, activation="sigmoid", name="out")(j))

class VAE(keras.Model):
    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder

    def train_step(self, data):
        return {}
METHODS

def build():
    vae = VAE(encoder, decoder)
    vae.built = BUILT
    return vae
"""
CALL = """
    def call(self, inputs):
        return self.decoder(self.encoder(inputs)[0])
"""


def autoencoder(folder: Path, methods: str, built: bool) -> tuple[Path, dict[str, Any]]:
    """Return a file of weights of Keras 2, and how it is loaded with samples."""
    text = AUTOENCODER.replace("METHODS", methods).replace("BUILT", str(built))
    names: dict[str, Any] = {"__name__": "own"}
    exec(text.replace("import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"), names)
    model, generator = names["build"](), np.random.default_rng(5)
    model.built = True
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(folder / "m.h5")
    (folder / "program.py").write_text(text)
    np.savez(folder / "s.npz", generator.normal(size=(8, 6)).astype("float32"))
    options = {"architecture": f"{folder / 'program.py'}:build", "samples": folder / "s.npz"}
    return folder / "m.h5", {**options, "original": names["build"], "saved": model}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("with_samples", [True, False])
def test_a_class_without_call_is_named(built: bool, with_samples: bool, tmp_path: Path) -> None:
    path, options = autoencoder(tmp_path, "", built)
    samples = {"samples": options["samples"]} if with_samples else {}
    with pytest.raises(UnsupportedModelError, match=r"\(VAE\) without a method call") as error:
        load_model(audit_file(path), architecture=options["architecture"], **samples)
    assert "Add call(self, inputs) to the class VAE" in str(error.value.hint)
    assert "'encoder' and 'decoder'" in str(error.value.hint)


def test_the_advice_for_a_class_without_call_helps(tmp_path: Path) -> None:
    path, options = autoencoder(tmp_path, CALL, True)
    loaded = load_model(
        audit_file(path), architecture=options["architecture"], samples=options["samples"]
    )
    x = np.random.default_rng(6).normal(size=(3, 6)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), options["saved"](x), rtol=1e-5, atol=1e-6)


BASE_CONFIG = """
import keras
from keras import layers

class Classifier(keras.Model):
    def __init__(self, units, **kwargs):
        x = keras.Input((6,), name="x")
        y = layers.Dense(3, name="out")(layers.Dense(units, "tanh", name="hidden")(x))
        super().__init__(inputs=x, outputs=y, name="classifier")
        self.units = units

    def get_config(self):
        return {"units": self.units, "base_config": keras.Model.get_config(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return keras.Model.from_config(config["base_config"], custom_objects=custom_objects)

def build():
    return Classifier(5)
"""


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_classes_whose_from_config_has_no_layers(suffix: str, tmp_path: Path) -> None:
    """Keras does not load the files either; the error says to convert the weights."""
    names: dict[str, Any] = {"__name__": "own"}
    of_keras_2 = BASE_CONFIG.replace(
        "import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"
    )
    exec(of_keras_2, names)
    model, generator = names["build"](), np.random.default_rng(5)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save(tmp_path / f"m{suffix}")
    program = tmp_path / "program.py"
    program.write_text(BASE_CONFIG)
    with pytest.raises(UnsupportedModelError, match=r"list of its layers|without layers") as error:
        load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=program)
    assert "save the weights of the model, model.save_weights('model.weights.h5')" in str(
        error.value.hint
    )
    model.save_weights(tmp_path / "model.weights.h5")
    file = audit_file(tmp_path / "model.weights.h5")
    loaded = load_model(file, architecture=f"{program}:build")
    x = generator.normal(size=(3, 6)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)
