"""Registered functions and classes that a class of the user looks up itself, as CfC of ncps does.

The reference is what Keras, or tf_keras, computes after it has loaded the same file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from test_registrations import PACKAGE, X, check, saved, unregistered, write

from edgeattn_converters.loading.own_code.own_functions import activations

__all__ = ["unregistered"]  # nothing that a test registers is left for the next
REGISTERED = """
import keras
from keras import activations, constraints, initializers, losses, regularizers
from keras.saving import deserialize_keras_object, get_registered_object, serialize_keras_object
from keras.saving import get_registered_name, register_keras_serializable as register

@register({package!r})
def {function}(x):
    return keras.ops.tanh(x) * 3

@register({package!r})
def start(shape, dtype=None):
    return keras.ops.ones(shape, dtype) * 0.5

@register({package!r})
class Start(initializers.Initializer):
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype) * self.scale

    def get_config(self):
        return {{"scale": self.scale}}

@register({package!r})
class Bound(constraints.Constraint):
    def __init__(self, top=1.0):
        self.top = top

    def __call__(self, w):
        return keras.ops.clip(w, -self.top, self.top)

    def get_config(self):
        return {{"top": self.top}}

@register({package!r})
class Cost(regularizers.Regularizer):
    def __init__(self, by=1.0):
        self.by = by

    def __call__(self, w):
        return self.by * keras.ops.sum(w * w)

    def get_config(self):
        return {{"by": self.by}}

@register({package!r})
class Gap(losses.Loss):
    def call(self, a, b):
        return keras.ops.abs(a - b)

@register({package!r})
def gap(a, b):
    return keras.ops.abs(a - b)

@register({package!r})
class Inner(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return x * self.w

@register({package!r})
class Own(keras.layers.Layer):
    def __init__(self, {key}=None, **kwargs):
        super().__init__(**kwargs)
        given = {default} if {key} is None else {key}
        self.found = {lookup}

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return {call}

    def get_config(self):
        return {{**super().get_config(), {key!r}: {stored}}}
{more}
"""
# As some classes end, also CfCCell.
FROM_CONFIG = """
    @classmethod
    def from_config(cls, config):
        return cls(**config)
"""
# As ncps does, so that Keras finds the string, too.
IN_KERAS = """
from keras.src.activations import ALL_OBJECTS_DICT
ALL_OBJECTS_DICT["bent"] = bent
"""
ON_ACTIVATION = "self.found(x * self.w)"
# The name of the argument, its default, what looks it up and stores it, and what call returns.
LOOKUPS = {
    "function": (
        "activation", "{function}", "activations.get(given)", "self.found", ON_ACTIVATION,
    ),
    "serialized function": (
        "activation", "{function}", "activations.get(given)", "activations.serialize(self.found)",
        ON_ACTIVATION,
    ),
    "argument of another name": (
        "fn", "{function}", "given if callable(given) else activations.deserialize(given)",
        "activations.serialize(self.found)", ON_ACTIVATION,
    ),
    "object": (
        "fn", "{function}", "given if callable(given) else deserialize_keras_object(given)",
        "serialize_keras_object(self.found)", ON_ACTIVATION,
    ),
    "registered name": (
        "activation", "get_registered_name({function})",
        "given if callable(given) else get_registered_object(given)",
        "get_registered_name(self.found)", ON_ACTIVATION,
    ),
    "initializer": (
        "start", "Start(2.0)", "initializers.get(given)", "initializers.serialize(self.found)",
        "self.found((3,)) * x * self.w",
    ),
    "initializer that is a function": (
        "initializer", "start", "initializers.get(given)", "self.found",
        "self.found((3,)) * x * self.w",
    ),
    "constraint": (
        "bound", "Bound(0.2)", "constraints.get(given)", "constraints.serialize(self.found)",
        "self.found(self.w) * x",
    ),
    "regularizer": (
        "cost", "Cost(0.2)", "regularizers.get(given)", "regularizers.serialize(self.found)",
        "self.found(self.w) * x",
    ),
    "loss": (
        "loss", "Gap()", "losses.get(given)", "losses.serialize(self.found)",
        "self.found(x, x * self.w) * x",
    ),
    "loss that is a function": (
        "loss_function", "gap", "losses.get(given)", "losses.serialize(self.found)",
        "self.found(x, x * self.w)",
    ),
    "layer": (
        "inner", "Inner()", "deserialize_keras_object(given) if isinstance(given, dict) else given",
        "serialize_keras_object(self.found)", "self.found(x) * self.w",
    ),
    "layer of Keras": (
        "layer", "keras.layers.Dense(3, activation={function})",
        "keras.layers.deserialize(given) if isinstance(given, dict) else given",
        "keras.layers.serialize(self.found)", "self.found(x) * self.w",
    ),
    "class": (
        "kind", "get_registered_name(Inner)", "get_registered_object(given)()",
        "get_registered_name(type(self.found))", "self.found(x) * self.w",
    ),
}  # fmt: skip
# The name of the function, and whether the package adds it to those of Keras.
NAMES = {"new": ("bent", ""), "of Keras": ("relu", ""), "added to Keras": ("bent", IN_KERAS)}
OWN_FILES = {
    "imports the package": f"import {PACKAGE}",
    "imports the names": f"from {PACKAGE} import *",
    "defines them": "",
    "registers nothing": "",
}


# Those of the quick tests.
OFTEN = ("object", "registered name", "initializer", "regularizer", "loss", "layer of Keras")


@pytest.fixture(autouse=True)
def only_of_keras() -> Iterator[None]:
    """No function that a package adds to the activations of Keras is left for the next test."""
    from keras.src.activations import ALL_OBJECTS_DICT

    before = dict(ALL_OBJECTS_DICT)
    yield
    ALL_OBJECTS_DICT.clear()
    ALL_OBJECTS_DICT.update(before)


def text(lookup: str, package: str = "sensors", name: str = "new", method: str = "") -> str:
    function, more = NAMES[name]
    key, default, get, stored, call = LOOKUPS[lookup]
    return REGISTERED.format(
        package=package, function=function, key=key, default=default.format(function=function),
        lookup=get, stored=stored, call=call, more=method + more,
    )  # fmt: skip


def build(module: Any) -> Any:
    x = keras.Input((5, 3))
    return keras.Model(x, keras.layers.Dense(2)(module.Own(name="own")(x)))


def own_file(kind: str, source: str) -> str:
    if kind == "registers nothing":
        return source.replace("@register", "@(lambda _: lambda item: item)")
    return OWN_FILES[kind] or source


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("lookup", only(LOOKUPS, *OFTEN))
def test_what_a_class_looks_up(lookup: str, suffix: str, tmp_path: Path) -> None:
    source = text(lookup, method=FROM_CONFIG)
    write(tmp_path, **{PACKAGE: source})
    expected = saved(tmp_path, build, PACKAGE, name=f"m{suffix}")
    check(tmp_path, f"import {PACKAGE}", expected, f"m{suffix}")
    check(tmp_path, own_file("registers nothing", source), expected, f"m{suffix}")


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("package", only(["", "sensors"], ""))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lookup", only(list(LOOKUPS)[:5], "function"))
def test_names_of_functions(
    lookup: str, name: str, package: str, suffix: str, tmp_path: Path
) -> None:
    """Without a package, and with the name of one of Keras."""
    write(tmp_path, **{PACKAGE: text(lookup, package, name)})
    expected = saved(tmp_path, build, PACKAGE, name=f"m{suffix}")
    check(tmp_path, f"import {PACKAGE}", expected, f"m{suffix}")


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", OWN_FILES)
@pytest.mark.parametrize("method", ["", FROM_CONFIG], ids=["init", "from_config"])
@pytest.mark.parametrize("lookup", ["serialized function", "layer of Keras", "registered name"])
def test_own_files(lookup: str, method: str, kind: str, suffix: str, tmp_path: Path) -> None:
    source = text(lookup, "", "of Keras", method)
    write(tmp_path, **{PACKAGE: source})
    expected = saved(tmp_path, build, PACKAGE, name=f"m{suffix}")
    check(tmp_path, own_file(kind, source), expected, f"m{suffix}")


@pytest.mark.parametrize("stored", ["self.found", "get_registered_name(self.found)"])
def test_functions_that_keras_passes_in_place_of_names(stored: str, tmp_path: Path) -> None:
    """In .h5 files, to any argument of a class, which looks nothing up."""
    LOOKUPS["nothing"] = ("fn", "{function}", "given", stored, ON_ACTIVATION)
    try:
        source = text("nothing")
    finally:
        del LOOKUPS["nothing"]
    write(tmp_path, **{PACKAGE: source})
    expected = saved(tmp_path, build, PACKAGE, name="m.h5")
    for kind in ("imports the package", "registers nothing"):
        check(tmp_path, own_file(kind, source), expected, "m.h5")


def test_names_of_keras_3_6(tmp_path: Path) -> None:
    """They had no package. The current Keras finds such a function of a Keras layer only."""
    write(tmp_path, **{PACKAGE: text("serialized function", "")})
    expected = saved(tmp_path, build, PACKAGE)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = contents["config.json"].decode()
    assert '"config": ">bent"' in config
    contents["config.json"] = config.replace('"config": ">bent"', '"config": "bent"').encode()
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    check(tmp_path, f"import {PACKAGE}", expected)


def test_two_packages_with_one_name(tmp_path: Path) -> None:
    """Each class has the function of its own package."""
    source = text("serialized function", "sensors")
    other = text("serialized function", "others").replace("* 3", "* 5")
    other = other.replace("class Own(", "class Other(")
    write(tmp_path, **{PACKAGE: source, "otherlookups_of_tests": other})

    def both(package: Any, others: Any) -> Any:
        x = keras.Input((5, 3))
        layers = [package.Own(), others.Other(), keras.layers.Dense(2, activation=others.bent)]
        return keras.Sequential([x, *layers])

    expected = saved(tmp_path, both, PACKAGE, "otherlookups_of_tests")
    for own in (
        f"import {PACKAGE}, otherlookups_of_tests",
        f"import otherlookups_of_tests\n{source}",
    ):
        check(tmp_path, own, expected)


FOR_KERAS_2 = """
import keras
import tensorflow as tf

@keras.utils.register_keras_serializable({package!r})
def {function}(x):
    return tf.tanh(x) * 3

@keras.utils.register_keras_serializable({package!r})
class Own(keras.layers.Layer):
    def __init__(self, activation={function}, transfer={function}, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.transfer = transfer

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return self.activation(x * self.w) + self.transfer(x)

    def get_config(self):
        config = super().get_config()
        return {{**config, "activation": keras.utils.get_registered_name(self.activation),
                "transfer": keras.utils.get_registered_name(self.transfer)}}
"""


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("package", only(["", "sensors"], "sensors"))
@pytest.mark.parametrize("function", only(["bent", "relu"], "relu"))
def test_files_of_keras_2(function: str, package: str, tmp_path: Path) -> None:
    import tf_keras

    source = FOR_KERAS_2.format(package=package, function=function)
    names: dict[str, Any] = {"__name__": "own"}
    before = dict(tf_keras.utils.get_custom_objects())
    exec(source.replace("import keras", "import tf_keras as keras"), names)
    try:
        x = tf_keras.Input((5, 3))
        model = tf_keras.Model(x, tf_keras.layers.Dense(2)(names["Own"]()(x)))
        model.save(tmp_path / "m.h5")
        expected = np.asarray(tf_keras.models.load_model(tmp_path / "m.h5")(X))
    finally:
        tf_keras.utils.get_custom_objects().clear()
        tf_keras.utils.get_custom_objects().update(before)
    check(tmp_path, source, expected, "m.h5")


def test_activations_of_keras_do_not_contain_those_of_programs() -> None:
    from keras.src.activations import ALL_OBJECTS_DICT

    before = activations()
    assert {"relu", "swish", "hard_swish", "softmax"} <= set(before)
    ALL_OBJECTS_DICT["bent"] = lambda x: x * 2
    assert activations() == before
