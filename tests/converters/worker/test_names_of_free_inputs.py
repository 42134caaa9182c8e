"""Names of inputs with free axes in ``--time-steps`` and samples, for every kind of model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn.errors import SampleError, UnsupportedModelError, UsageError
from edgeattn_converters import ConversionOptions, ModelSource
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.own_code import custom_objects
from edgeattn_converters.worker import early_checks
from edgeattn_converters.worker.open_model import open_model

PROGRAM = """
import keras
L = keras.layers

def build():
    words, chars = keras.Input((None,), name="words"), keras.Input((None,), name="chars")
    return keras.Model([words, chars], Network().both(words, chars))

class Network(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.table, self.head = L.Embedding(9, 4), L.Dense(2)

    def both(self, words, chars):
        pooled = L.GlobalMaxPooling1D()
        return self.head(pooled(self.table(words)) - pooled(self.table(chars)))

class OfDictionary(Network):
    def call(self, inputs):
        return self.both(inputs["words"], inputs["chars"])

class OfWords(Network):
    def call(self, inputs):
        return self.both(inputs, inputs)

class OfList(Network):
    def call(self, inputs):
        return self.both(*inputs)
"""
KINDS: dict[str, dict[str, Any]] = {
    "whole file": {"path": "whole.keras"},
    "program": {"path": "m.weights.h5", "architecture": "own.py:build"},
    "json": {"path": "m.weights.h5", "architecture": "m.json"},
    "folder": {"path": "folder"},
    "dictionary": {"path": "dictionary.keras", "custom_objects": "own.py"},
    "list": {"path": "list.keras", "custom_objects": "own.py"},
}
NAMES = dict.fromkeys(KINDS, ("words", "chars")) | {"list": ("input_0", "input_1")}
LENGTHS = (7, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names")
    (path / "own.py").write_text(PROGRAM)
    own = custom_objects.load_module(path / "own.py", option="--architecture")
    model = own.build()
    model.save(path / "whole.keras")
    model.save_weights(path / "m.weights.h5")
    (path / "m.json").write_text(model.to_json())
    model.export(path / "folder", verbose=False)
    words, chars = keras.Input((None,)), keras.Input((None,))
    for name, network, inputs in (
        ("dictionary", own.OfDictionary(), {"words": words, "chars": chars}),
        ("list", own.OfList(), [words, chars]),
        ("words", own.OfWords(), words),
    ):
        network(inputs)
        network.save(path / f"{name}.keras")
    arrays = [np.ones((2, length), "float32") for length in LENGTHS]
    np.savez(path / "right.npz", words=arrays[0], chars=arrays[1])
    np.savez(path / "wrong.npz", words=arrays[0], letters=arrays[1])
    return path


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _shapes(kind: str, **sizes: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of the loaded model."""
    source, options = ModelSource(**KINDS[kind], **sizes), ConversionOptions()
    early_checks.check(audit_file(Path(source.path)), source, options)
    inputs = open_model(asdict(source), asdict(options)).interface.inputs
    return {spec.name: spec.shape[1:] for spec in inputs}


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_names_of_time_steps(kind: str) -> None:
    names = NAMES[kind]
    for lengths, wrong in (
        ([("keras_tensor", 7), ("keras_tensor_1", 5)], "keras_tensor=7"),
        ([(names[0], 7), ("letters", 5)], "letters=5"),
        ([("letters", 5)], "letters=5"),
    ):
        with pytest.raises(UsageError) as caught:
            _shapes(kind, lengths=lengths)
        assert f"--time-steps {wrong}: the model has no input with this name" in str(caught.value)
        assert all(name in caught.value.message.partition("its inputs are")[2] for name in names)
        assert "edgeattn inspect" in str(caught.value.hint)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "list"])
def test_wrong_names_of_samples(kind: str) -> None:
    with pytest.raises(SampleError, match="no array for input 'chars'") as caught:
        _shapes(kind, samples="wrong.npz")
    assert "its arrays: 'words', 'letters'" in caught.value.message
    assert "Name the arrays" in str(caught.value.hint)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_lengths(kind: str) -> None:
    with pytest.raises(UsageError, match=r"has shape \(free.*number of time steps") as caught:
        _shapes(kind)
    assert all(f"{name}=N" in str(caught.value.hint) for name in NAMES[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_right_names(kind: str) -> None:
    expected = {name: (length,) for name, length in zip(NAMES[kind], LENGTHS, strict=True)}
    assert _shapes(kind, lengths=list(zip(NAMES[kind], LENGTHS, strict=True))) == expected
    # Samples are in the order of a list, and have its names.
    assert _shapes(kind, samples="right.npz") == {"words": (7,), "chars": (5,)}


def test_ignored_arrays_are_no_inputs_of_a_subclass() -> None:
    source = ModelSource(
        "words.keras", custom_objects="own.py", samples="right.npz", ignore=["chars"]
    )
    opened = open_model(asdict(source), asdict(ConversionOptions()))
    assert [spec.shape[1:] for spec in opened.interface.inputs] == [(7,)]


def test_arrays_that_are_no_arguments_of_a_subclass() -> None:
    source = ModelSource("words.keras", custom_objects="own.py", samples="right.npz")
    with pytest.raises(UnsupportedModelError, match="cannot be called") as caught:
        open_model(asdict(source), asdict(ConversionOptions()))
    assert "as the arguments of call (inputs)" in str(caught.value.hint)
    assert str(caught.value.hint).endswith("--ignore words --ignore chars")
