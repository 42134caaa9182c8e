"""Programs of --architecture whose weights may be those of Keras 3 or of tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twin_programs import run_in_tf_keras

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# As in the decoder of a translation model of keras.io, which needs the mask that Keras 2 passes to
# a layer beside another tensor; in Keras 3, the variable has no value.
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

class Decoder(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(num_heads=2, key_dim=4)
        self.supports_masking = True

    def call(self, inputs, encoded, mask=None):
        if mask is not None:
            padding_mask = tf.cast(mask[:, tf.newaxis, :], dtype="int32")
        return inputs + self.attention(
            query=inputs, value=encoded, key=encoded, attention_mask=padding_mask
        )

def build():
    words = keras.Input((5,), name="words")
    encoded = keras.Input((5, 4), name="encoded")
    embedded = layers.Embedding(9, 4, mask_zero=True)(words)
    return keras.Model([words, encoded], Decoder()(embedded, encoded))

def broken():
    return undefined_name
"""
WORDS = np.array([[3, 1, 4, 0, 0], [1, 5, 2, 6, 5]], "float32")
ENCODED = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")


def saved_by_tf_keras(folder: Path) -> Any:
    """The model, with random weights, and its files."""
    (folder / "program.py").write_text(PROGRAM)
    program = run_in_tf_keras(PROGRAM)
    model = program["build"]()
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(folder / "m.weights.h5")
    return model


def test_a_program_that_needs_the_masks_of_keras_2(tmp_path: Path) -> None:
    model = saved_by_tf_keras(tmp_path)
    file = audit_file(tmp_path / "m.weights.h5")
    loaded = load_model(file, architecture=f"{tmp_path / 'program.py'}:build")
    expected = model([WORDS, ENCODED])
    np.testing.assert_allclose(loaded.model([WORDS, ENCODED]), expected, rtol=1e-5, atol=1e-6)
    [note] = [note for note in loaded.notes if "fails in Keras 3" in note]
    assert "so the layers of Keras compute as in tf_keras" in note
    assert "(build() failed with " in note
    assert "(program.py, line " in note


def test_the_error_of_a_program_that_never_runs_is_that_of_keras_3(tmp_path: Path) -> None:
    saved_by_tf_keras(tmp_path)
    file = audit_file(tmp_path / "m.weights.h5")
    with pytest.raises(UsageError, match="undefined_name") as error:
        load_model(file, architecture=f"{tmp_path / 'program.py'}:broken")
    hint = "program.py does not define 'undefined_name'. Add to it: its import or definition"
    assert error.value.hint == hint
