"""Masks behind TimeDistributed in programs, with weights of tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
from keras.layers import *
from keras.models import Model, Sequential

class Scaled(Layer):
    # A function cannot be stored.
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.supports_masking = True
    def call(self, x):
        return self.function(x)

class Cell(LSTMCell):
    def __init__(self, units, function, **kwargs):
        super().__init__(units, **kwargs)
        self.function = function
    def call(self, x, states, training=None):
        return super().call(self.function(x), states)

def doubled(x):
    return x * 2.0

def embedded():
    words = Input((3, 5), dtype="int32", name="words")
    return words, TimeDistributed(Embedding(9, 4, mask_zero=True))(words)

def sentences():
    words, x = embedded()
    return Model(words, LSTM(3)(TimeDistributed(LSTM(3))(x)))

def called_twice():
    words, x = embedded()
    rows = TimeDistributed(LSTM(4, return_sequences=True))
    return Model(words, LSTM(3)(TimeDistributed(LSTM(3))(rows(rows(x)))))

def with_states():
    words, x = embedded()
    y, h, c = LSTM(3, return_sequences=True, return_state=True)(TimeDistributed(LSTM(3))(x))
    return Model(words, LSTM(3)(y, initial_state=[h, c]))

def nested():
    words, x = embedded()
    inner = Model(words, LSTM(3, return_sequences=True)(TimeDistributed(LSTM(3))(x)))
    document = Input((3, 5), dtype="int32", name="document")
    return Model(document, GRU(2)(inner(document)))

def of_a_sequential():
    words = Input((3, 5), dtype="int32", name="words")
    x = TimeDistributed(Embedding(9, 4, mask_zero=True))(words)
    encoder = Sequential([InputLayer((5, 4)), Dense(4), LSTM(3)])
    return Model(words, GRU(2)(TimeDistributed(encoder)(x)))

def named():
    words = Input((3, 5), dtype="int32", name="words")
    layer = TimeDistributed(Embedding(9, 4, mask_zero=True))
    x = layer(words)
    # The sentences with a first word.
    has_first = layer.compute_mask(words)[:, :, 0]
    return Model(words, LSTM(3)(TimeDistributed(LSTM(3))(x), mask=has_first))

def own_layer():
    word = Input((5,), dtype="int32")
    x = TimeDistributed(Dense(4))(Embedding(9, 4, mask_zero=True)(word))
    sentence = Model(word, LSTM(3)(Scaled(doubled)(x)))
    words = Input((3, 5), dtype="int32", name="words")
    return Model(words, LSTM(3)(TimeDistributed(sentence)(words)))

def own_cell():
    words, x = embedded()
    return Model(words, RNN(Cell(3, doubled))(Scaled(doubled)(TimeDistributed(LSTM(3))(x))))
"""
NAMES = ("sentences", "called_twice", "with_states", "nested", "of_a_sequential", "named",
         "own_layer", "own_cell")  # fmt: skip


def words() -> Any:
    """Documents of no to three sentences, of no to five words."""
    result = np.random.default_rng(3).integers(1, 9, (5, 3, 5)).astype("int32")
    for row, lengths in enumerate(((2, 5, 1), (4, 3, 0), (5, 0, 0), (0, 0, 0))):
        for sentence, length in enumerate(lengths):
            result[row, sentence, length:] = 0
    return result


def loads_right(name: str, folder: Path, *, with_version: bool = True) -> None:
    """Compare the model of a function, with the weights of tf_keras, with that of tf_keras."""
    program: dict[str, Any] = {}
    exec(PROGRAM.replace("from keras", "from tf_keras"), program)
    model = program[name]()
    generator = np.random.default_rng(17)
    model.set_weights([generator.normal(0, 0.7, value.shape) for value in model.get_weights()])
    model.save_weights(folder / "m.h5")
    if not with_version:
        with h5py.File(folder / "m.h5", "r+") as file:
            del file.attrs["keras_version"]
    (folder / "own.py").write_text(PROGRAM)
    source = audit_file(folder / "m.h5")
    loaded = load_model(source, architecture=f"{folder / 'own.py'}:{name}").model
    np.testing.assert_allclose(loaded(words()), model(words()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", only(NAMES, "own_cell"))
def test_models_compute_as_in_keras_2(name: str, tmp_path: Path) -> None:
    loads_right(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_models_of_unknown_versions_compute_as_in_keras_2(name: str, tmp_path: Path) -> None:
    loads_right(name, tmp_path, with_version=False)
