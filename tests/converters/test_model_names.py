"""Keras files, folders, samples and plots with names that are not UTF-8."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BAD = os.fsdecode(b"\xff")
MODEL, DATA = f"models{BAD}/m{BAD}.keras", f"models{BAD}/s{BAD}.npz"
OBJECTS = f"objects{BAD}.py"
# As it is printed.
SHOWN = "\\udcff"
CLASS = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import keras

    (tmp_path / f"models{BAD}").mkdir()
    (tmp_path / OBJECTS).write_text(CLASS)
    names: dict[str, Any] = {"__name__": "mine"}
    exec(CLASS, names)
    layers = [keras.Input((5,), name="x"), names["Doubled"](), keras.layers.Dense(3, name="y")]
    model = keras.Sequential(layers)
    model.save(tmp_path / "m.keras")
    # Keras itself does not save under such a name.
    (tmp_path / "m.keras").rename(tmp_path / MODEL)
    samples = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    classes = np.asarray(model.predict(samples, verbose=0)).argmax(axis=1)
    np.savez(tmp_path / DATA, x=samples, y=classes)
    return tmp_path


def test_convert_and_inspect(edgeattn: Any, folder: Path) -> None:
    bundle, loading = f"o{BAD}.edge", ("--custom-objects", OBJECTS)
    command = ("convert", MODEL, *loading, "--scheme", "float32", "--samples", DATA, "-o", bundle)
    result = edgeattn(*command, "--ignore", "y")
    assert result.code == 0, result.err
    assert f"Wrote o{SHOWN}.edge" in result.out
    manifest = json.loads((folder / bundle / "manifest.json").read_text("utf-8"))
    assert manifest["model"]["file"] == f"m{BAD}.keras"
    assert (folder / bundle / f"m{BAD}.float32.onnx").is_file()
    assert edgeattn("inspect", bundle, "--json").document["model"]["file"] == f"m{BAD}.keras"
    result = edgeattn("inspect", MODEL, *loading, "--json")
    assert (result.code, result.document["file"]) == (0, f"m{BAD}.keras")
    assert set(result.document["converts"].values()) == {"yes"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", f"no{BAD}.h5"),
        pytest.param(("convert", MODEL, "--samples", f"no{BAD}.npz"), marks=pytest.mark.long),
        pytest.param(("convert", MODEL, "--custom-objects", f"no{BAD}.py"), marks=pytest.mark.long),
        pytest.param(("tune", f"no{BAD}.h5", "--data", DATA), marks=pytest.mark.long),
        ("tune", MODEL, "--data", f"no{BAD}.npz"),
    ],
    ids=lambda arguments: " ".join(map(ascii, arguments)),
)
def test_missing_files(edgeattn: Any, folder: Path, arguments: tuple[str, ...]) -> None:
    result = edgeattn(*arguments)
    assert (result.code, result.out) == (2, ""), result.err
    assert SHOWN in result.err
    assert f"{BAD}.edge" not in str(list(folder.iterdir()))


@pytest.mark.long
def test_tune(edgeattn: Any, folder: Path) -> None:
    result = edgeattn(
        *("tune", MODEL, "--custom-objects", OBJECTS, "--data", DATA, "--format", "onnx"),
        *("--scheme", "float16", "--plot", f"plot{BAD}.svg"),
    )
    assert result.code in (0, 6), result.err
    assert (folder / f"models{BAD}" / f"m{BAD}.tuned.edge" / "manifest.json").is_file()
    assert (folder / f"plot{BAD}.svg").is_file()
