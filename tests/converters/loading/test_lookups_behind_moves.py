"""Lookup layers behind layers that only move values, and inside TimeDistributed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from long_parameters import only
from lookup_models import WORDS, words
from raw_rows import prepared_rows

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.original_layers import OriginalLayers
from edgeattn_converters.tracing.keras_call import pack

Layers = Callable[[Any], Any]


def learned(ids: Any) -> Any:
    return layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 2)(ids)))


def cut() -> Any:
    return layers.TextVectorization(vocabulary=WORDS, output_sequence_length=2, name="cut")


def one_hot(name: str = "cut") -> Any:
    return words(name, output_mode="one_hot")


def integers() -> Any:
    return layers.IntegerLookup(vocabulary=[3, 5], name="cut")


def adapted() -> Any:
    layer = layers.StringLookup(name="inner")
    layer.adapt(np.array(["cat", "dog", "mat", "cat"]))
    return layers.TimeDistributed(layer, name="cut")


MOVES: dict[str, tuple[tuple[int, ...], Layers]] = {
    "Reshape": ((4,), lambda x: learned(words("cut")(layers.Reshape((2, 2))(x)))),
    "Flatten": ((2, 2), lambda x: learned(words("cut")(layers.Flatten()(x)))),
    "Permute": ((2, 3), lambda x: learned(words("cut")(layers.Permute((2, 1))(x)))),
    "Cropping1D": ((4, 1), lambda x: learned(words("cut")(layers.Cropping1D((2, 1))(x)))),
    "RepeatVector": ((2,), lambda x: learned(words("cut")(layers.RepeatVector(3)(x)))),
    "transpose": (
        (2, 3),
        lambda x: learned(words("cut")(keras.ops.transpose(x, (0, 2, 1)))),
    ),
    "two": ((4,), lambda x: learned(words("cut")(layers.Flatten()(layers.Reshape((2, 2))(x))))),
    "column": ((4,), lambda x: learned(words("cut")(x[:, 2:3]))),
    "one-hot column": ((4,), lambda x: layers.Dense(2)(one_hot()(x[:, 2]))),
    "one-hot slice": ((4,), lambda x: layers.Dense(2)(one_hot()(x[:, -1:]))),
    "one-hot slices": (
        (4,),
        lambda x: layers.Dense(2)(layers.Flatten()(one_hot()(x[:, 1:3]))),
    ),
    "text of one": ((1,), lambda x: learned(cut()(keras.ops.squeeze(x, -1)))),
    "text of a column": ((1,), lambda x: learned(cut()(x[:, 0]))),
    "text in a shape": ((), lambda x: learned(cut()(layers.Reshape((1,))(x)))),
    "Lambda": (
        (1,),
        lambda x: learned(cut()(layers.Lambda(lambda t: tf.squeeze(t, -1), output_shape=())(x))),
    ),
    "one-hot of one": ((1,), lambda x: layers.Dense(2)(one_hot()(x[:, 0]))),
    "TimeDistributed": (
        (3, 2),
        lambda x: learned(layers.TimeDistributed(words("i"), name="cut")(x)),
    ),
    "TimeDistributed one-hot": (
        (3, 1),
        lambda x: layers.Dense(2)(layers.TimeDistributed(one_hot("i"), name="cut")(x)),
    ),
    "one-hot rows": ((2, 3), lambda x: layers.Dense(2)(layers.Flatten()(one_hot()(x)))),
    "TimeDistributed hashes": (
        (3, 1),
        lambda x: learned(layers.TimeDistributed(layers.Hashing(5, name="i"), name="cut")(x)),
    ),
    "chain": (
        (4,),
        lambda x: learned(
            layers.Hashing(6, name="cut")(layers.Flatten()(words("w")(layers.Reshape((2, 2))(x))))
        ),
    ),
}


def of_strings(move: str) -> Callable[[], Any]:
    shape, build = MOVES[move]

    def model() -> Any:
        x = keras.Input(shape, dtype="string", name="raw")
        return keras.Model(x, build(x))

    return model


def of_integers() -> Any:
    x = keras.Input((2, 2), dtype="int64", name="raw")
    return keras.Model(x, learned(integers()(layers.Flatten()(x))))


def sequential() -> Any:
    steps = [layers.Reshape((2, 1)), words("cut"), layers.Flatten(), layers.Embedding(5, 2)]
    return keras.Sequential([keras.Input((2,), dtype="string", name="raw"), *steps])


def sequential_of_text() -> Any:
    steps = [layers.Reshape(()), cut(), layers.Embedding(5, 2)]
    return keras.Sequential([keras.Input((1,), dtype="string", name="raw"), *steps])


def sequential_in_time() -> Any:
    steps = [layers.TimeDistributed(one_hot("i"), name="cut"), layers.Dense(2)]
    return keras.Sequential([keras.Input((3, 1), dtype="string", name="raw"), *steps])


def in_a_model() -> Any:
    x = keras.Input((4,), dtype="string", name="x")
    inner = keras.Model(x, learned(words("cut")(layers.Reshape((2, 2))(x))), name="inner")
    raw = keras.Input((4,), dtype="string", name="raw")
    return keras.Model(raw, layers.Dense(2)(inner(raw)))


def columns() -> Any:
    """Each column of a table has a lookup of its own, and one column two of them."""
    x = keras.Input((3,), dtype="string", name="raw")
    first = x[:, 0:1]
    parts = [one_hot("a")(first), one_hot("b")(x[:, 1:2]), one_hot("c")(first)]
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(parts)))


def joined() -> Any:
    left, right = (keras.Input((1,), dtype="string", name=name) for name in ("left", "right"))
    return keras.Model([left, right], learned(words("cut")(layers.Concatenate()([left, right]))))


def direct_and_behind() -> Any:
    """One lookup for the input and for its transpose."""
    x = keras.Input((2, 3), dtype="string", name="raw")
    lookup = words("cut")
    return keras.Model(
        x, layers.Concatenate()([learned(lookup(x)), learned(lookup(layers.Permute((2, 1))(x)))])
    )


def in_time_and_adapted() -> Any:
    x = keras.Input((3, 1), dtype="string", name="raw")
    return keras.Model(x, learned(adapted()(x)))


def cast_numbers() -> Any:
    x = keras.Input((2, 2), name="raw")
    return keras.Model(x, learned(integers()(layers.Flatten()(keras.ops.cast(x, "int64")))))


def cast_in_a_lambda() -> Any:
    x = keras.Input((2,), name="raw")
    cast = layers.Lambda(lambda t: tf.cast(t, tf.int32), output_shape=(2,))
    return keras.Model(x, learned(integers()(cast(x))))


def sequential_of_numbers() -> Any:
    cast = layers.Lambda(lambda t: tf.cast(t, "int64"), output_shape=(2,))
    steps = [cast, integers(), layers.Embedding(3, 2)]
    return keras.Sequential([keras.Input((2,), name="raw"), *steps])


def hashes_of_integers() -> Any:
    x = keras.Input((3, 1), dtype="int64", name="raw")
    return keras.Model(x, learned(layers.TimeDistributed(layers.Hashing(5), name="cut")(x)))


OTHERS = [
    of_integers, sequential, sequential_of_text, sequential_in_time, in_a_model, columns, joined,
    direct_and_behind, in_time_and_adapted, hashes_of_integers, cast_numbers,
    cast_in_a_lambda, sequential_of_numbers,
]  # fmt: skip
VALUES = ["cat", "dog", "bird", "mat", "cow"]


def raw_values(model: Any) -> dict[str, np.ndarray]:
    """Two samples of each input, in which neighbouring values differ."""
    result = {}
    for tensor in model.inputs:
        shape = (2, *tensor.shape[1:])
        pool = np.array(VALUES if tensor.dtype == "string" else [3, 7, 5, 0, 4], object)
        indices = np.arange(np.prod(shape, dtype=int)) * 7 + len(result)
        values = pool[indices % 5].reshape(shape)
        result[tensor.name] = values if tensor.dtype == "string" else values.astype(tensor.dtype)
    return result


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize(
    "build",
    [*map(of_strings, MOVES), *OTHERS],
    ids=[*MOVES, *(build.__name__ for build in OTHERS)],
)
def test_lookups_behind_layers_that_move_values(
    build: Callable[[], Any], suffix: str, tmp_path: Path
) -> None:
    """They were refused."""
    model, path = build(), tmp_path / f"model{suffix}"
    if suffix == ".h5" and build is in_time_and_adapted:
        pytest.skip("Keras does not store adapted vocabularies in .h5 files")
    model.save(path)
    raw = raw_values(model)
    loaded = load_model(audit_file(path))
    originals = OriginalLayers(loaded)
    feeds = []
    for tensor in loaded.model.inputs:
        spec = TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype)
        removed = loaded.preprocessing[spec.name]
        source = str(removed.input_layer["config"]["name"])
        rows = []
        for row in raw[source]:
            prepared = row.tolist() if isinstance(row, np.ndarray) else row
            rows.append(originals.apply(spec, prepared))
            for step in removed.steps():
                prepared = step.apply(prepared)
            np.testing.assert_array_equal(np.reshape(prepared, rows[-1].shape), rows[-1])
        feeds.append(tf.constant(np.concatenate(rows)))
    expected = model(pack(model, tuple(tf.constant(raw[x.name].tolist()) for x in model.inputs)))
    actual = loaded.model(pack(loaded.model, tuple(feeds)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def one_column_without_unknown_words() -> Any:
    """Words of other columns may be unknown, and Keras never looks them up."""
    x = keras.Input((3,), dtype="string", name="raw")
    return keras.Model(x, learned(words("cut", num_oov_indices=0)(x[:, 0:1])))


def counts_of_a_column() -> Any:
    x = keras.Input((3,), dtype="string", name="raw")
    return keras.Model(x, layers.Dense(2)(words("cut", output_mode="count")(x[:, 0:1])))


def counts_in_time() -> Any:
    x = keras.Input((3, 2), dtype="string", name="raw")
    counts = layers.TimeDistributed(words("cut", output_mode="count"))
    return keras.Model(x, layers.Dense(2)(counts(x)))


def words_of_documents() -> Any:
    x = keras.Input((3, 1), dtype="string", name="raw")
    return keras.Model(x, learned(layers.TimeDistributed(cut())(x)))


@pytest.mark.parametrize("build", [one_column_without_unknown_words, counts_of_a_column])
def test_lookups_that_cannot_change_places_are_named(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    build().save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match=r"Layer 'cut' is a .* not directly behind"):
        load_model(audit_file(tmp_path / "model.keras"))


@pytest.mark.parametrize("build", [counts_in_time, words_of_documents])
def test_lookups_of_every_step_are_named(build: Callable[[], Any], tmp_path: Path) -> None:
    """The advice was for the layer inside, whose output is no tensor of the model."""
    model = build()
    name = next(item.name for item in model.layers if isinstance(item, layers.TimeDistributed))
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match=f"Layer '{name}' is a TimeDist") as error:
        load_model(audit_file(tmp_path / "model.keras"))
    assert f"model.get_layer({name!r}).output" in str(error.value.hint)
    rest = keras.Model(model.get_layer(name).output, model.output)
    rest.save(tmp_path / "rest.keras")
    assert load_model(audit_file(tmp_path / "rest.keras")).notes == ()


@pytest.mark.parametrize("build", [columns, joined])
def test_raw_samples_of_moved_values(build: Callable[[], Any], tmp_path: Path) -> None:
    """They pass through the whole stored model too, which the loaded one is compared with."""
    model, path = build(), tmp_path / "model.keras"
    model.save(path)
    raw = {name: array.astype(str) for name, array in raw_values(model).items()}
    assert prepared_rows(path, raw) == {2}


def test_columns_in_files_of_keras_2(tmp_path: Path) -> None:
    import tf_keras

    x = tf_keras.Input((3,), dtype="string", name="raw")
    ids = tf_keras.layers.StringLookup(vocabulary=WORDS, name="cut")(x[:, 1])
    model = tf_keras.Model(x, tf_keras.layers.Embedding(4, 2)(ids))
    model.save(tmp_path / "model.h5")
    loaded = load_model(audit_file(tmp_path / "model.h5"))
    (tensor,) = loaded.model.inputs
    assert tuple(tensor.shape) == (None, 3)
    # The unknown word is index 0, and the others follow in the order of the vocabulary.
    indices = tf.constant([[1, 2, 3], [0, 3, 1]])
    raw = tf.constant([["cat", "dog", "mat"], ["bird", "mat", "cat"]])
    np.testing.assert_allclose(loaded.model(indices), model(raw), rtol=1e-6)
