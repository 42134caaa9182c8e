"""``--time-steps`` several times: a bundle for each length, of which ``load`` selects one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process

import edgeattn as package
import edgeattn_converters as converters
import models

layers = keras.layers
LENGTHS = (5, 3)


@pytest.fixture(scope="module")
def model() -> Any:
    x = keras.Input((None, 2), name="x")
    return models.filled(keras.Model(x, layers.Dense(2, name="y")(layers.GRU(3)(x))))


@pytest.fixture
def path(model: Any, tmp_path: Path) -> Path:
    file = tmp_path / "model.keras"
    model.save(file)
    return file


def test_a_bundle_for_each_length(path: Path, model: Any, edgeattn: Callable[..., Any]) -> None:
    steps = [word for length in LENGTHS for word in ("--time-steps", length)]
    with in_this_process():
        result = edgeattn("convert", path, *steps, "--scheme", "float32", "--json")
    assert result.code == 0, result.err
    folder = path.with_suffix(".edge")
    written = [Path(document["bundle"]) for document in result.document["bundles"]]
    assert [bundle.name for bundle in written] == ["steps-5", "steps-3"]
    assert {bundle.parent.resolve() for bundle in written} == {folder.resolve()}
    for format in ("tflite", "onnx"):
        loaded = package.load(folder, format=format)
        for length in (*LENGTHS, LENGTHS[0]):
            x = np.random.default_rng(length).normal(size=(length, 2)).astype("float32")
            expected = model.predict(x[None], verbose=0)
            np.testing.assert_allclose(loaded(x)["y"], expected, atol=1e-5)


def test_nothing_is_written_if_one_length_fails(path: Path, edgeattn: Callable[..., Any]) -> None:
    with in_this_process():
        result = edgeattn("convert", path, "--time-steps", 3, "--time-steps", 99_999)
    assert (result.code, "99999" in result.err) == (2, True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_length_that_is_repeated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "convert", lambda source, *_, **__: source.time_steps)
    assert converters.convert_lengths(path, [3, 3]) == (3,)


def test_samples_have_one_length(path: Path, edgeattn: Callable[..., Any]) -> None:
    np.save(path.with_name("x.npy"), np.zeros((4, 3, 2), "float32"))
    steps = ("--time-steps", 3, "--time-steps", 5)
    for option in ("--samples", "--calibration"):
        result = edgeattn("convert", path, *steps, option, path.with_name("x.npy"))
        assert (result.code, "one length" in result.err) == (2, True)
