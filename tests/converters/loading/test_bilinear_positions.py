"""Bilinear interpolation in files and programs of Keras 2.2.3 to 2.3.1, and of tf.keras 2.2.4-tf.

The results are those of ``tf.compat.v1.image.resize_bilinear``, which these versions call, and for
TensorFlow 1.15 and later those of tf_keras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from tf_keras import backend as K
from tf_keras import layers

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

GENERATOR = np.random.default_rng(11)
IMAGES = GENERATOR.normal(size=(2, 4, 5, 3)).astype("float32")
NOTE = "takes its values from row i / size, as in"


def from_corners(x: Any, rows: int = 2, columns: int = 2) -> np.ndarray:
    size = (x.shape[1] * rows, x.shape[2] * columns)
    return tf.compat.v1.image.resize_bilinear(np.float32(x), size).numpy()


def set_header(path: Path, version: str, backend: str = "tensorflow") -> Path:
    with h5py.File(path, "a") as file:
        for group in (file, file.get("model_weights", file)):
            group.attrs.update(backend=backend, keras_version=version)
    return path


def upsampling(size: Any = 2, **arguments: Any) -> Any:
    return layers.UpSampling2D(size, interpolation="bilinear", name="up", **arguments)


def convolved(x: Any, *parts: Any) -> Any:
    """A model of a convolution and the layers ``parts``."""
    for layer in (layers.Conv2D(2, 1, name="c"), *parts):
        x = layer(x)
    return x


def trained(model: Any) -> Any:
    model.set_weights([GENERATOR.normal(size=value.shape) for value in model.get_weights()])
    return model


def hidden(model: Any) -> np.ndarray:
    """What the convolution of a model computes."""
    kernel, bias = model.get_weights()
    return IMAGES @ kernel[0, 0] + bias


def check(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-5, atol=1e-5)


def test_values_worked_by_hand(tmp_path: Path) -> None:
    """Rows 0, 1/2, 1 and 3/2 of the image; the last one is beyond its last row."""
    x = tf_keras.Input((2, 1, 1))
    model = tf_keras.Model(x, upsampling((2, 1))(x))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", "2.2.4")))
    actual = np.ravel(loaded.model(np.float32([0, 4]).reshape(1, 2, 1, 1)))
    np.testing.assert_array_equal(actual, [0, 2, 4, 4])


def functional(size: Any = 2) -> Any:
    x = tf_keras.Input((4, 5, 3))
    return tf_keras.Model(x, convolved(x, upsampling(size)))


def sequential() -> Any:
    return tf_keras.Sequential([tf_keras.Input((4, 5, 3)), layers.Conv2D(2, 1), upsampling()])


def nested() -> Any:
    x = tf_keras.Input((4, 5, 3))
    return tf_keras.Model(x, tf_keras.Sequential([sequential()])(x))


MODELS: dict[str, Any] = {
    "functional": functional,
    "sizes": lambda: functional((2, 3)),
    "sequential": sequential,
    "nested": nested,
}


@pytest.mark.parametrize("version", only(["2.2.3", "2.3.1"], "2.3.1"))
@pytest.mark.parametrize("name", MODELS)
def test_whole_files(name: str, version: str, tmp_path: Path) -> None:
    model = trained(MODELS[name]())
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", version)))
    factors = (2, 3) if name == "sizes" else (2, 2)
    check(loaded.model(IMAGES), from_corners(hidden(model), *factors))
    assert any(note.startswith("up: ") and NOTE in note for note in loaded.notes)
    assert any("only because it does not make the changes" in note for note in loaded.notes)


def test_layers_over_time(tmp_path: Path) -> None:
    x = tf_keras.Input((2, 4, 5, 3))
    model = tf_keras.Model(x, layers.TimeDistributed(upsampling((3, 2)))(x))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", "2.2.4")))
    check(loaded.model(IMAGES[None])[0], from_corners(IMAGES, 3, 2))


def test_channels_first(tmp_path: Path) -> None:
    x = tf_keras.Input((3, 4, 5))
    model = tf_keras.Model(x, upsampling((2, 3), data_format="channels_first")(x))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", "2.3.0")))
    actual = loaded.model(np.moveaxis(IMAGES, -1, 1))
    check(np.moveaxis(actual, 1, -1), from_corners(IMAGES, 2, 3))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_artifacts(format: str, tmp_path: Path) -> None:
    model = trained(functional((2, 3)))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", "2.2.4"))).model
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    name = loaded.inputs[0].name
    path = tmp_path / "artifact"
    file = convert(
        loaded, interface_of(loaded), recipe_for("float32"), path, samples={name: IMAGES}
    )
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    [actual] = runner.run({name: IMAGES}).values()
    check(actual, from_corners(hidden(model), 2, 3))


PROGRAM = """
import keras
from keras import backend as K
from keras.layers import Conv2D, Lambda, Layer, UpSampling2D


class Doubled(Layer):
    def call(self, x):
        return x + x


class Former(UpSampling2D):
    pass


class Resized(Layer):
    def call(self, x):
        return K.resize_images(x, 2, 2, "channels_last", interpolation="bilinear")

    def compute_output_shape(self, shape):
        return shape[0], 2 * shape[1], 2 * shape[2], shape[3]


def build(*parts):
    x = keras.Input((4, 5, 3))
    y = Conv2D(2, 1, name="c")(x)
    for part in parts:
        y = part(y)
    return keras.Model(x, y)


def layer():
    return build(UpSampling2D(interpolation="bilinear", name="up"))


def own():
    return build(UpSampling2D(interpolation="bilinear", name="up"), Doubled())


def derived():
    return build(Former(interpolation="bilinear", name="up"))


def resized():
    return build(Resized())


def calling():
    return build(Lambda(lambda x: K.resize_images(x, 2, 2, "channels_last", "bilinear")))
"""
FUNCTIONS = ["layer", "own", "derived", "resized", "calling"]


def load_program(function: str, folder: Path, version: str, **header: str) -> tuple[Any, Any]:
    """Return the loaded model of a function, and what its convolution computes."""
    model = trained(functional())
    model.save_weights(folder / "w.h5")
    set_header(folder / "w.h5", version, **header)
    (folder / "own.py").write_text(PROGRAM)
    loaded = load_model(audit_file(folder / "w.h5"), architecture=f"{folder / 'own.py'}:{function}")
    return loaded, hidden(model)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_programs(function: str, tmp_path: Path) -> None:
    loaded, values = load_program(function, tmp_path, "2.2.4")
    check(loaded.model(IMAGES), from_corners(values) * (2 if function == "own" else 1))
    place = "K.resize_images: " if function in ("resized", "calling") else "up: "
    assert [note for note in loaded.notes if note.startswith(place) and NOTE in note]


@pytest.mark.long
@pytest.mark.compared
@pytest.mark.parametrize("function", only(["own", "resized", "calling"], "resized"))
def test_tf_keras_does_not_refute_programs(function: str, tmp_path: Path) -> None:
    """It is loaded once more for the comparison, as of another version."""
    loaded, values = load_program(function, tmp_path, "2.2.4")
    check(loaded.model(IMAGES), from_corners(values) * (2 if function == "own" else 1))
    assert any("only because it does not make the changes" in note for note in loaded.notes)


@pytest.mark.parametrize("function", only(FUNCTIONS, "own", "calling"))
def test_programs_of_theano_are_refused(function: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="other values than TensorFlow"):
        load_program(function, tmp_path, "2.2.4", backend="theano")


@pytest.mark.parametrize("version", only(["2.3.0-tf", "2.4.0", "2.15.0"], "2.3.0-tf"))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_programs_of_later_versions(function: str, version: str, tmp_path: Path) -> None:
    loaded, values = load_program(function, tmp_path, version)
    expected = layers.UpSampling2D(interpolation="bilinear")(values)
    check(loaded.model(IMAGES), expected * (2 if function == "own" else 1))
    assert not any("interpolation" in note for note in loaded.notes)


@pytest.mark.parametrize("function", only(FUNCTIONS, "layer", "calling"))
def test_programs_of_several_versions_of_tensorflow(function: str, tmp_path: Path) -> None:
    """TensorFlow 1.14 and 2.1 have the same version of Keras."""
    loaded, values = load_program(function, tmp_path, "2.2.4-tf")
    expected = layers.UpSampling2D(interpolation="bilinear")(values)
    check(loaded.model(IMAGES), expected * (2 if function == "own" else 1))
    assert any("does not show whether TensorFlow 1.13 or 1.14" in note for note in loaded.notes)


def test_classes_of_files(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "own"}
    exec(PROGRAM.replace("import keras", "import tf_keras as keras", 1)
         .replace("from keras", "from tf_keras"), names)  # fmt: skip
    model = trained(names["resized"]())
    model.save(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(PROGRAM)
    file = audit_file(set_header(tmp_path / "m.h5", "2.3.1"))
    loaded = load_model(file, custom_objects=tmp_path / "own.py")
    check(loaded.model(IMAGES), from_corners(hidden(model)))
    assert any(note.startswith("K.resize_images: ") and NOTE in note for note in loaded.notes)


def test_stored_code_of_lambda_layers(tmp_path: Path) -> None:
    call = layers.Lambda(
        lambda x: K.resize_images(x, 2, 3, "channels_last", interpolation="bilinear")
    )
    x = tf_keras.Input((4, 5, 3))
    model = trained(tf_keras.Model(x, convolved(x, call)))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(set_header(tmp_path / "m.h5", "2.2.4")))
    check(loaded.model(IMAGES), from_corners(hidden(model), 2, 3))
    assert any(note.startswith("K.resize_images: ") and NOTE in note for note in loaded.notes)


def test_architecture_as_json(tmp_path: Path) -> None:
    model = trained(functional((2, 3)))
    model.save_weights(tmp_path / "w.h5")
    config = {**json.loads(model.to_json()), "keras_version": "2.2.4", "backend": "tensorflow"}
    (tmp_path / "m.json").write_text(json.dumps(config))
    file = audit_file(set_header(tmp_path / "w.h5", "2.2.4"))
    loaded = load_model(file, architecture=str(tmp_path / "m.json"))
    check(loaded.model(IMAGES), from_corners(hidden(model), 2, 3))


def load_of_tensorflow(
    model: Any, folder: Path, version: str, *, ragged: bool, typed: bool
) -> LoadedModel:
    """Load a file as TensorFlow 1 or 2 saved it.

    ``ragged`` is whether inputs have this argument, ``typed`` whether initializers have a dtype.
    """
    path = folder / "m.h5"
    model.save(path)
    set_header(path, version)
    with h5py.File(path, "a") as file:
        text = str(file.attrs["model_config"])
        if not ragged:
            text = text.replace('"ragged": false, ', "").replace(', "ragged": false', "")
        config = json.loads(text)
        for layer in config["config"]["layers"] if typed else ():
            for key, value in layer["config"].items():
                if key.endswith("_initializer"):
                    value["config"]["dtype"] = "float32"
        file.attrs["model_config"] = json.dumps(config)
    return load_model(audit_file(path))


@pytest.mark.parametrize(
    ("version", "ragged", "typed", "are_corners", "note"),
    [
        ("2.1.6-tf", False, True, True, "TensorFlow before 1.15"),
        ("2.2.4-tf", False, True, True, "If TensorFlow 1.15 or later saved it"),
        ("2.2.4-tf", False, False, False, "does not show whether TensorFlow 1.13 or 1.14"),
        ("2.2.4-tf", True, True, False, ""),
        ("2.2.4-tf", True, False, False, ""),
        ("2.3.0-tf", True, False, False, ""),
        ("2.4.0", True, False, False, ""),
    ],
)
def test_files_of_tensorflow(
    version: str, ragged: bool, typed: bool, are_corners: bool, note: str, tmp_path: Path
) -> None:
    model = trained(functional())
    loaded = load_of_tensorflow(model, tmp_path, version, ragged=ragged, typed=typed)
    values = hidden(model)
    later = layers.UpSampling2D(interpolation="bilinear")(values)
    check(loaded.model(IMAGES), from_corners(values) if are_corners else later)
    found = [text for text in loaded.notes if "interpolation" in text]
    assert (note in found[0]) if note else not found
