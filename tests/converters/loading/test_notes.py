"""Notes about several layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.notes import combined_notes


def test_notes_that_differ_in_the_layer_are_one() -> None:
    notes = ["a: replaced.", "The model is old.", "b: replaced.", "a: other.", "b: replaced."]
    assert combined_notes(notes) == ("a, b: replaced.", "The model is old.", "a: other.")


def test_sentences_with_a_colon_are_no_names() -> None:
    notes = ("The layers differ: a <- b.", "The layers differ: c <- d.")
    assert combined_notes(notes) == notes


def test_many_layers_are_counted() -> None:
    assert combined_notes(f"x{number}: replaced." for number in range(9)) == (
        "x0, x1, x2, x3, x4 and 4 more layers: replaced.",
    )


# Four layers that need the same repair, the version that saved them, and the note.
REPEATED: dict[str, tuple[str, str, Callable[[Any, Any], Any], str]] = {
    "activations": (
        "2.2.4", "tensorflow",
        lambda layers, x: layers.LSTM(2, recurrent_activation="hard_sigmoid", activation="relu",
                                      return_sequences=True)(x),
        "hard_sigmoid is computed as in Keras 2 (0.2x+0.5).",
    ),
    "order of the axes": (
        "2.2.4", "tensorflow",
        lambda layers, x: layers.Conv1D(4, 1, data_format="channels_first")(x),
        "computed with the channels last.",
    ),
    "Theano": ("2.1.6", "theano", lambda layers, x: layers.Conv1D(3, 1)(x), "are reversed."),
    "padding of Theano": (
        "2.1.6", "theano",
        lambda layers, x: layers.MaxPooling1D(2, strides=1, padding="same")(x),
        "padding='same' pads as Theano does.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", only(REPEATED, "Theano", "order of the axes", "padding of Theano"))
def test_a_repair_of_four_layers_is_one_note(kind: str, tmp_path: Path) -> None:
    import tf_keras

    version, backend, call, text = REPEATED[kind]
    x = inputs = tf_keras.Input((4, 3))
    for _ in range(4):
        x = call(tf_keras.layers, x)
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, x).save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs.update(keras_version=version.encode(), backend=backend.encode())
    notes = load_model(audit_file(path)).notes
    assert sum(note.count(text) for note in notes) == 1
    assert len(set(notes)) == len(notes)
