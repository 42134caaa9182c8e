"""Masks of classes written for Keras 2; the results are those of tf_keras with the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

IDS = np.array([[1, 2, 3, 4, 5], [4, 3, 0, 0, 0], [5, 0, 1, 0, 0], [2, 2, 2, 2, 0]])

# As in the transformer for translation of keras.io, before Keras 3.
CLASSES = """
import tensorflow as tf

class Positions(layers.Layer):
    def __init__(self, size=8, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(9, size)
        self.size = size

    def call(self, x):
        return self.words(x)

    def compute_mask(self, x, mask=None):
        return tf.math.not_equal(x, 0)

    def get_config(self):
        return {**super().get_config(), "size": self.size}

class Pair(layers.Layer):
    def call(self, x):
        return x[0], x[1]

    def compute_mask(self, x, mask=None):
        return [tf.reduce_any(tf.cast(x[0], "bool"), -1), None]
"""
PROGRAMS = {
    "implicit": """
def build():
    x = keras.Input((5,))
    model = keras.Model(x, layers.LSTM(3)(Positions()(x)))
    return model
""",
    "explicit": """
def build():
    x = keras.Input((5,))
    words = Positions(8)
    mask = words.compute_mask(x)
    return keras.Model(x, layers.LSTM(3)(layers.Dense(4)(words(x)), mask=mask))
""",
    "list": """
def build():
    x = keras.Input((5,))
    first, second = Pair()([layers.Embedding(9, 3, embeddings_constraint="non_neg")(x)] * 2)
    return keras.Model(x, layers.LSTM(3)(first) + layers.GRU(3)(second))
""",
    "Lambda": """
def build():
    x = keras.Input((5,))
    marked = layers.Lambda(lambda x: x[..., None] + 1, None, lambda x, _: tf.not_equal(x, 0))
    return keras.Model(x, layers.LSTM(3)(marked(x)))
""",
}


def saved(program: str, folder: Path, name: str) -> tuple[Any, Path]:
    """A model of tf_keras in a file ``name``, and its program as a file."""
    names: dict[str, Any] = {"__name__": "own", "keras": tf_keras, "layers": tf_keras.layers}
    exec(f"{CLASSES}\n{program}", names)
    model = names["build"]()
    generator = np.random.default_rng(17)
    model.set_weights([generator.normal(0, 0.5, w.shape) for w in model.get_weights()])
    (model.save_weights if "weights" in name else model.save)(folder / name)
    own = folder / "own.py"
    head = "from tensorflow import keras\nfrom tensorflow.keras import layers\n"
    own.write_text(f"{head}{CLASSES}\n{program}\n")
    return model, own


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_compute_masks_by_functions_of_tensorflow(program: str, tmp_path: Path) -> None:
    model, own = saved(PROGRAMS[program], tmp_path, "weights.h5")
    loaded = load_model(audit_file(tmp_path / "weights.h5"), architecture=f"{own}:build")
    np.testing.assert_allclose(loaded.model(IDS), model(IDS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", only(["m.h5", "m.keras", "m.weights.h5"], "m.keras"))
def test_files_with_classes_that_compute_masks_by_functions_of_tensorflow(
    name: str, tmp_path: Path
) -> None:
    """Also with the program as it was written, which builds the model at its end."""
    model, own = saved(PROGRAMS["implicit"], tmp_path, name)
    own.write_text(f"{own.read_text()}\nmodel = build()\n")
    options: dict[str, Any] = {"custom_objects": own}
    if "weights" in name:
        options = {"architecture": f"{own}:model"}
    loaded = load_model(audit_file(tmp_path / name), **options)
    np.testing.assert_allclose(loaded.model(IDS), model(IDS), rtol=1e-5, atol=1e-6)


# In Keras 3, ``mask`` of each of these calls is another one.
CALLS = """
class Decoder(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, encoded, mask=None):
        weights = 1.0 if mask is None else tf.cast(mask, x.dtype)[..., None]
        return x * weights + tf.reduce_mean(encoded, 1, keepdims=True)

class Inside(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(9, 4, mask_zero=True)
        self.with_state, self.without_mask = layers.GRU(4), layers.GRU(4)

    def call(self, x, mask=None):
        words = self.words(x)
        last = self.with_state(words, initial_state=tf.reduce_mean(words, 1))
        return last + self.without_mask(words, mask=mask)
"""
OTHER_INPUTS = {
    "nested": """
def build():
    x, y = keras.Input((5, 8)), keras.Input((5, 8))
    decoder = keras.Model([x, y], Decoder()(x, y))
    ids = keras.Input((5,))
    words = Positions(8)(ids)
    return keras.Model(ids, layers.GRU(3)(decoder([words, layers.Dense(8)(words)])))
""",
    "inside": """
def build():
    x = keras.Input((5,))
    return keras.Model(x, Inside()(x))
""",
    "state": """
def build():
    x = keras.Input((5,))
    state = layers.Dense(3)(layers.Flatten()(layers.Embedding(9, 2)(x)))
    model = keras.Model(x, layers.LSTM(3)(Positions()(x), initial_state=[state, state]))
    return model
""",
}


@pytest.mark.parametrize("program", only(OTHER_INPUTS, "nested"))
def test_masks_of_calls_with_several_inputs(program: str, tmp_path: Path) -> None:
    text = f"{CALLS}\n{OTHER_INPUTS[program]}"
    model, own = saved(text, tmp_path, "m.keras")
    model.save_weights(tmp_path / "weights.h5")
    of_file = load_model(audit_file(tmp_path / "m.keras"), custom_objects=own)
    of_program = load_model(audit_file(tmp_path / "weights.h5"), architecture=f"{own}:build")
    for loaded in (of_file, of_program):
        np.testing.assert_allclose(loaded.model(IDS), model(IDS), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_weights_without_a_version_have_a_note_about_masks(tmp_path: Path) -> None:
    """Files of the first versions of Keras 3 and of tf_keras 2.16 do not differ."""
    _, own = saved(OTHER_INPUTS["state"], tmp_path, "m.weights.h5")
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{own}:build")
    assert any("Keras 2 passes that of its first input" in note for note in loaded.notes)
    loaded.model.save_weights(tmp_path / "new.weights.h5")
    again = load_model(audit_file(tmp_path / "new.weights.h5"), architecture=f"{own}:build")
    assert not again.notes
