"""Programs and classes that rely on ``image_data_format``, the order of the axes of images.

Expected values are computed in NumPy, by the definitions of the Keras that saved the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from long_parameters import only
from numpy_convolutions import convolution

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.eras import image_order
from edgeattn_converters.loading.load import load_model

GENERATOR = np.random.default_rng(21)
PROGRAM = """
from keras.models import Sequential
from keras.layers import *
from keras import backend as K

K.set_image_data_format('channels_first')

class Centered(Layer):
    def call(self, x, mask=None):
        first = K.image_data_format() == 'channels_first'
        return x - K.mean(x, axis=1 if first else -1, keepdims=True)

def build():
    model = Sequential()
"""
OF_KERAS_1 = PROGRAM.replace("image_data_format", "image_dim_ordering").replace(
    "channels_first", "th"
)
IMAGES = GENERATOR.normal(size=(2, 6, 5, 3)).astype("float32")
STEPS = GENERATOR.normal(size=(2, 7, 3)).astype("float32")


@pytest.fixture(autouse=True)
def channels_last() -> Iterator[None]:
    yield
    keras.config.set_image_data_format("channels_last")


def random(*shape: int) -> Any:
    return GENERATOR.normal(size=shape).astype("float32")


KERNEL, BIAS = random(3, 3, 3, 4), random(4)
CONVOLVED = convolution(IMAGES, KERNEL, same=False, reverse=False) + BIAS
FIRST = np.moveaxis(CONVOLVED, -1, 1)  # (2, 4, 4, 3)
CENTERED = FIRST - FIRST.mean(1, keepdims=True)


def write(path: Path, version: str, arrays: Sequence[Any], stored: Any = None) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version=version.encode(), backend=b"tensorflow")
        group: Any = file
        if stored is not None:
            file.attrs["model_config"] = json.dumps(stored).encode()
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [f"part_{n}".encode() for n in range(len(arrays))]
        for number, values in enumerate(arrays):
            layer = group.create_group(f"part_{number}")
            names = [f"part_{number}_{index}:0" for index in range(len(values))]
            layer.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, values, strict=True):
                layer[name] = value
    return path


def kernel(version: str) -> Any:
    """The kernel in the layout of the file: (filters, channels, rows, columns) in Keras 1."""
    return np.moveaxis(KERNEL, (-1, -2), (0, 1)) if version < "2" else KERNEL


def load(
    path: Path, version: str, lines: Sequence[str], arrays: Sequence[Any], *, is_set: bool = True
) -> Any:
    text = OF_KERAS_1 if version < "2" else PROGRAM
    text = text if is_set else text.replace("K.set_", "# K.set_")
    text += "".join(f"    model.add({line})\n" for line in lines) + "    return model\n"
    (path / "p.py").write_text(text)
    file = audit_file(write(path / "m.h5", version, arrays))
    return load_model(file, architecture=f"{path / 'p.py'}:build")


def convolution_of(version: str) -> str:
    sizes = "3, 3" if version < "2" else "(3, 3)"
    name = "Convolution2D" if version < "2" else "Conv2D"
    return f"{name}(4, {sizes}, input_shape=(3, 6, 5))"


def check(model: Any, x: Any, expected: Any) -> None:
    actual = np.asarray(model(x))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", ["1.2.2", "2.1.5", "2.1.6", "2.2.0"])
def test_flatten_of_channels_first(version: str, tmp_path: Path) -> None:
    """Since Keras 2.2, Flatten moves the channels last if they come first."""
    lines = [convolution_of(version), "Flatten()", "Dense(2)"]
    weights = [random(48, 2), random(2)]
    loaded = load(tmp_path, version, lines, [[kernel(version), BIAS], weights])
    values = CONVOLVED if version >= "2.2" else FIRST
    expected = values.reshape(2, -1) @ weights[0] + weights[1]
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), expected)


def test_order_that_a_module_of_the_backend_sets(tmp_path: Path) -> None:
    """``K.common``, which programs for Keras 1 and 2 use."""
    lines = [convolution_of("2.1.5"), "Centered()"]
    text = PROGRAM.replace("K.set_image_data_format('channels_first')",
                           "K.common.set_image_dim_ordering('th')")  # fmt: skip
    text += "".join(f"    model.add({line})\n" for line in lines) + "    return model\n"
    (tmp_path / "p.py").write_text(text)
    file = audit_file(write(tmp_path / "m.h5", "2.1.5", [[KERNEL, BIAS]]))
    loaded = load_model(file, architecture=f"{tmp_path / 'p.py'}:build")
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), CENTERED)
    assert not any("does not set it" in note for note in loaded.notes)


@pytest.mark.parametrize("version", only(["1.2.2", "2.3.1"], "2.3.1"))
def test_layers_of_sequences(version: str, tmp_path: Path) -> None:
    """The order of images has no effect on them before Keras 3."""
    name = "Convolution1D" if version < "2" else "Conv1D"
    lines = [f"{name}(4, 3, input_shape=(7, 3))", "ZeroPadding1D(1)", "MaxPooling1D(2)",
             "AveragePooling1D(2)", "GlobalMaxPooling1D()"]  # fmt: skip
    weights = random(3, 3, 4)
    stored = weights[:, None] if version < "2" else weights
    loaded = load(tmp_path, version, lines, [[stored, BIAS]])
    y = np.pad(
        convolution(STEPS, weights, same=False, reverse=False) + BIAS, [(0, 0), (1, 1), (0, 0)]
    )
    y = np.maximum(y[:, :6:2], y[:, 1:6:2])  # (2, 3, 4)
    check(loaded.model, STEPS, y[:, :2].mean(1))


@pytest.mark.parametrize("version", only(["1.2.2", "2.1.5", "2.3.1"], "1.2.2"))
@pytest.mark.parametrize("own", ["Centered()", "Lambda(lambda x: Centered().call(x))"])
def test_order_in_calls(own: str, version: str, tmp_path: Path) -> None:
    """It is that of the program also when the model computes."""
    lines = [convolution_of(version), own]
    loaded = load(tmp_path, version, lines, [[kernel(version), BIAS]])
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), CENTERED)


def test_order_in_calls_of_keras_3(tmp_path: Path) -> None:
    text = PROGRAM.replace(
        "Sequential()", "Sequential([Input((3, 6, 5)), Conv2D(4, 3), Centered()])"
    )
    (tmp_path / "p.py").write_text(f"{text}    return model\n")
    names: dict[str, Any] = {}
    exec(compile((tmp_path / "p.py").read_text(), "p.py", "exec"), names)
    model = names["build"]()
    model.set_weights([KERNEL, BIAS])
    model.save_weights(tmp_path / "m.weights.h5")
    keras.config.set_image_data_format("channels_last")
    file = audit_file(tmp_path / "m.weights.h5")
    loaded = load_model(file, architecture=f"{tmp_path / 'p.py'}:build")
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), CENTERED)


def stored_layers(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A Sequential of Keras 1."""
    items = [
        {"class_name": name, "config": {"name": f"part_{number}", "trainable": True, **config}}
        for number, (name, config) in enumerate(layers)
    ]
    items[0]["config"]["batch_input_shape"] = [None, 3, 6, 5]
    return {"class_name": "Sequential", "config": items, "keras_version": "1.2.2"}


CONVOLUTION = {"nb_filter": 4, "nb_row": 3, "nb_col": 3, "init": "uniform", "activation": "linear",
               "border_mode": "valid", "subsample": [1, 1], "dim_ordering": "th",
               "W_regularizer": None, "bias": True}  # fmt: skip


def test_classes_in_files_of_keras_1(tmp_path: Path) -> None:
    """The order of the other layers was that of the program."""
    own = PROGRAM.replace("K.set_", "# K.set_").partition("def build")[0]
    (tmp_path / "own.py").write_text(own)
    stored = stored_layers(("Convolution2D", CONVOLUTION), ("Centered", {}))
    path = write(tmp_path / "m.h5", "1.2.2", [[kernel("1.2.2"), BIAS], []], stored)
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), CENTERED)


def test_files_do_not_depend_on_keras_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flatten of Keras 1 has no order, and that of Keras 3 has the one of ``keras.json``."""
    monkeypatch.setattr(image_order, "initial", lambda: "channels_first")
    stored = stored_layers(("Convolution2D", CONVOLUTION), ("Flatten", {}))
    path = write(tmp_path / "m.h5", "1.2.2", [[kernel("1.2.2"), BIAS], []], stored)
    loaded = load_model(audit_file(path))
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), FIRST.reshape(2, -1))


@pytest.mark.parametrize(
    "padding", ["(1, 2, 0, 3)", "padding={'top_pad': 1, 'bottom_pad': 2, 'right_pad': 3}"]
)
def test_padding_of_sides_in_programs(padding: str, tmp_path: Path) -> None:
    lines = [convolution_of("1.2.2"), f"ZeroPadding2D({padding})"]
    loaded = load(tmp_path, "1.2.2", lines, [[kernel("1.2.2"), BIAS]])
    expected = np.pad(FIRST, [(0, 0), (0, 0), (1, 2), (0, 3)])
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), expected)


@pytest.mark.parametrize("version", only(["1.2.2", "2.1.5"], "1.2.2"))
@pytest.mark.parametrize("own", [False, True])
def test_programs_that_do_not_set_the_order(own: bool, version: str, tmp_path: Path) -> None:
    """The weights show that ``keras.json`` of the author had the channels first."""
    lines = [convolution_of(version), *(["Centered()"] if own else []), "Flatten()", "Dense(2)"]
    weights = [random(48, 2), random(2)]
    arrays = [[kernel(version), BIAS], weights]
    loaded = load(tmp_path, version, lines, arrays, is_set=False)
    expected = (CENTERED if own else FIRST).reshape(2, -1) @ weights[0] + weights[1]
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), expected)
    assert any("the weights do not fit otherwise. p.py does not set it" in n for n in loaded.notes)


def test_weights_that_fit_in_no_order(tmp_path: Path) -> None:
    """The error is that of the program as it is, and later models have the channels last."""
    lines = [convolution_of("1.2.2"), "Flatten()", "Dense(2)"]
    arrays = [[kernel("1.2.2"), BIAS], [random(47, 2), random(2)]]
    with pytest.raises(UnsupportedModelError, match=r"\(3, 3, 5, 4\), the file contains"):
        load(tmp_path, "1.2.2", lines, arrays, is_set=False)
    assert keras.config.image_data_format() == "channels_last"


@pytest.mark.parametrize(
    ("first", "is_noted"),
    [
        ("Reshape((6, 5, 7), input_shape=(210,))", True),
        ("UpSampling2D((1, 1), input_shape=(30, 7, 1))", False),
    ],
)
def test_programs_that_nothing_shows_the_order_of(
    first: str, is_noted: bool, tmp_path: Path
) -> None:
    """The default of Keras 1.0 was the other one; an image has few channels."""
    weights = [random(840, 2), random(2)]
    lines = [first, "UpSampling2D((2, 2))", "Flatten()", "Dense(2)"]
    text = OF_KERAS_1.partition("K.set_")[0] + "def build():\n    model = Sequential()\n"
    text += "".join(f"    model.add({line})\n" for line in lines) + "    return model\n"
    (tmp_path / "p.py").write_text(text)
    file = audit_file(write(tmp_path / "m.h5", "1.0.8", [weights]))
    loaded = load_model(file, architecture=f"{tmp_path / 'p.py'}:build")
    assert any("show the order. If image_dim" in note for note in loaded.notes) == is_noted
    x = random(2, *loaded.model.inputs[0].shape[1:])
    images = x.reshape(2, 6, 5, 7) if is_noted else x
    expected = images.repeat(2, 1).repeat(2, 2).reshape(2, -1) @ weights[0] + weights[1]
    check(loaded.model, x, expected)


LAST = ["Convolution2D(4, 3, 3, input_shape=(6, 5, 3))"]


def test_images_that_an_architecture_flattens_in_another_order(tmp_path: Path) -> None:
    """A program that was rewritten for the channels last, and weights of the one before."""
    arrays = [[kernel("1.2.2"), BIAS], [random(48, 2), random(2)]]
    for flatten in ("Flatten()", "Reshape((48,))"):
        with pytest.raises(UnsupportedModelError, match="flattens images with the channels last"):
            load(tmp_path, "1.2.2", [*LAST, flatten, "Dense(2)"], arrays, is_set=False)
    lines = [*LAST, "Permute((3, 1, 2))", "Flatten()", "Dense(2)"]
    loaded = load(tmp_path, "1.2.2", lines, arrays, is_set=False)
    check(loaded.model, IMAGES, FIRST.reshape(2, -1) @ arrays[1][0] + arrays[1][1])
    arrays[1][0] = random(4, 2)
    lines = [*LAST, "AveragePooling2D((4, 3))", "Flatten()", "Dense(2)"]
    loaded = load(tmp_path, "1.2.2", lines, arrays, is_set=False)
    check(loaded.model, IMAGES, CONVOLVED.mean((1, 2)) @ arrays[1][0] + arrays[1][1])


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_current_architectures_that_flatten_in_another_order(order: str, tmp_path: Path) -> None:
    """``Flatten`` of the current Keras moves the channels last, which that of Keras 1 does not."""
    keras.config.set_image_data_format(order)
    shape = (3, 6, 5) if order == "channels_first" else (6, 5, 3)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input(shape), layers.Conv2D(4, 3, name="part_0"), layers.Flatten(),
         layers.Dense(2, name="part_1")]
    )  # fmt: skip
    (tmp_path / "m.json").write_text(model.to_json())
    keras.config.set_image_data_format("channels_last")
    path = write(tmp_path / "m.h5", "1.2.2", [[kernel("1.2.2"), BIAS], [random(48, 2), random(2)]])
    with pytest.raises(UnsupportedModelError, match="flattens images with the channels last"):
        load_model(audit_file(path), architecture=str(tmp_path / "m.json"))


# What a class of Keras 1 computes with the backend, and the same in NumPy.
OF_BACKEND: dict[str, tuple[str, Any]] = {
    "resized": (
        "K.resize_images(x, 2, 3, dim_ordering='th')",
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "resized by default": (
        "K.resize_images(X=x, height_factor=2, width_factor=1, dim_ordering='default')",
        lambda x: x.repeat(2, 2),
    ),
    "padded": (
        "K.spatial_2d_padding(x, (1, 2), 'th')",
        lambda x: np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 2)]),
    ),
    "padded sides": (
        "K.asymmetric_spatial_2d_padding(x, 1, 0, right_pad=2)",
        lambda x: np.pad(x, [(0, 0), (0, 0), (1, 0), (1, 2)]),
    ),
    "padded steps": (
        "K.asymmetric_temporal_padding(K.temporal_padding(x[:, 0], padding=2), 1, 0)",
        lambda x: np.pad(x[:, 0], [(0, 0), (3, 2), (0, 0)]),
    ),
    "pooled": (
        "K.pool2d(x, (2, 1), (2, 1), border_mode='valid', dim_ordering='th', pool_mode='avg')",
        lambda x: (x[:, :, ::2] + x[:, :, 1::2]) / 2,
    ),
}


@pytest.mark.parametrize("kind", only(OF_BACKEND, "resized", "padded sides"))
def test_functions_of_the_backend_for_images(kind: str, tmp_path: Path) -> None:
    """With the arguments of Keras 1, in a class of the user."""
    code, compute = OF_BACKEND[kind]
    own = f"type('Own', (Layer,), {{'call': lambda self, x, mask=None: {code}}})()"
    lines = [convolution_of("1.2.2"), own]
    loaded = load(tmp_path, "1.2.2", lines, [[kernel("1.2.2"), BIAS]])
    check(loaded.model, np.moveaxis(IMAGES, -1, 1), compute(FIRST))
