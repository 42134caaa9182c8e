"""Tensors that classes compute from their weights in ``build``: slices of a kernel, their norms.

In TensorFlow 1 they followed the weights, so the results are those of NumPy with the stored ones.
Since TensorFlow 2 they keep the initial weights, which no file contains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code import classes_of_keras_2
from edgeattn_converters.loading.own_code.values_of_build import with_trained

X = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")
OFFSET = np.array([0.5, -0.5])
BUILD = """
class Halves(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 4), initializer="INITIAL")
        self.offset = K.constant([0.5, -0.5])
        {computed}
        self.built = True

    def call(self, x):
        {call}
"""
SLICES = BUILD.format(
    computed="self.left, self.right = self.kernel[:, :2], [self.kernel[:, 2:]]",
    call="return K.dot(x, self.left) - K.dot(x, self.right[0]) + self.offset",
)
NORM = BUILD.format(
    computed="self.norm = K.sqrt(K.sum(K.square(self.kernel)))",
    call="return K.dot(x, self.kernel)[:, :2] / self.norm + self.offset",
)
RANDOM = BUILD.format(
    computed="self.noise = K.random_normal((2,))", call="return x[:, :2] + self.noise"
)
CONSTANT = BUILD.format(
    computed="self.last = None",
    call="self.last = K.dot(x, self.kernel)\n        return self.last[:, :2] + self.offset",
)


def saved(text: str, folder: Path, version: str, initial: str) -> tuple[Path, Path, Any]:
    """A file with the layer, that of its class, and the stored kernel."""
    names: dict[str, Any] = {"__name__": "own", "keras": tf_keras, "K": tf_keras.backend}
    exec(text.replace("INITIAL", initial), names)
    x = tf_keras.Input((3,))
    model = tf_keras.Model(x, names["Halves"](name="halves")(x))
    kernel = np.random.default_rng(5).normal(size=(3, 4)).astype("float32")
    model.set_weights([kernel])
    path, own = folder / "m.h5", folder / "own.py"
    model.save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs["keras_version"] = version
    own.write_text(
        "import keras\nfrom keras import backend as K\n" + text.replace("INITIAL", initial)
    )
    return path, own, kernel


@pytest.mark.long
@pytest.mark.parametrize("initial", ["glorot_uniform", "zeros"])
@pytest.mark.parametrize(
    ("text", "version"), [(SLICES, "2.2.4"), (SLICES, "2.2.4-tf"), (NORM, "2.1.6-tf")]
)
def test_tensors_follow_the_weights_as_in_tensorflow_1(
    text: str, version: str, initial: str, tmp_path: Path
) -> None:
    path, own, kernel = saved(text, tmp_path, version, initial)
    model = load_model(audit_file(path), custom_objects=own).model
    expected = X @ kernel[:, :2] - X @ kernel[:, 2:]
    if text is NORM:
        expected = X @ kernel[:, :2] / np.sqrt(np.sum(kernel**2))
    np.testing.assert_allclose(model(X), expected + OFFSET, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        (SLICES, "2.3.0-tf", "'left' of layer 'halves' and 'right' of .* from its weights"),
        (NORM, "2.15.0", "'norm' of layer 'halves'.* keep the initial weights"),
        (RANDOM, "2.2.4", "'noise' of.* other values every time"),
    ],
)
def test_lost_tensors_are_named(text: str, version: str, message: str, tmp_path: Path) -> None:
    path, own, _ = saved(text, tmp_path, version, "zeros")
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(audit_file(path), custom_objects=own)


def test_constants_and_results_of_calls_are_no_lost_tensors(tmp_path: Path) -> None:
    path, own, kernel = saved(CONSTANT, tmp_path, "2.15.0", "zeros")
    model = load_model(audit_file(path), custom_objects=own).model
    np.testing.assert_allclose(model(X), X @ kernel[:, :2] + OFFSET, rtol=1e-5, atol=1e-6)


PROGRAM = """
import keras
from keras import ops

class Halves(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 4))
        self.left = self.kernel[:, :2]

    def call(self, x):
        return ops.matmul(x, self.left)

def build():
    x = keras.Input((3,), name="x")
    return keras.Model(x, Halves()(x))
"""


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_of_keras_3_do_not_contain_them(suffix: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(PROGRAM)
    names: dict[str, Any] = {"__name__": "own"}
    exec(PROGRAM, names)
    model, path = names["build"](), tmp_path / f"m{suffix}"
    model.set_weights([np.ones((3, 4))])
    weights_only = suffix == ".weights.h5"
    (model.save_weights if weights_only else model.save)(path)
    options = {"architecture": f"{own}:build"} if weights_only else {"custom_objects": own}
    with pytest.raises(UnsupportedModelError, match="'left' of layer"):
        load_model(audit_file(path), **options)


CALLED = """
import keras

class Parent(keras.layers.Layer):
    def build(self, shape):
        self.parts = []
        {computed}

    def call(self, x):
        self.parts = [x, 2 * x]
        return x

class OfMethod(Parent):
    def keep(self, x):
        self.parts = [x]

    def call(self, x):
        self.keep(x)
        return x

class OfParent(Parent):
    def call(self, x):
        return super().call(x)

class OfFunction(Parent):
    def call(self, x):
        def step(x):
            self.parts = [x]
            return x
        return step(x)

class Other(Parent):
    def call(self, x):
        return x
"""


def called_layer(name: str, computed: str) -> Any:
    """Return a model with the layer, whose methods are wrapped as in files of Keras 2.

    It is called with values, as it is when weights are assigned as in tf_keras.
    """
    import keras

    names: dict[str, Any] = {"__name__": "own"}
    exec(CALLED.format(computed=computed), names)
    classes_of_keras_2.restore_weights(names[name])
    x = keras.Input((3,))
    model = keras.Model(x, names[name]()(x))
    model(X)
    return model


@pytest.mark.parametrize("name", ["Parent", "OfMethod", "OfParent", "OfFunction"])
def test_lists_that_wrapped_calls_set_are_no_lost_tensors(name: str) -> None:
    model, again = called_layer(name, "pass"), called_layer(name, "pass")
    again.layers[1].parts = []  # as before its first call with values
    assert with_trained(model, [], lambda: again, in_graph=False) is model


def test_lists_of_an_overridden_call_are_lost_tensors() -> None:
    computed = "self.parts = [keras.random.normal((2,))]"
    model = called_layer("Other", computed)
    with pytest.raises(UnsupportedModelError, match="'parts' of layer"):
        with_trained(model, [], lambda: called_layer("Other", computed), in_graph=False)
