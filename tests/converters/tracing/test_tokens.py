"""Which inputs, or parts of them, are tokens: the data flow from an input to a lookup decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import models
from edgeattn.errors import SampleError, UnsupportedModelError
from edgeattn_converters.reference import reference_file
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers
WORDS, STEPS = 30, 5


class TokenAndPosition(keras.layers.Layer):
    """Adds an embedding of the words and one of their positions."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = layers.Embedding(WORDS, 4)
        self.positions = layers.Embedding(STEPS, 4)

    def call(self, inputs: Any) -> Any:
        return self.words(inputs) + self.positions(ops.arange(ops.shape(inputs)[-1]))


class Positions(keras.layers.Layer):
    """Adds an embedding of the positions of vectors."""

    def build(self, shape: Any) -> None:
        self.positions = layers.Embedding(shape[1], shape[2])
        self.positions.build((shape[1],))

    def call(self, inputs: Any) -> Any:
        return inputs + self.positions(ops.arange(ops.shape(inputs)[1]))


class Table(keras.layers.Layer):
    """An embedding as a user writes it."""

    def build(self, _shape: Any) -> None:
        self.table = self.add_weight(shape=(WORDS, 3), name="table")

    def call(self, inputs: Any) -> Any:
        return ops.take(self.table, ops.cast(inputs, "int32"), axis=0)


def words(name: str = "words", **kwargs: Any) -> Any:
    return keras.Input((STEPS,), dtype="int32", name=name, **kwargs)


def transformer() -> Any:
    inputs = words()
    x = TokenAndPosition()(inputs)
    x = x + layers.MultiHeadAttention(2, 2)(x, x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def vision_transformer() -> Any:
    images = keras.Input((8, 8, 3), name="images")
    patches = layers.Reshape((4, 6))(layers.Conv2D(6, 4, strides=4)(images))
    x = Positions()(patches)
    return keras.Model(images, layers.Dense(2)(layers.MultiHeadAttention(2, 3)(x, x)))


def time_distributed() -> Any:
    inputs = keras.Input((3, STEPS), dtype="int32", name="words")
    embedded = layers.TimeDistributed(layers.Embedding(WORDS, 4))(inputs)
    return keras.Model(inputs, layers.Dense(2)(ops.mean(embedded, axis=2)))


def several_inputs() -> Any:
    images, left, right = keras.Input((4, 4, 1), name="images"), words("left"), words("right")
    inner_input = words()
    inner = keras.Model(inner_input, layers.Flatten()(layers.Embedding(WORDS, 2)(inner_input)))
    encoded = [layers.Flatten()(images), inner(left), inner(right)]
    return keras.Model([images, left, right], layers.Dense(2)(layers.Concatenate()(encoded)))


def two_tables() -> Any:
    inputs = words()
    both = [layers.Embedding(WORDS, 2)(inputs), layers.Embedding(9, 2)(inputs)]
    return keras.Model(inputs, layers.Concatenate()(both))


def columns() -> Any:
    """A table of numbers whose first and third column are categories."""
    inputs = keras.Input((STEPS,), name="table")
    day = layers.Embedding(7, 2)(ops.cast(inputs[:, 0], "int32"))
    place = layers.Embedding(WORDS, 2)(inputs[:, 2])
    numbers = ops.concatenate([inputs[:, 1:2], inputs[:, 3:]], axis=1)
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([day, place, numbers])))


def normalized_numbers() -> Any:
    numbers = keras.Input((2,), name="numbers")
    normalized = layers.Normalization(mean=[1.0, -2.0], variance=[4.0, 0.25])(numbers)
    pooled = layers.GlobalMaxPooling1D()(layers.Embedding(WORDS, 3)(inputs := words()))
    joined = layers.Concatenate()([pooled, normalized])
    return keras.Model([inputs, numbers], layers.Dense(1)(joined))


def shifted(shift: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        inputs = words()
        return keras.Model(inputs, layers.Embedding(WORDS, 2)(shift(inputs)))

    return build


def computed(index: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        inputs = keras.Input((STEPS,), name="x")
        return keras.Model(inputs, layers.Embedding(WORDS, 2)(index(inputs)))

    return build


def own_table() -> Any:
    inputs = keras.Input((STEPS,), name="words")
    return keras.Model(inputs, Table()(inputs))


class EmbeddingCell(keras.layers.Layer):
    """A cell whose input is a word, or the word and a number."""

    state_size, output_size = 4, 4

    def build(self, _shape: Any) -> None:
        self.words = layers.Embedding(WORDS, 4)
        self.words.build(())

    def call(self, inputs: Any, states: Any) -> Any:
        state = ops.tanh(self.words(ops.cast(inputs[:, 0], "int32") + 2) + states[0])
        return state, [state]


def in_a_recurrent_layer() -> Any:
    inputs = keras.Input((STEPS, 1), name="words")
    return keras.Model(inputs, layers.RNN(EmbeddingCell())(inputs))


class Scan(keras.layers.Layer):
    """Looks up one word after the other, in loops inside of loops if the words are ``nested``."""

    def __init__(self, nested: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nested = nested

    def build(self, _shape: Any) -> None:
        self.table = self.add_weight(shape=(WORDS, 3), name="table")

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape, 3)

    def call(self, inputs: Any) -> Any:
        def look_up(words: Any) -> Any:
            return tf.gather(self.table, tf.cast(words, "int32"))

        def each(row: Any) -> Any:
            return tf.map_fn(look_up, row, fn_output_signature=tf.float32)

        return (
            each(inputs)
            if not self.nested
            else tf.map_fn(each, inputs, fn_output_signature=tf.float32)
        )


def scanned(nested: bool) -> Callable[[], Any]:
    def build() -> Any:
        inputs = words()
        return keras.Model(inputs, Scan(nested)(inputs))

    return build


class Called(Scan):
    """Looks words up in a function of TensorFlow, which is a graph of its own."""

    def call(self, inputs: Any) -> Any:
        return tf.function(lambda indices: tf.gather(self.table, indices))(inputs)


def called() -> Any:
    inputs = words()
    return keras.Model(inputs, Called()(inputs))


class Gathered(Scan):
    """Looks words up as users do with TensorFlow."""

    def call(self, inputs: Any) -> Any:
        return tf.gather(self.table, inputs)


def gathered(
    index: Callable[[Any], Any], table: type[Scan] = Gathered, dtype: str = "int32"
) -> Any:
    inputs = keras.Input((STEPS,), dtype=dtype, name="words")
    return keras.Model(inputs, table()(layers.Lambda(index, output_shape=(STEPS,))(inputs)))


def two_shifts(one: int, other: int) -> Any:
    inputs = words()
    both = [Gathered()(inputs + one), Gathered()(inputs + other)]
    return keras.Model(inputs, layers.Concatenate()(both))


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "transformer": (transformer, {"words": WORDS}),
    "vision transformer": (vision_transformer, {}),
    "time distributed": (time_distributed, {"words": WORDS}),
    "several inputs": (several_inputs, {"left": WORDS, "right": WORDS}),
    "two tables": (two_tables, {"words": 9}),
    "normalized numbers": (normalized_numbers, {"words": WORDS}),
    "own table": (own_table, {"words": WORDS}),
    "columns": (columns, {"table": [7, 0, WORDS, 0, 0]}),
    "next word": (shifted(lambda x: x + 1), {"words": WORDS - 1}),
    "from one": (shifted(lambda x: x - 1), {"words": WORDS + 1}),
    "offsets": (
        shifted(lambda x: x + np.arange(0, 10, 2, dtype="int32")),
        {"words": [WORDS, WORDS - 2, WORDS - 4, WORDS - 6, WORDS - 8]},
    ),
    "shifted right": (
        shifted(lambda x: ops.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=1)),
        {"words": [WORDS, WORDS, WORDS, WORDS, 0]},
    ),
    "cell of a recurrent layer": (in_a_recurrent_layer, {"words": WORDS - 2}),
    "one after the other": (scanned(False), {"words": WORDS}),
    "loop in a loop": (scanned(True), {"words": WORDS}),
    "called function": (called, {"words": WORDS}),
    # tf.gather does not count negative indices from the end, Embedding of Keras 3 does.
    "gathered": (lambda: gathered(lambda x: x - 1), {"words": WORDS + 1}),
    "gathered in a loop": (lambda: gathered(lambda x: x - 3, Scan), {"words": WORDS + 3}),
    "two shifts": (
        lambda: two_shifts(2, 5),  # -2 to 27 and -5 to 24
        {"words": WORDS - 5},
    ),
    "tables of other tokens": (lambda: two_shifts(-100, 5), {}),
    "unsigned": (
        lambda: gathered(lambda x: tf.cast(x, "int32") + 3, dtype="uint8"),
        {"words": WORDS - 3},
    ),
    "absolute": (lambda: gathered(tf.abs), {}),
    "at least 0": (lambda: gathered(lambda x: tf.maximum(x, 0)), {}),
    "0 for negative": (lambda: gathered(lambda x: tf.where(x < 0, 0, x)), {}),
    "remainder": (lambda: gathered(lambda x: x % WORDS), {}),
    "every second": (lambda: gathered(lambda x: x * 2), {}),
    "argmax": (computed(lambda x: ops.argmax(x, axis=1, keepdims=True)), {}),
    "rounded": (computed(lambda x: ops.cast(ops.sigmoid(x) * 9, "int32")), {}),
    "above": (computed(lambda x: ops.cast(x > 0, "int32")), {}),
    "clipped": (shifted(lambda x: ops.clip(x, 0, WORDS - 1)), {}),
}


# The first row of the table is that of this token, of others that of 0.
FIRST = {
    "next word": -1,
    "offsets": [0, -2, -4, -6, -8],
    "cell of a recurrent layer": -2,
    "gathered": 1,
    "two shifts": -2,
    "gathered in a loop": 3,
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_what_reaches_a_lookup(name: str) -> None:
    build, expected = MODELS[name]
    interface = interface_of(build())
    vocabulary = interface.vocabulary
    assert set(vocabulary) == set(expected)
    for spec in interface.inputs:
        if spec.name in expected:
            limits = vocabulary[spec.name]
            assert limits.first.shape == limits.stop.shape == spec.shape[1:]
            stop = np.broadcast_to(expected[spec.name], spec.shape[1:])
            np.testing.assert_array_equal(limits.stop, stop)
            np.testing.assert_array_equal(limits.first, FIRST.get(name, 0))


def test_columns_of_a_table_are_numbers_or_tokens(tmp_path: Path) -> None:
    model = models.filled(columns())
    interface = interface_of(model)
    values = plausible_inputs(model, interface, np.random.default_rng(0))["table"]
    tokens, numbers = values[:, [0, 2]], values[:, [1, 3, 4]]
    assert (tokens == np.rint(tokens)).all()
    assert (tokens >= 0).all()
    assert tokens[:, 0].max() < 7 <= tokens[:, 1].max() < WORDS
    assert (numbers != np.rint(numbers)).any()
    assert numbers.min() < 0
    entry = reference_file.write(
        model, interface, tmp_path / "reference.npz", samples=None, attention=False
    )
    with np.load(tmp_path / "reference.npz") as arrays:
        written = arrays["input/table"]
    assert len(written) == entry["samples"] + entry["edge_cases"] > len(values)
    assert set(written[:, 0]) <= set(range(7))
    assert set(written[:, 2]) <= set(range(WORDS))
    assert written[:, 2].max() == WORDS - 1
    assert np.abs(written[:, [1, 3, 4]]).max() > WORDS


def write_reference(model: Any, folder: Path) -> None:
    """The reference of ``samples.npz`` in ``folder``."""
    reference_file.write(
        model,
        interface_of(model),
        folder / "reference.npz",
        samples=folder / "samples.npz",
        attention=False,
    )


def test_tokens_outside_the_table_are_refused(tmp_path: Path) -> None:
    model = models.filled(several_inputs())
    samples = {
        "images": np.zeros((4, 4, 4, 1), "float32"),
        "left": np.full((4, STEPS), 3, "int32"),
        "right": np.full((4, STEPS), 87, "int32"),
    }
    np.savez(tmp_path / "samples.npz", **samples)
    with pytest.raises(SampleError, match=r"'right' takes tokens from 0 to 29; .* 87 to 87"):
        write_reference(model, tmp_path)


def test_tokens_that_the_model_shifts_may_be_negative(tmp_path: Path) -> None:
    """The model looks up row ``x + 3`` of 30 rows, of which the first is masked."""
    inputs = words()
    embedded = layers.Embedding(WORDS, 2, mask_zero=True)(inputs + 3)
    model = models.filled(keras.Model(inputs, layers.LSTM(2)(embedded)))
    tokens = np.arange(-3, 27).reshape(6, STEPS).astype("int32")
    np.savez(tmp_path / "samples.npz", words=tokens)
    write_reference(model, tmp_path)
    with np.load(tmp_path / "reference.npz") as arrays:
        written = arrays["input/words"]
    np.testing.assert_array_equal(written[:6], tokens)
    assert (written.min(), written.max()) == (-3, 26)
    generated = plausible_inputs(model, interface_of(model), np.random.default_rng(0))["words"]
    assert (generated[:, 0] > -3).all()  # the first word is not padding
    assert (generated[0, 1:] == -3).all()
    np.savez(tmp_path / "samples.npz", words=tokens - 1)
    with pytest.raises(SampleError, match=r"'words' takes tokens from -3 to 26; .* -4 to -4"):
        write_reference(model, tmp_path)


def test_an_index_that_the_model_computes_may_be_outside_the_table(tmp_path: Path) -> None:
    model = models.filled(computed(lambda x: ops.cast(ops.abs(x) * 100, "int32"))())
    np.savez(tmp_path / "samples.npz", x=np.ones((4, STEPS), "float32"))
    with pytest.raises(UnsupportedModelError, match=r"Keras itself .* = 100 is not in \[0, 30\)"):
        write_reference(model, tmp_path)
