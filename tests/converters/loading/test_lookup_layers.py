"""Layers that look up values: which of them are removed, and what their inputs become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn.errors import SampleError, UnsupportedModelError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.original_layers import OriginalLayers

WORDS = ["cat", "dog", "mat"]


def text(name: str = "word") -> Any:
    return keras.Input((1,), dtype="string", name=name)


def number(name: str = "code") -> Any:
    return keras.Input((1,), dtype="int64", name=name)


def words(name: str, **options: Any) -> Any:
    return layers.StringLookup(vocabulary=WORDS, name=name, **options)


def two_lookups() -> Any:
    x = text()
    known, hashed = words("known", output_mode="one_hot"), layers.Hashing(5, name="hashed")
    parts = [known(x), layers.Flatten()(layers.Embedding(5, 2)(hashed(x)))]
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(parts)))


def lookup_beside_the_input() -> Any:
    x = number()
    lookup = layers.IntegerLookup(vocabulary=[1, 5], output_mode="one_hot", name="lookup")
    parts = [layers.Rescaling(0.1)(x), lookup(x)]
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(parts)))


def dictionary() -> Any:
    x, y = text(), number()
    parts = [words("one", output_mode="one_hot")(x), words("two", output_mode="count")(x)]
    parts.append(layers.IntegerLookup(vocabulary=[2], output_mode="one_hot", name="three")(y))
    outputs = layers.Dense(2)(layers.Concatenate()(parts))
    return keras.Model({"word": x, "code": y}, outputs)


SAMPLES = {"word": [["dog"], ["bird"]], "code": [[5], [7]]}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (two_lookups, ["known", "hashed"]),
        (lookup_beside_the_input, ["code", "lookup"]),
        (dictionary, ["one", "two", "three"]),
    ],
)
def test_every_lookup_of_an_input_is_removed(
    build: Callable[[], Any], inputs: list[str], suffix: str, tmp_path: Path
) -> None:
    model, path = build(), tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    raw = {tensor.name: tf.constant(SAMPLES[tensor.name]) for tensor in model.inputs}
    raw = {name: tf.cast(x, "int64") if x.dtype == tf.int32 else x for name, x in raw.items()}
    expected = model(raw if isinstance(model.input, dict) else next(iter(raw.values())))
    names = [tensor.name for tensor in loaded.inputs]
    assert sorted(names) == sorted(inputs)
    values = {}
    for name in names:
        layer = next((item for item in model.layers if item.name == name), None)
        is_input = isinstance(layer, keras.layers.InputLayer)
        values[name] = raw[name] if is_input else layer(raw[layer.input.name])
    feeds = (
        {key: values[item.name] for key, item in loaded.input.items()}
        if isinstance(loaded.input, dict)
        else [values[name] for name in names]
    )
    np.testing.assert_allclose(loaded(feeds), expected, rtol=1e-5, atol=1e-6)


def test_features_of_a_feature_space(tmp_path: Path) -> None:
    """Its layers are classes that keras.layers does not contain."""
    space = keras.utils.FeatureSpace
    features = space(
        {"kind": space.string_categorical(), "number": space.float_normalized()},
        output_mode="concat",
    )
    data = {"kind": ["a", "b", "a"], "number": [1.0, 2.0, 6.0]}
    features.adapt(tf.data.Dataset.from_tensor_slices(data))
    outputs = layers.Dense(2)(features.get_encoded_features())
    model = keras.Model(features.get_inputs(), outputs)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    numbers = np.array([[2.0], [5.0]], "float32")
    expected = model({"kind": tf.constant([["b"], ["?"]]), "number": tf.constant(numbers)})
    (lookup,) = (item for item in model.layers if isinstance(item, layers.StringLookup))
    kinds = np.asarray(lookup(tf.constant([["b"], ["?"]])))
    feeds = {key: kinds if item.name != "number" else numbers
             for key, item in loaded.input.items()}  # fmt: skip
    np.testing.assert_allclose(loaded(feeds), expected, rtol=1e-5, atol=1e-6)


def nested() -> Any:
    x = text()
    inner = keras.Model(x, words("inner", output_mode="one_hot")(x))
    y = text("outer")
    return keras.Model(y, layers.Dense(2)(inner(y)))


def shared() -> Any:
    left, right = text("left"), text("right")
    lookup = words("shared", output_mode="one_hot")
    return keras.Model([left, right], layers.Dense(2)(lookup(left) - lookup(right)))


def crossed() -> Any:
    left, right = number("left"), number("right")
    crossing = layers.HashedCrossing(6, output_mode="one_hot", name="crossing")
    return keras.Model([left, right], layers.Dense(2)(crossing((left, right))))


def answered_in_words() -> Any:
    x = keras.Input((4,))
    best = keras.ops.argmax(layers.Dense(3)(x), axis=-1)
    return keras.Model(x, words("answer", invert=True)(best))


@pytest.mark.parametrize(
    ("build", "layer"),
    [(nested, "inner"), (shared, "shared"), (crossed, "crossing"), (answered_in_words, "answer")],
)
def test_other_lookups_are_named(build: Callable[[], Any], layer: str, tmp_path: Path) -> None:
    """Without a name, the error was one of NumPy about the data type 'string'."""
    path = tmp_path / "model.keras"
    build().save(path)
    with pytest.raises(UnsupportedModelError, match=f"Layer '{layer}' is a .* not directly behind"):
        load_model(audit_file(path))
    load_model(audit_file(path), allow_free_time=True)


def test_integers_that_were_read_as_floats(tmp_path: Path) -> None:
    x = number()
    ids = layers.IntegerLookup(vocabulary=[10, 20], name="lookup")(x)
    path = tmp_path / "model.keras"
    keras.Model(x, layers.Flatten()(layers.Embedding(3, 2)(ids))).save(path)
    originals = OriginalLayers(load_model(audit_file(path)))
    spec = TensorSpec("lookup", (None, 1), "int64")
    np.testing.assert_array_equal(originals.apply(spec, [20.0]), [[2]])
    with pytest.raises(SampleError, match=r"takes integers, not 2\.5"):
        originals.apply(spec, [2.5])
