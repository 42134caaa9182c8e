"""Every layer of Keras 3 may be in a file, and augmentation of images does nothing in inference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.safety import allowed_classes
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
# Base classes, and a layer that is always refused unless its function is recognized.
NOT_STORED = {"InputSpec", "Lambda", "Wrapper"}
OBJECTS = ("initializers", "regularizers", "constraints", "dtype_policies", "activations")


def _classes(module: Any) -> set[str]:
    return {name for name, value in vars(module).items() if inspect.isclass(value)}


def test_every_layer_of_keras_may_be_in_a_file() -> None:
    known = allowed_classes.LAYERS | set(allowed_classes.CODE_CARRYING)
    assert _classes(layers) - known == NOT_STORED


@pytest.mark.parametrize("module", OBJECTS)
def test_every_object_of_keras_may_be_in_a_file(module: str) -> None:
    names = {
        name
        for name, value in vars(getattr(keras, module)).items()
        if callable(value) and not name.startswith("_")
    }
    known = allowed_classes.LAYERS | allowed_classes.PARTS | allowed_classes.FUNCTIONS
    assert names - known == {"deserialize", "get", "serialize"}


AUGMENTATION: Mapping[str, Callable[[], Any]] = {
    "AugMix": lambda: layers.AugMix(),
    "CutMix": lambda: layers.CutMix(),
    "MixUp": lambda: layers.MixUp(),
    "RandAugment": lambda: layers.RandAugment(),
    "RandomBrightness": lambda: layers.RandomBrightness(0.2),
    "RandomColorDegeneration": lambda: layers.RandomColorDegeneration(0.5),
    "RandomColorJitter": lambda: layers.RandomColorJitter(hue_factor=0.2),
    "RandomContrast": lambda: layers.RandomContrast(0.2),
    "RandomCrop": lambda: layers.RandomCrop(4, 5),
    "RandomElasticTransform": lambda: layers.RandomElasticTransform(),
    "RandomErasing": lambda: layers.RandomErasing(),
    "RandomFlip": lambda: layers.RandomFlip(),
    "RandomGaussianBlur": lambda: layers.RandomGaussianBlur(),
    "RandomGrayscale": lambda: layers.RandomGrayscale(),
    "RandomHue": lambda: layers.RandomHue(0.2),
    "RandomInvert": lambda: layers.RandomInvert(),
    "RandomPerspective": lambda: layers.RandomPerspective(),
    "RandomPosterization": lambda: layers.RandomPosterization(3),
    "RandomRotation": lambda: layers.RandomRotation(0.2),
    "RandomSaturation": lambda: layers.RandomSaturation(0.2),
    "RandomSharpness": lambda: layers.RandomSharpness(0.2),
    "RandomShear": lambda: layers.RandomShear(0.2, 0.3),
    "RandomTranslation": lambda: layers.RandomTranslation(0.2, 0.2),
    "RandomZoom": lambda: layers.RandomZoom(0.2),
    "Solarization": lambda: layers.Solarization(0.2),
}
# Keras fails to write their configurations to HDF5.
NOT_IN_HDF5 = {
    *("RandomBrightness", "RandomColorDegeneration", "RandomPosterization", "RandomSaturation"),
    *("RandomSharpness", "Solarization"),
}
IMAGES = np.random.default_rng(2).uniform(0, 255, (2, 6, 8, 3)).astype("float32")


def _model(excluded: Collection[str] = ()) -> Any:
    inputs = keras.Input(IMAGES.shape[1:], name="images")
    outputs = {n: make()(inputs) for n, make in AUGMENTATION.items() if n not in excluded}
    return keras.Model(inputs, outputs)


def test_every_layer_of_augmentation_is_tested() -> None:
    names = {name for name in _classes(layers) if name.startswith("Random")}
    assert names <= set(AUGMENTATION)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_augmentation_loads(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    _model(NOT_IN_HDF5 if suffix == ".h5" else ()).save(path)
    outputs = load_model(audit_file(path)).model.predict(IMAGES, verbose=0)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, IMAGES, err_msg=name)


@pytest.mark.parametrize("format", CONVERTERS)
def test_augmentation_converts(format: str, tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    for name, output in runner.run({"images": IMAGES[:1]}).items():
        np.testing.assert_array_equal(output, IMAGES[:1], err_msg=name)
