"""Masks of the words of sentences in files of Keras 2, behind TimeDistributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
SENTENCES, WORDS = 3, 5


def over(layer: Any) -> Any:
    return layers.TimeDistributed(layer)


def sequential(*parts: Any, shape: tuple[int, ...] = (WORDS, 4)) -> Any:
    return tf_keras.Sequential([layers.InputLayer(shape), *parts])


def functional(*parts: Any) -> Any:
    result = inputs = tf_keras.Input((WORDS, 4))
    for part in parts:
        result = part(result)
    return tf_keras.Model(inputs, result)


def embedding() -> Any:
    return layers.Embedding(9, 4, mask_zero=True)


# Of embedded words with their mask, and of the words.
MODELS: Mapping[str, Callable[[Any, Any], Any]] = {
    "LSTM": lambda e, w: over(layers.LSTM(3))(e),
    "sentences": lambda e, w: layers.LSTM(3)(over(layers.LSTM(3))(e)),
    "Bidirectional": lambda e, w: over(layers.Bidirectional(layers.GRU(2)))(e),
    "pooling": lambda e, w: over(layers.GlobalAveragePooling1D())(e),
    "Dense": lambda e, w: over(layers.LSTM(2))(over(layers.Dense(3))(e)),
    "all steps": lambda e, w: over(layers.GRU(2))(over(layers.GRU(3, return_sequences=True))(e)),
    "Sequential": lambda e, w: over(sequential(layers.LSTM(3)))(e),
    "Model": lambda e, w: over(functional(layers.Dense(3), layers.LSTM(3)))(e),
    "sentences of a Sequential": lambda e, w: layers.GRU(3)(
        over(sequential(embedding(), layers.LSTM(3), shape=(WORDS,)))(w)
    ),
    "words of a Sequential": lambda e, w: over(layers.LSTM(2))(
        over(sequential(embedding(), layers.Dense(3), shape=(WORDS,)))(w)
    ),
    "two levels": lambda e, w: over(over(layers.LSTM(3)))(
        over(over(embedding()))(layers.Reshape((1, SENTENCES, WORDS))(w))
    ),
    "Masking": lambda e, w: over(layers.LSTM(3))(
        over(layers.Masking())(layers.Reshape((SENTENCES, WORDS, 1))(w) * 1)
    ),
    "sentences of Masking": lambda e, w: layers.LSTM(2)(
        over(layers.LSTM(3))(over(layers.Masking())(layers.Reshape((SENTENCES, WORDS, 1))(w) * 1))
    ),
}


def words() -> np.ndarray:
    """Documents of two or three sentences, of one to five words."""
    result = np.random.default_rng(3).integers(1, 9, (4, SENTENCES, WORDS)).astype("float32")
    for row, lengths in enumerate(((2, 5, 1), (4, 3, 2), (5, 1, 4), (3, 4, 5))):
        for sentence, length in enumerate(lengths):
            result[row, sentence, length:] = 0
    return result


def padded() -> np.ndarray:
    """With sentences of padding alone, too; an average over no word is NaN."""
    documents = words()
    documents[0, 2:] = documents[3, 1:] = 0
    return documents


def check(names: Sequence[str], path: Path, *documents: np.ndarray) -> None:
    """Compare the loaded model of these outputs with tf_keras."""
    inputs = tf_keras.Input((SENTENCES, WORDS), name="words")
    embedded = over(embedding())(inputs)
    model = tf_keras.Model(inputs, [MODELS[name](embedded, inputs) for name in names])
    generator = np.random.default_rng(6)
    for weight in model.weights:
        weight.assign(generator.normal(0, 0.5, weight.shape))
    model.save(path)
    loaded = load_model(audit_file(path)).model
    for samples in documents:
        expected = model.predict(samples, verbose=0)
        actual = loaded.predict(samples, verbose=0)
        for name, value, result in zip(names, expected, actual, strict=True):
            np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.long
def test_masks_are_those_of_keras_2(tmp_path: Path) -> None:
    check(("LSTM", "pooling"), tmp_path / "model.h5", padded())


@pytest.mark.long
def test_all_masks_are_those_of_keras_2(tmp_path: Path) -> None:
    check(tuple(MODELS), tmp_path / "model.h5", words(), padded())


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_masks_in_files(format: str, tmp_path: Path) -> None:
    inputs = tf_keras.Input((SENTENCES, WORDS), name="words")
    result = MODELS["sentences"](over(embedding())(inputs), inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="y")(result))
    model.save(tmp_path / "model.h5")
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    interface = interface_of(loaded)
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(loaded, interface, recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"words": padded()})
    expected = model.predict(padded(), verbose=0)
    np.testing.assert_allclose(actual["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_models_without_a_mask_are_called_once_for_each_sentence(tmp_path: Path) -> None:
    """A call for the mask alone would show the attention inside once more."""
    inputs = tf_keras.Input((SENTENCES, WORDS), name="words")
    encoder = sequential(embedding(), layers.LSTM(2), shape=(WORDS,))
    tf_keras.Model(inputs, layers.GRU(2)(over(encoder)(inputs))).save(tmp_path / "model.h5")
    model = load_model(audit_file(tmp_path / "model.h5")).model
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((None, SENTENCES, WORDS))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("While") == SENTENCES + 1, sorted(set(kinds))


def test_files_of_keras_3_have_its_masks(tmp_path: Path) -> None:
    inputs = keras.Input((SENTENCES, WORDS), name="words")
    embedded = keras.layers.TimeDistributed(keras.layers.Embedding(9, 4, mask_zero=True))(inputs)
    result = keras.layers.TimeDistributed(keras.layers.LSTM(3))(embedded)
    model = keras.Model(inputs, result)
    model.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras")).model
    np.testing.assert_allclose(loaded(padded()), model(padded()), rtol=1e-5, atol=1e-6)
