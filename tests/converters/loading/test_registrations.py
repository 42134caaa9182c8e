"""Classes and functions that the user's file registers with Keras, mostly by importing a package.

The reference is what Keras computes after the same import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import every_third, only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.custom_layers import missing_class

X = np.random.default_rng(8).normal(size=(4, 5, 3)).astype("float32")
PACKAGE = "sensorlayers_of_tests"
OTHER = "otherlayers_of_tests"
# Classes of one name in two packages, which compute different values.
POOL = """
import keras

class Pool(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1), name="w")

    def call(self, x):
        return keras.ops.sum(keras.ops.softmax(x @ self.w, axis=1) * x, axis=1)
"""
REGISTERED = POOL.replace("class", '@keras.saving.register_keras_serializable("sensors")\nclass')
OF_TF_KERAS = POOL.replace("import keras\n", "import keras\nimport tensorflow as tf\n").replace(
    "class", '@tf.keras.utils.register_keras_serializable(package="sensors")\nclass'
)
OTHER_POOL = REGISTERED.replace('("sensors")', '("others")').replace("* x, axis", "+ x, axis")


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """Nothing that a test imports or registers is left for the next."""
    objects = keras.saving.get_custom_objects()
    before, modules = dict(objects), set(sys.modules)
    yield
    forget(before)
    for name in set(sys.modules) - modules:
        if "of_tests" in name or name.startswith("edgeattn_user"):
            del sys.modules[name]


def forget(before: dict[str, Any]) -> None:
    objects = keras.saving.get_custom_objects()
    for name in [name for name in objects if not name.startswith("edgeattn")]:
        del objects[name]
    objects.update(before)


def write(folder: Path, **texts: str) -> None:
    """Write the files of packages: the name of a module, with ``__`` for dots, and its text."""
    for name, text in texts.items():
        path = folder.joinpath(*name.split("__")) / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def saved(
    folder: Path, build: Callable[..., Any], *modules: str, name: str = "m.keras", own: str = ""
) -> Any:
    """Save a model of the packages in a folder and return what Keras computes when it has loaded
    the file again; then forget the packages, as in a new process."""
    before = dict(keras.saving.get_custom_objects())
    sys.path.insert(0, str(folder))
    try:
        imported = [importlib.import_module(module) for module in modules]
        names: dict[str, Any] = {"__name__": "own"}
        exec(own, names)
        model = build(*imported)
        generator = np.random.default_rng(17)
        for variable in model.weights:
            variable.assign(generator.normal(0, 0.5, variable.shape))
        model.save(folder / name)
        expected = np.asarray(keras.models.load_model(folder / name)(X))
        np.testing.assert_allclose(expected, model(X), atol=1e-6)
    finally:
        sys.path.remove(str(folder))
        forget(before)
        for module in list(sys.modules):
            if "of_tests" in module and not module.startswith("test"):
                del sys.modules[module]
    return expected


def pooled(module: Any) -> Any:
    x = keras.Input((5, 3))
    y = module.Pool(name="pool")(layers.LSTM(4, return_sequences=True)(x))
    return keras.Model(x, layers.Dense(2)(y))


def check(folder: Path, own: str, expected: Any, name: str = "m.keras", **options: Any) -> None:
    (folder / "co.py").write_text(own)
    loaded = load_model(audit_file(folder / name), custom_objects=folder / "co.py", **options)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-6)


IMPORTS = {
    "package": (f"import {PACKAGE}", {PACKAGE: REGISTERED}),
    "submodule": (
        f"import {PACKAGE}.layers as pl",
        {PACKAGE: "", f"{PACKAGE}__layers": REGISTERED},
    ),
    "registered in a submodule": (
        f"import {PACKAGE} as s",
        {PACKAGE: "from .inner import Pool", f"{PACKAGE}__inner": REGISTERED},
    ),
    "hidden submodule": (
        f"import {PACKAGE}",
        {
            PACKAGE: "from . import inner as _inner\ndef __getattr__(name):\n"
            "    return getattr(_inner, name)\n",
            f"{PACKAGE}__inner": REGISTERED,
        },
    ),
    "another object": (
        f"from {PACKAGE} import helper",
        {PACKAGE: f"{REGISTERED}\ndef helper():\n    pass"},
    ),
    "in a function": (
        f"def register():\n    import {PACKAGE}\nregister()\ndel register",
        {PACKAGE: REGISTERED},
    ),
    "importlib": (
        f"import importlib\nimportlib.import_module('{PACKAGE}')",
        {PACKAGE: REGISTERED},
    ),
    "tf.keras": (f"import {PACKAGE}", {PACKAGE: OF_TF_KERAS}),
    "item of the registry": (
        f"import {PACKAGE}",
        {PACKAGE: f"{POOL}\nkeras.saving.get_custom_objects()['Pool'] = Pool"},
    ),
    "update of the registry": (
        f"import {PACKAGE}",
        {PACKAGE: f"{POOL}\nkeras.utils.get_custom_objects().update({{'Pool': Pool}})"},
    ),
    "registry in the file": (
        f"import keras, {PACKAGE}\n"
        f"keras.utils.get_custom_objects()['Pool'] = {PACKAGE}.Pool",
        {PACKAGE: POOL},
    ),
    "registry of Keras 2 in the file": (
        f"import {PACKAGE}\nfrom keras.utils.generic_utils import get_custom_objects\n"
        f"get_custom_objects().update({{'Pool': {PACKAGE}.Pool}})",
        {PACKAGE: POOL},
    ),
    "registry of tf.keras in the file": (
        f"import {PACKAGE}, tensorflow as tf\n"
        f"tf.keras.utils.get_custom_objects().update(Pool={PACKAGE}.Pool)",
        {PACKAGE: POOL},
    ),
    "other objects cleared": (
        f"import {PACKAGE}, keras\nkeras.saving.get_custom_objects().clear()\n"
        f"keras.saving.get_custom_objects()['sensors>Pool'] = {PACKAGE}.Pool",
        {PACKAGE: REGISTERED},
    ),
    "key of custom_objects": (
        f"import {PACKAGE}\ncustom_objects = {{'sensors>Pool': {PACKAGE}.Pool}}",
        {PACKAGE: REGISTERED},
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("kind", every_third(list(IMPORTS)))
def test_classes_that_an_import_registers(kind: str, suffix: str, tmp_path: Path) -> None:
    own, texts = IMPORTS[kind]
    write(tmp_path, **texts)
    module = f"{PACKAGE}.layers" if kind == "submodule" else PACKAGE
    of_file = f"import keras, {PACKAGE}\nkeras.utils.get_custom_objects()['Pool']={PACKAGE}.Pool"
    setup = of_file if "in the file" in kind else ""
    expected = saved(tmp_path, pooled, module, name=f"m{suffix}", own=setup)
    for _ in range(2):  # the second time, the package is imported already
        check(tmp_path, own, expected, f"m{suffix}")


def test_another_file_that_imports_the_same_package(tmp_path: Path) -> None:
    """In the same process, in which importing it does not register anything any more."""
    write(tmp_path, **{PACKAGE: REGISTERED})
    expected = saved(tmp_path, pooled, PACKAGE)
    check(tmp_path, f"import {PACKAGE}", expected)
    (tmp_path / "second.py").write_text(f"import {PACKAGE} as layers")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "second.py")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-6)


def test_classes_that_another_file_registered_are_not_found(tmp_path: Path) -> None:
    write(tmp_path, **{PACKAGE: REGISTERED})
    check(tmp_path, f"import {PACKAGE}", saved(tmp_path, pooled, PACKAGE))
    (tmp_path / "second.py").write_text("import keras")
    for second in (tmp_path / "second.py", None):
        with pytest.raises(UnsupportedModelError, match="needs the class 'Pool' of the module"):
            load_model(audit_file(tmp_path / "m.keras"), custom_objects=second)


def test_what_the_model_file_names_is_not_imported(tmp_path: Path) -> None:
    write(tmp_path, **{PACKAGE: REGISTERED, OTHER: OTHER_POOL})
    saved(tmp_path, pooled, PACKAGE)
    (tmp_path / "co.py").write_text(f"import {OTHER}")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "co.py")
    assert PACKAGE not in sys.modules
    assert f"or write in that file: from {PACKAGE} import Pool" in str(error.value.hint)


def test_the_line_of_the_hint_is_enough(tmp_path: Path) -> None:
    write(tmp_path, **{PACKAGE: POOL})  # not registered, so that Keras would not find it either
    x = f"import keras, {PACKAGE}\nkeras.utils.get_custom_objects()['Pool']={PACKAGE}.Pool"
    expected = saved(tmp_path, pooled, PACKAGE, own=x)
    (tmp_path / "co.py").write_text(f"import {PACKAGE}")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "co.py")
    check(tmp_path, str(error.value.hint).rpartition("file: ")[2], expected)


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".h5"))
def test_a_class_that_is_registered_under_another_name(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, **{PACKAGE: REGISTERED.replace('("sensors")', '("sensors", name="Mean")')})
    expected = saved(tmp_path, pooled, PACKAGE, name=f"m{suffix}")
    check(tmp_path, f"import {PACKAGE}", expected, f"m{suffix}")


OWN_FILES = {
    "imported": f"import {PACKAGE}, {OTHER}",
    "one by its name": f"from {OTHER} import Pool\nimport {PACKAGE}",
    "the other by its name": f"from {PACKAGE} import Pool\nimport {OTHER}",
    "another class of the file": f"import {PACKAGE}, {OTHER}\n{POOL.replace('x @ self.w', 'x')}",
}


@pytest.mark.long
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("own", OWN_FILES)
def test_classes_of_one_name_in_two_packages(own: str, suffix: str, tmp_path: Path) -> None:
    """The one that the file imports by its name was taken for both: the outputs were wrong."""

    def build(package: Any, other: Any) -> Any:
        x = keras.Input((5, 3))
        y = layers.LSTM(4, return_sequences=True)(x)
        both = layers.Concatenate()([other.Pool()(y), package.Pool()(y), other.Pool()(y)])
        return keras.Model(x, layers.Dense(2)(both))

    write(tmp_path, **{PACKAGE: REGISTERED, OTHER: OTHER_POOL})
    expected = saved(tmp_path, build, PACKAGE, OTHER, name=f"m{suffix}")
    check(tmp_path, OWN_FILES[own], expected, f"m{suffix}")


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("base", ["Layer", "Dense"])
def test_a_registered_class_with_the_name_of_one_of_keras(
    base: str, suffix: str, tmp_path: Path
) -> None:
    text = {
        "Layer": REGISTERED.replace("Pool", "Dense"),
        "Dense": "import keras\n@keras.saving.register_keras_serializable('sensors')\n"
        "class Dense(keras.layers.Dense):\n    def call(self, x):\n"
        "        return super().call(x)[:, 0] * 3\n",
    }[base]

    def build(package: Any) -> Any:
        x = keras.Input((5, 3))
        own = package.Dense(**({"units": 4} if base == "Dense" else {}))
        return keras.Model(x, layers.Dense(2)(own(layers.Dense(3)(x))))

    write(tmp_path, **{PACKAGE: text})
    expected = saved(tmp_path, build, PACKAGE, name=f"m{suffix}")
    check(tmp_path, f"import {PACKAGE}", expected, f"m{suffix}")


INSIDE = """
import keras

@keras.saving.register_keras_serializable("sensors")
class Cell(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

    def call(self, x, states):
        h = keras.ops.tanh(x @ self.w + states[0])
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}

@keras.saving.register_keras_serializable("sensors")
class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return x * self.w

    def compute_output_shape(self, shape):
        return shape

@keras.saving.register_keras_serializable("sensors")
class Twice(keras.layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x) * 2

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)

@keras.saving.register_keras_serializable("sensors")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = Scaled(), keras.layers.LSTM(3)

    def call(self, x):
        return self.second(self.first(x))

@keras.saving.register_keras_serializable("sensors")
def squared(x):
    return x * x / 2

@keras.saving.register_keras_serializable("sensors")
def relu(x):
    return keras.ops.tanh(x) * 3
"""
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "cell": lambda own, x: layers.RNN(own.Cell(4))(x),
    "cells": lambda own, x: layers.RNN([own.Cell(4), layers.GRUCell(3)])(x),
    "bidirectional": lambda own, x: layers.Bidirectional(layers.RNN(own.Cell(4)))(x),
    "time-distributed": lambda own, x: layers.TimeDistributed(own.Scaled())(x),
    "in another class": lambda own, x: own.Twice(own.Scaled())(x),
    "in a class that Keras has": lambda own, x: own.Twice(layers.Dense(3))(x),
    "nested model": lambda own, x: keras.Sequential([own.Scaled(), layers.LSTM(2)])(x),
    "model": lambda own, x: own.Net()(x),
    "activation": lambda own, x: layers.Dense(4, activation=own.squared)(x),
    "activation with the name of one of Keras": lambda own, x: layers.LSTM(
        3, activation=own.relu
    )(layers.Dense(4, activation="relu")(x)),
    "activation layer": lambda own, x: layers.Activation(own.squared)(x),
    "lambda": lambda own, x: layers.Lambda(own.squared)(x),
}  # fmt: skip


@pytest.mark.parametrize("place", every_third(list(PLACES)))
def test_places_of_registered_objects(place: str, tmp_path: Path) -> None:
    def build(own: Any) -> Any:
        x = keras.Input((5, 3))
        return keras.Model(x, PLACES[place](own, x))

    write(tmp_path, **{PACKAGE: INSIDE})
    expected = saved(tmp_path, build, PACKAGE)
    check(tmp_path, f"import {PACKAGE}", expected)


def test_a_whole_model_of_a_registered_class(tmp_path: Path) -> None:
    def build(own: Any) -> Any:
        model = own.Net()
        model(X)
        return model

    write(tmp_path, **{PACKAGE: INSIDE})
    expected = saved(tmp_path, build, PACKAGE)
    check(tmp_path, f"import {PACKAGE}", expected)


@pytest.mark.parametrize("kind", ["json", "program"])
def test_architectures_with_registered_classes(kind: str, tmp_path: Path) -> None:
    """In a file of its own, which a program may also load."""

    def build(own: Any) -> Any:
        model = pooled(own)
        (tmp_path / "m.json").write_text(model.to_json())
        return model

    write(tmp_path, **{PACKAGE: REGISTERED})
    expected = saved(tmp_path, build, PACKAGE)
    (tmp_path / "build.py").write_text(
        f"import keras, {PACKAGE}\ndef build():\n"
        f"    return keras.models.model_from_json(open({str(tmp_path / 'm.json')!r}).read())\n"
    )
    (tmp_path / "co.py").write_text(f"import {PACKAGE}")
    options: dict[str, Any] = {
        "json": {
            "architecture": str(tmp_path / "m.json"),
            "custom_objects": tmp_path / "co.py",
        },
        "program": {"architecture": f"{tmp_path / 'build.py'}:build"},
    }[kind]
    saved_weights(tmp_path)
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), **options)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-6)


def saved_weights(folder: Path) -> None:
    """Write the weights in the file of a whole model as a file of their own."""
    import zipfile

    with zipfile.ZipFile(folder / "m.keras") as archive:
        (folder / "m.weights.h5").write_bytes(archive.read("model.weights.h5"))


REGISTRIES = [
    "from keras.utils.generic_utils import get_custom_objects",
    "from keras.utils import get_custom_objects",
    "from tensorflow.keras.utils import get_custom_objects",
]


@pytest.mark.compared
@pytest.mark.parametrize("line", only(REGISTRIES, REGISTRIES[0]))
@pytest.mark.parametrize("name", ["squared", "swish"])
def test_activations_in_the_registry_of_keras_2(line: str, name: str, tmp_path: Path) -> None:
    """Also with the name of one that Keras has by now, for which a choice was required."""
    import tf_keras

    def function(x: Any) -> Any:
        return x * tf_keras.backend.sigmoid(x * 3)

    tf_keras.utils.get_custom_objects()[name] = function
    function.__name__ = name
    try:
        x = tf_keras.Input((5, 3))
        model = tf_keras.Model(x, tf_keras.layers.Dense(4, activation=name)(x))
        model.save(tmp_path / "m.h5")
        expected = np.asarray(model(X))
    finally:
        del tf_keras.utils.get_custom_objects()[name]
    own = (
        f"from keras import backend as K\n{line}\ndef {name}(x):\n    return x * K.sigmoid(x * 3)\n"
        f"get_custom_objects().update({{'{name}': {name}}})\n"
    )
    check(tmp_path, own, expected, "m.h5")


@pytest.mark.compared
@pytest.mark.parametrize("kind", only(["imported", "by name"], "by name"))
def test_classes_of_tf_keras(kind: str, tmp_path: Path) -> None:
    import tf_keras

    text = REGISTERED.replace("import keras\n", "import keras\nfrom keras import backend as K\n")
    text = text.replace("@keras.saving", "@keras.utils").replace(
        "return keras.ops.sum(keras.ops.softmax(x @ self.w, axis=1) * x, axis=1)",
        "return K.sum(keras.activations.softmax(K.dot(x, self.w), axis=1) * x, axis=1)",
    )
    names: dict[str, Any] = {"__name__": "own"}
    exec(text.replace("import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"), names)
    x = tf_keras.Input((5, 3))
    y = names["Pool"]()(tf_keras.layers.GRU(4, return_sequences=True)(x))
    model = tf_keras.Model(x, y)
    model.save(tmp_path / "m.h5")
    write(tmp_path, **{PACKAGE: text})
    own = f"import {PACKAGE}" if kind == "imported" else f"from {PACKAGE} import Pool"
    check(tmp_path, own, np.asarray(model(X)), "m.h5")


HUB = {
    "module": "keras_hub.src.layers.encoder",
    "class_name": "Encoder",
    "registered_name": "keras_hub>Encoder",
    "config": {"name": "encoder"},
}


@pytest.mark.parametrize("place", ["beside the file", "installed"])
def test_packages_that_can_be_imported_need_no_installation(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint was to run pip."""
    assert "Run: pip install keras-hub." in missing_class(HUB).hint
    folder = tmp_path / ("site-packages" if place == "installed" else "")
    write(folder, keras_hub="raise SystemError('nothing imports it')")
    if place == "installed":
        monkeypatch.syspath_prepend(folder)
        hint = missing_class(HUB).hint
        assert hint.startswith("Write 'from keras_hub.src.layers.encoder import Encoder' in a Pyth")
        assert "pip" not in hint
    hint = missing_class(HUB, script=tmp_path / "co.py").hint
    assert hint.startswith("Write 'from keras_hub.src.layers.encoder import Encoder' in co.py.")
    assert "pip" not in hint


@pytest.mark.parametrize("line", ["import {}.gone", "from {}.gone import Pool"])
def test_a_module_that_an_installed_package_lacks(line: str, tmp_path: Path) -> None:
    """The hint was to install the package."""
    write(tmp_path, **{PACKAGE: REGISTERED})
    saved(tmp_path, pooled, PACKAGE)
    (tmp_path / "co.py").write_text(line.format(PACKAGE))
    with pytest.raises(UsageError) as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "co.py")
    assert f"The package {PACKAGE} is installed and has no module gone." in str(error.value.hint)
