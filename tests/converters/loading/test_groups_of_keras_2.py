"""Weights in the groups of Keras 2.12 to 2.14 and of tf_keras, for classes of the user."""

from __future__ import annotations

import contextlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class Alpha(keras.Model):
    def __init__(self):
        super().__init__()
        self.a = layers.Dense(4, activation="tanh")
        self.z = layers.Dense(4)

    def call(self, x):
        return self.z(self.a(x))

class Omega(keras.Model):
    def __init__(self):
        super().__init__()
        self.z = layers.Dense(4, activation="tanh")
        self.a = layers.Dense(4)

    def call(self, x):
        return self.a(self.z(x))

class Lists(keras.Model):
    def __init__(self):
        super().__init__()
        self.stages, self.blocks, self._private = [], [], layers.Dense(4)
        self.first = layers.Dense(4, activation="tanh")
        self.second = layers.Dense(4, activation="tanh")
        for _ in range(2):
            self.blocks.append(layers.Dense(4, activation="relu"))
            self.stages.append(layers.Dense(4))
        self.b = self.blocks[1]
        self.second = layers.Dense(4)

    def call(self, x):
        x = self._private(self.second(self.first(x)))
        for block, stage in zip(self.blocks, self.stages):
            x = stage(block(x))
        return x

class Mappings(keras.Model):
    def __init__(self):
        super().__init__()
        self.heads = {"y": layers.Dense(4, activation="tanh"), "x": layers.Dense(4)}
        self.nets = {"y": layers.Dense(4, activation="tanh"), "x": layers.Dense(4)}

    def call(self, x):
        x = self.heads["x"](self.heads["y"](x))
        return self.nets["x"](self.nets["y"](x))

class Inner(keras.Model):
    def __init__(self):
        super().__init__()
        x = keras.Input((3, 4))
        y = layers.Dense(4)(layers.Dense(4, activation="tanh")(x))
        self.inner = keras.Model(x, layers.Dense(4, activation="relu")(y))
        self.outer = keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(4)])
        self.attention = layers.MultiHeadAttention(2, 3)

    def call(self, x):
        x = self.outer(self.inner(x))
        return x + self.attention(x, x)

class Scaled(layers.Layer):
    def build(self, shape):
        self.shift = self.add_weight(name="shift", shape=(4,))
        self.scale = tf.Variable(initial_value=lambda: tf.ones((4,)))
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x * self.scale + self.shift)

class Scales(keras.Model):
    def __init__(self):
        super().__init__()
        self.scales = [Scaled(), Scaled(), Scaled()]
        self.b = self.scales[1]

    def call(self, x):
        for layer in self.scales:
            x = tf.tanh(layer(x))
        return x

class Block(keras.Sequential):
    def __init__(self, units=4):
        super().__init__()
        self.add(layers.Dense(units, use_bias=False))
        self.add(layers.BatchNormalization())
        self.add(layers.Dense(units, activation="tanh"))

class Blocks(keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.others = Block(), [Block(), Block()]
        self.out = layers.Dense(4)

    def call(self, x):
        for block in (self.block, *self.others):
            x = block(x)
        return self.out(x)

def blocks():
    x = keras.Input((3, 4))
    return keras.Model(x, layers.TimeDistributed(Block())(Block()(x)))

class Heads(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.heads = {"y": layers.Dense(4, activation="tanh"), "x": layers.Dense(4)}

    def call(self, x):
        return self.heads["x"](self.heads["y"](x))

def functional():
    x = keras.Input((3, 4))
    y = layers.Dropout(0.1)(layers.Dense(4, activation="tanh")(x))
    inner = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(4)])
    return keras.Model(x, layers.Dense(4)(layers.Dense(4, activation="tanh")(inner(y))))

def of_layer():
    x = keras.Input((3, 4))
    return keras.Model(x, Heads()(x))
"""
MODELS = ("Alpha", "Omega", "Lists", "Mappings", "Inner", "Scales", "Blocks")
VERSIONS = ("2.13.1", "2.14.0", "2.21.0")
X = np.random.default_rng(3).normal(size=(5, 3, 4)).astype("float32")


@contextlib.contextmanager
def saving_as(version: str) -> Iterator[None]:
    """Let tf_keras save what ``saving_lib`` of a Keras 2 does, by the sources of that version.

    Until 2.14, it walks attributes in alphabetical order, also ``_layer_checkpoint_dependencies``
    of functional models. Until 2.13, the names of layers in a list count those stored before.
    """
    from tf_keras.src.saving import saving_lib
    from tf_keras.src.utils.generic_utils import to_snake_case

    walk, container = saving_lib._walk_trackable, saving_lib._save_container_state
    skipped = saving_lib.ATTR_SKIPLIST

    def ascending(trackable: Any) -> Iterator[tuple[str, Any]]:
        return iter(sorted(walk(trackable), key=lambda item: item[0]))

    def counting_all(
        items: Any, weights_store: Any, assets_store: Any, inner_path: str, visited_trackables: Any
    ) -> None:
        counts: Counter[str] = Counter()
        stores = (weights_store, assets_store)
        for item in items.values() if isinstance(items, dict) else items:
            if saving_lib._is_keras_trackable(item):
                name = to_snake_case(type(item).__name__)
                key = f"{name}_{counts[name]}" if counts[name] else name
                counts[name] += 1
                saving_lib._save_state(item, *stores, f"{inner_path}/{key}", visited_trackables)

    numbers = tuple(map(int, version.split(".")))
    if numbers < (2, 15):
        skipped, walk_of_version = skipped - {"_layer_checkpoint_dependencies"}, ascending
    else:
        walk_of_version = walk
    with (
        mock.patch.object(saving_lib, "ATTR_SKIPLIST", skipped),
        mock.patch.object(saving_lib, "_walk_trackable", walk_of_version),
        mock.patch.object(
            saving_lib, "_save_container_state", counting_all if numbers < (2, 14) else container
        ),
        mock.patch.object(saving_lib.keras, "__version__", version),
    ):
        yield


def model_of_keras_2(name: str) -> Any:
    """The model of the program in tf_keras, with random weights."""
    program = run_in_tf_keras(PROGRAM)
    model = program[name]()
    model(X)
    generator = np.random.default_rng(2)
    weights = [generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()]
    for index, variable in enumerate(model.weights):
        if "variance" in variable.name:
            weights[index] = np.abs(weights[index])
    model.set_weights(weights)
    return model


def written_program(tmp_path: Path, name: str = "") -> Path:
    path = tmp_path / "program.py"
    path.write_text(f"{PROGRAM}\ndef build():\n    return {name}()\n" if name else PROGRAM)
    np.savez(tmp_path / "x.npz", x=X)
    return path


def saved_and_loaded(name: str, version: str, folder: Path) -> tuple[Any, Any]:
    """A model of tf_keras, and what is loaded from its weights, saved as by ``version``."""
    model = model_of_keras_2(name)
    with saving_as(version):
        model.save_weights(folder / "m.weights.h5")
    loaded = load_model(
        audit_file(folder / "m.weights.h5"),
        architecture=f"{written_program(folder, name)}:build",
        samples=folder / "x.npz",
    )
    return model, loaded


@pytest.mark.parametrize(
    "case",
    only(
        [(name, version) for name in MODELS for version in VERSIONS],
        ("Mappings", "2.21.0"),
    ),
)
def test_classes_in_files_of_keras_2_have_their_weights(
    case: tuple[str, str], tmp_path: Path
) -> None:
    name, version = case
    model = model_of_keras_2(name)
    with saving_as(version):
        model.save(tmp_path / "m.keras")
    loaded = load_model(
        audit_file(tmp_path / "m.keras"),
        custom_objects=written_program(tmp_path),
        samples=tmp_path / "x.npz",
    )
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", only(VERSIONS, "2.13.1"))
def test_layers_of_functional_files_of_keras_2_have_their_weights(
    version: str, tmp_path: Path
) -> None:
    model = model_of_keras_2("functional")
    with saving_as(version):
        model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


def test_layers_in_a_dictionary_have_their_weights_in_h5_files_of_keras_2(tmp_path: Path) -> None:
    model = model_of_keras_2("of_layer")
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=written_program(tmp_path))
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


def test_files_that_windows_wrote_have_backslashes(tmp_path: Path) -> None:
    model = model_of_keras_2("Alpha")
    with saving_as("2.14.0"):
        model.save(tmp_path / "slashes.keras")
        model.save_weights(tmp_path / "slashes.weights.h5")
    with (
        h5py.File(tmp_path / "slashes.weights.h5") as slashes,
        h5py.File(tmp_path / "windows.h5", "w") as windows,
    ):
        for path in ("a", "layers/dense"):
            group = windows.create_group(path.replace("/", "\\")).create_group("vars")
            for key, array in slashes[f"{path}/vars"].items():
                group[key] = array[()]
        # A compiled model of Keras 2.14, with the number of steps and the first moments.
        optimizer = windows.create_group("optimizer").create_group("vars")
        optimizer["0"], optimizer["1"] = np.int64(7), np.ones((4, 4), "float32")
    with (
        zipfile.ZipFile(tmp_path / "slashes.keras") as source,
        zipfile.ZipFile(tmp_path / "m.keras", "w") as target,
    ):
        for name in ("config.json", "metadata.json"):
            target.writestr(name, source.read(name))
        target.write(tmp_path / "windows.h5", "model.weights.h5")
    loaded = load_model(
        audit_file(tmp_path / "m.keras"),
        custom_objects=written_program(tmp_path),
        samples=tmp_path / "x.npz",
    )
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    only(
        (
            ("Alpha", "2.14.0", "Keras 2.14"),
            ("Lists", "2.13.1", "Keras 2.13"),
            ("Lists", "2.14.0", "Keras 2.14"),
            ("Mappings", "2.14.0", "Keras 2.14"),
            ("Mappings", "2.21.0", "tf_keras"),
            ("Inner", "2.13.1", "Keras 2."),
            ("Omega", "2.21.0", "tf_keras"),
            ("Blocks", "2.14.0", "Keras 2.14"),
            ("Blocks", "2.21.0", "tf_keras"),
        ),
        ("Mappings", "2.14.0", "Keras 2.14"),
    ),
)
def test_weights_without_a_version_are_those_of_the_groups_that_fit(
    case: tuple[str, str, str], tmp_path: Path
) -> None:
    name, version, keras = case
    model, loaded = saved_and_loaded(name, version, tmp_path)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
    assert any(f"in groups as in {keras}" in note for note in loaded.notes)


@pytest.mark.parametrize("version", only(VERSIONS, "2.13.1"))
def test_variables_of_tensorflow_show_that_keras_2_has_saved_them(
    version: str, tmp_path: Path
) -> None:
    model, loaded = saved_and_loaded("Scales", version, tmp_path)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
    groups = "Its weights are in groups as in tf_keras"  # which no other version has
    reason = groups if version == "2.21.0" else "Its weights do not fit the model in Keras 3"
    assert any(reason in note for note in loaded.notes)


@pytest.mark.parametrize("version", only(VERSIONS, "2.21.0"))
def test_a_sequential_of_the_user_has_its_weights_in_functional_models(
    version: str, tmp_path: Path
) -> None:
    model = model_of_keras_2("blocks")
    with saving_as(version):
        model.save_weights(tmp_path / "m.weights.h5")
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"),
        architecture=f"{written_program(tmp_path)}:blocks",
    )
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("not_compared")
def test_weights_without_a_version_that_fit_in_two_ways_are_reported(tmp_path: Path) -> None:
    # Keras 2.13 sorts the layers of a dictionary in groups of the same names.
    model, loaded = saved_and_loaded("Mappings", "2.13.1", tmp_path)
    error = float(np.abs(np.asarray(loaded.model(X)) - np.asarray(model(X))).max())
    assert error > 0.01
    assert any("Keras 2 would assign others" in note for note in loaded.notes)


NESTED = """
from tensorflow import keras
from tensorflow.keras import layers

class Nested(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"z": layers.Dense(4), "a": [layers.Dense(4), layers.Dense(4)]}

    def call(self, x):
        return self.parts["a"][1](self.parts["a"][0](x)) - self.parts["z"](x)

def build():
    x = keras.Input((4,))
    return keras.Model(x, Nested()(x))
"""


@pytest.mark.parametrize("package", only(["tf_keras", "keras"], "keras"))
def test_files_without_the_weights_of_layers_in_nested_containers(
    package: str, tmp_path: Path
) -> None:
    """Keras 2 does not save them, and Keras 3 warns and leaves them as they were created."""
    program: dict[str, Any] = {}
    exec(NESTED.replace("from tensorflow import keras", f"import {package} as keras")
         .replace("tensorflow.keras", package), program)  # fmt: skip
    model = program["build"]()
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "program.py").write_text(NESTED)
    file, architecture = audit_file(tmp_path / "m.weights.h5"), f"{tmp_path}/program.py:build"
    if package == "tf_keras":
        with pytest.raises(UnsupportedModelError, match="no weights for 4 of 6 variables"):
            load_model(file, architecture=architecture)
        return
    x = np.random.default_rng(3).normal(size=(5, 4)).astype("float32")
    loaded = load_model(file, architecture=architecture)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
