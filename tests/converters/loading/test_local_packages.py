"""Files of the user in a package: they import it by its name, or relative to themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code import local_packages

X = np.array([[1.0, -2.0, 3.0]], "float32")
CLASS = """
import keras

@keras.saving.register_keras_serializable("own")
class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * FACTOR
"""
ENCODER = "layers_of_tests/encoder.py"
INIT = "layers_of_tests/__init__.py"
# Files by name; the layer multiplies by 2.
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "absolute": (
        ENCODER,
        {INIT: "", ENCODER: "from layers_of_tests.consts import FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "without __init__.py": (
        ENCODER,
        {ENCODER: "from layers_of_tests.consts import FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "relative": (
        ENCODER,
        {INIT: "", ENCODER: "from .consts import FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "relative module": (
        ENCODER,
        {ENCODER: "from . import consts\nFACTOR = consts.FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "name in the package": (
        ENCODER,
        {INIT: "from .consts import *", ENCODER: "from . import FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "imports of the other": (
        ENCODER,
        {
            INIT: "from layers_of_tests.encoder import Scaled",
            ENCODER: "from layers_of_tests import consts\nFACTOR = consts.FACTOR",
            "consts": "from .parts.numbers import FACTOR",
            "parts/numbers": "from ..more import HALF\nFACTOR = 4 * HALF",
            "more": "HALF = 0.5",
        },
    ),
    "folder above": (
        "layers_of_tests/inner/encoder.py",
        {
            INIT: "",
            "inner/__init__": "",
            "inner/encoder": "from layers_of_tests.consts import FACTOR",
            "consts": "FACTOR = 2.0",
        },
    ),
    "relative to the folder above": (
        "layers_of_tests/inner/encoder.py",
        {"inner/encoder": "from ..consts import FACTOR", "consts": "FACTOR = 2.0"},
    ),
    "name of a library": (
        "keras/encoder.py",
        {"keras/encoder.py": "from .consts import FACTOR", "keras/consts.py": "FACTOR = 2.0"},
    ),
    "beside": (
        ENCODER,
        {ENCODER: "from consts_of_tests import FACTOR", "consts_of_tests": "FACTOR = 2.0"},
    ),
}


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """No import of a test is left for the next."""
    modules, finders, places = set(sys.modules), list(sys.meta_path), list(sys.path)
    yield
    assert (sys.meta_path, sys.path) == (finders, places)
    for name in set(sys.modules) - modules:
        if "of_tests" in name or name.startswith("edgeattn_user"):
            del sys.modules[name]


def written(folder: Path, file: str, texts: Mapping[str, str], end: str = CLASS) -> Path:
    for name, text in texts.items():
        path = folder / (name if name.endswith(".py") else f"layers_of_tests/{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + (end if path == folder / file else ""))
    return folder / file


def scaled_model(path: Path) -> None:
    names: dict[str, Any] = {"FACTOR": 2.0, "__name__": "own"}
    exec(CLASS, names)
    x = keras.Input((3,))
    keras.Model(x, names["Scaled"]()(x)).save(path)


@pytest.mark.parametrize(
    "name", only(PACKAGES, "absolute", "relative", "relative to the folder above")
)
def test_custom_objects_in_a_package(name: str, tmp_path: Path) -> None:
    file, texts = PACKAGES[name]
    own = written(tmp_path, file, texts)
    scaled_model(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)
    np.testing.assert_array_equal(loaded.model(X), 2 * X)


def test_an_architecture_in_a_package(tmp_path: Path) -> None:
    """Its function imports, too."""
    function = """
import keras

def build():
    from .parts import scale
    from layers_of_tests.consts import OFFSET
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(2, bias_initializer="ones")(scale(x)) + OFFSET)
"""
    texts = {
        ENCODER: "", INIT: "", "consts": "OFFSET = 3.0",
        "parts": "def scale(x):\n    return 2.0 * x",
    }  # fmt: skip
    own = written(tmp_path, ENCODER, texts, function)
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.save_weights(tmp_path / "m.weights.h5")
    file = audit_file(tmp_path / "m.weights.h5")
    loaded = load_model(file, architecture=f"{own}:build")
    np.testing.assert_allclose(loaded.model(X), model(2 * X) + 3, rtol=1e-6)


@pytest.mark.compared
@pytest.mark.parametrize("name", only(["absolute", "relative"], "relative"))
def test_comparison_with_tf_keras(name: str, tmp_path: Path) -> None:
    import tf_keras

    file, texts = PACKAGES[name]
    own = written(
        tmp_path, file, texts, CLASS.replace("import keras", "from tensorflow import keras")
    )
    names: dict[str, Any] = {"FACTOR": 2.0, "__name__": "own"}
    exec(
        CLASS.replace("import keras", "import tf_keras as keras").replace(
            "keras.saving", "keras.utils"
        ),
        names,
    )
    x = tf_keras.Input((3,))
    tf_keras.Model(x, names["Scaled"]()(x)).save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=own)
    np.testing.assert_array_equal(loaded.model(X), 2 * X)
    assert not any("tf_keras" in note for note in loaded.notes), loaded.notes


def test_packages_of_the_same_name_in_two_folders(tmp_path: Path) -> None:
    file, texts = PACKAGES["absolute"]
    scaled_model(tmp_path / "m.keras")
    for factor in (2.0, 5.0):
        own = written(tmp_path / str(factor), file, {**texts, "consts": f"FACTOR = {factor}"})
        loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)
        np.testing.assert_array_equal(loaded.model(X), factor * X)


def test_nothing_else_in_the_folder_above_is_imported(tmp_path: Path) -> None:
    file, texts = PACKAGES["absolute"]
    own = written(tmp_path, file, {**texts, ENCODER: "import trap_of_tests"})
    (tmp_path / "trap_of_tests.py").write_text("raise SystemExit('it ran')")
    scaled_model(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="No module named 'trap_of_tests'"):
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)


def test_a_folder_around_that_is_no_package(tmp_path: Path) -> None:
    file, texts = PACKAGES["folder above"]
    own = written(tmp_path, file, {k: v for k, v in texts.items() if "__init__" not in k})
    scaled_model(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="No module named 'layers_of_tests'") as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)
    assert error.value.hint == (
        "If layers_of_tests is the folder around encoder.py, make it a package: create an empty "
        "__init__.py in inner and in layers_of_tests."
    )


def test_a_module_that_the_package_lacks(tmp_path: Path) -> None:
    own = written(tmp_path, ENCODER, {ENCODER: "from layers_of_tests.missing import FACTOR"})
    scaled_model(tmp_path / "m.keras")
    with pytest.raises(UsageError, match=r"No module named 'layers_of_tests.missing'") as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)
    assert "it has no missing" in str(error.value.hint)


def test_folders_of_a_package(tmp_path: Path) -> None:
    file = tmp_path / "a/b/c/own.py"
    file.parent.mkdir(parents=True)
    assert local_packages.folders(file) == [file.parent]
    for folder in ("a", "a/b", "a/b/c"):
        (tmp_path / folder / "__init__.py").touch()
    assert local_packages.folders(file) == [file.parent, tmp_path / "a/b", tmp_path / "a"]
    (tmp_path / "a/b/__init__.py").unlink()
    assert local_packages.folders(file) == [file.parent]
