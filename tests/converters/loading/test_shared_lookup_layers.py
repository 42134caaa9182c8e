"""Layers that look up values and are shared, or in nested models."""

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
from lookup_models import WORDS, number, text, two_lookups, words
from raw_rows import prepared_rows

from edgeattn.errors import SampleError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.original_layers import OriginalLayers
from edgeattn_converters.tracing.keras_call import pack
from edgeattn_converters.worker import tasks


def siamese() -> Any:
    """One layer for both texts, as for pairs of questions."""
    left, right = text("left"), text("right")
    cut = layers.TextVectorization(vocabulary=WORDS, output_sequence_length=2, name="cut")
    shared = layers.Embedding(5, 3)
    hidden = layers.Flatten()(shared(cut(left))) - layers.Flatten()(shared(cut(right)))
    return keras.Model([left, right], layers.Dense(2)(hidden))


def one_input_twice() -> Any:
    x = text("left")
    lookup, tables = words("lookup"), [layers.Embedding(4, 2), layers.Embedding(4, 2)]
    return keras.Model(x, layers.Flatten()(layers.Add()([table(lookup(x)) for table in tables])))


def siamese_model() -> Any:
    x = text()
    hidden = layers.Flatten()(layers.Embedding(4, 3)(words("lookup")(x)))
    encoder = keras.Model(x, hidden, name="encoder")
    left, right = text("left"), text("right")
    return keras.Model([left, right], layers.Dot(1)([encoder(left), encoder(right)]))


def preprocessing_model() -> Any:
    """One model prepares columns by name, and another one learns."""
    columns = {"code": number(), "left": text("left"), "length": keras.Input((2,), name="length")}
    chain = layers.CategoryEncoding(6)(
        layers.Hashing(6, name="hashed")(words("known")(columns["left"]))
    )
    encoded = layers.IntegerLookup(vocabulary=[5, 7], output_mode="one_hot", name="lookup")
    parts = [chain, encoded(columns["code"]), layers.Rescaling(0.5)(columns["length"])]
    prepare = keras.Model(columns, layers.Concatenate()(parts), name="prepare")
    body = keras.Sequential([layers.Dense(3, activation="relu"), layers.Dense(2)])
    inputs = {"code": number(), "left": text("left"), "length": keras.Input((2,), name="length")}
    return keras.Model(inputs, body(prepare(inputs)))


def other_order() -> Any:
    """The inner model takes its inputs in another order, and both have one of the same name."""
    x, y = text("left"), keras.Input((2,), name="length")
    inner = keras.Model([x, y], [words("left_1", output_mode="count")(x), layers.Rescaling(3.0)(y)])
    length, left = keras.Input((2,), name="length"), text("left")
    return keras.Model([length, left], layers.Concatenate()(inner([left, length])))


def model_in_model_in_model() -> Any:
    x, y, z = text("x"), text("y"), text("left")
    inner = keras.Model(x, words("lookup", output_mode="one_hot")(x), name="inner")
    middle = keras.Model(y, layers.Dense(3)(inner(y)), name="middle")
    return keras.Model(z, layers.Dense(2)(middle(z)))


def two_models_with_equal_names() -> Any:
    parts, inputs = [], [text("left"), text("right")]
    for k, (vocabulary, x) in enumerate(zip((WORDS, WORDS[::-1]), inputs, strict=True)):
        y = text("y")
        lookup = layers.StringLookup(vocabulary=vocabulary, output_mode="one_hot", name="lookup")
        parts.append(keras.Model(y, lookup(y), name=f"model_{k}")(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(parts)))


def sequential_of_lookups() -> Any:
    prepare = keras.Sequential([text("x"), words("known"), layers.Hashing(5, name="hashed")])
    return keras.Sequential([text("left"), prepare, layers.Embedding(5, 2), layers.Flatten()])


def sequential_in_a_graph() -> Any:
    prepare = keras.Sequential([text("x"), words("known", output_mode="one_hot")], name="prepare")
    left, right = text("left"), text("right")
    return keras.Model([left, right], layers.Dense(2)(prepare(left) + prepare(right)))


def sequential_in_a_sequential() -> Any:
    inner = keras.Sequential([text("x"), words("known", output_mode="count"), layers.Dense(3)])
    return keras.Sequential([text("left"), inner, layers.Softmax()])


COLUMNS = {
    "left": np.array([["dog"], ["bird"], ["mat"]]),
    "right": np.array([["cat"], ["dog"], ["cow"]]),
    "code": np.array([[5], [8], [7]]),
    "length": np.float32([[1, 2], [3, 4], [5, 6]]),
}


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".h5"))
@pytest.mark.parametrize(
    ("build", "sources"),
    [
        (siamese, {"cut_left": "left", "cut_right": "right"}),
        (one_input_twice, {"lookup": "left"}),
        (siamese_model, {"lookup_left": "left", "lookup_right": "right"}),
        (preprocessing_model, {"lookup": "code", "hashed": "left", "length": "length"}),
        (other_order, {"left_1": "left", "length": "length"}),
        (model_in_model_in_model, {"lookup": "left"}),
        (two_models_with_equal_names, {"lookup": "left", "lookup_1": "right"}),
        (sequential_of_lookups, {"hashed": "left"}),
        (sequential_in_a_graph, {"known_left": "left", "known_right": "right"}),
        (sequential_in_a_sequential, {"known": "left"}),
    ],
)
def test_lookups_that_are_shared_or_in_nested_models(
    build: Callable[[], Any], sources: dict[str, str], suffix: str, tmp_path: Path
) -> None:
    """Each input that such a layer is called with becomes an input of the converted model."""
    model, path = build(), tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path))
    assert {tensor.name for tensor in loaded.model.inputs} == set(sources)
    originals = OriginalLayers(loaded)
    feeds = {}
    for tensor in loaded.model.inputs:
        spec, source = (
            TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype),
            sources[tensor.name],
        )
        rows = [
            originals.apply(spec, row.tolist()) if spec.name in loaded.preprocessing else row[None]
            for row in COLUMNS[source]
        ]
        feeds[spec.name] = tf.constant(np.concatenate(rows))
    raw = [tf.constant(COLUMNS[tensor.name]) for tensor in model.inputs]
    expected = model(pack(model, tuple(raw)))
    ordered = tuple(feeds[tensor.name] for tensor in loaded.model.inputs)
    actual = loaded.model(pack(loaded.model, ordered))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def differently_named_columns() -> Any:
    """A dictionary of inputs under other keys than their names."""
    code, left = number(), text("left")
    parts = [layers.Hashing(4, output_mode="one_hot", name="hashed")(code), words("one")(left)]
    outputs = layers.Dense(2)(layers.Concatenate()([parts[0], layers.Rescaling(0.1)(parts[1])]))
    return keras.Model({"zip": code, "kind": left}, {"b": outputs, "a": outputs[:, :1]})


@pytest.mark.parametrize(
    "build", [differently_named_columns, preprocessing_model, two_models_with_equal_names]
)
def test_raw_samples_pass_through_the_whole_stored_model(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    """Inputs in dictionaries were an internal error."""
    model, path = build(), tmp_path / "model.keras"
    model.save(path)
    names = {tensor.name for tensor in model.inputs}
    assert prepared_rows(path, {k: v for k, v in COLUMNS.items() if k in names}) == {3}


def test_one_stored_input_has_one_raw_value(tmp_path: Path) -> None:
    two_lookups().save(tmp_path / "model.keras")
    (tmp_path / "raw.jsonl").write_text('{"known": "dog", "hashed": "cat"}\n')
    source = ModelSource(tmp_path / "model.keras", raw_samples=tmp_path / "raw.jsonl").to_json()
    options, target = ConversionOptions().to_json(), str(tmp_path / "target.npz")
    with pytest.raises(SampleError, match="Sample 1 has several values of word"):
        tasks.prepare_raw_samples(source, options, target, target)


FREQUENCIES = [0.5, 1.0, 0.7]


def frequencies(layers: Any, name: str, **options: Any) -> Any:
    """A layer of Keras 2 whose weights are document frequencies."""
    kind = layers.TextVectorization if name == "text" else layers.StringLookup
    return kind(
        vocabulary=WORDS, idf_weights=FREQUENCIES, output_mode="tf_idf", name=name, **options
    )


@pytest.mark.parametrize("kind", ["text", "lookup"])
@pytest.mark.parametrize("nesting", ["none", "nested", "nested and shared"])
def test_document_frequencies_in_files_of_keras_2(kind: str, nesting: str, tmp_path: Path) -> None:
    """Such files were refused: the input in place of the layer has no weights."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    x = tf_keras.Input((1,), dtype="string", name="inner")
    hidden = tf_keras.layers.BatchNormalization()(frequencies(tf_keras.layers, kind)(x))
    inner = tf_keras.Model(x, tf_keras.layers.Dense(3, activation="relu")(hidden), name="encoder")
    names = ["inner"]
    model = inner
    if nesting != "none":
        names = ["left", "right"][: 1 + (nesting == "nested and shared")]
        inputs = [tf_keras.Input((1,), dtype="string", name=name) for name in names]
        parts = [inner(item) for item in inputs]
        joined = tf_keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
        model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(joined))
    model.save(tmp_path / "model.h5")
    raw = {name: COLUMNS["right" if name == "right" else "left"] for name in names}
    values = [tf.constant(raw[name]) for name in names]
    expected = model(values if len(values) > 1 else values[0])
    loaded = load_model(audit_file(tmp_path / "model.h5"))
    originals = OriginalLayers(loaded)
    feeds = []
    for tensor in loaded.model.inputs:
        spec = TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype)
        source = str(loaded.preprocessing[spec.name].input_layer["config"]["name"])
        rows = [originals.apply(spec, row.tolist()) for row in raw[source]]
        feeds.append(tf.constant(np.concatenate(rows)))
    actual = loaded.model(pack(loaded.model, tuple(feeds)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def _prepared(loaded: Any, values: np.ndarray) -> Any:
    """The only input of a loaded model, as the original layers compute it."""
    (tensor,) = loaded.model.inputs
    spec = TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype)
    originals = OriginalLayers(loaded)
    return tf.constant(np.concatenate([originals.apply(spec, row.tolist()) for row in values]))


@pytest.mark.parametrize("mode", only(["int", "tf_idf"], "int"))
@pytest.mark.parametrize("adapted", [True, False])
def test_lookups_in_saved_models_of_keras_2(mode: str, adapted: bool, tmp_path: Path) -> None:
    """Keras numbers adapted layers as layers with weights, but stores no arrays for them."""
    import tf_keras

    tf_keras.utils.set_random_seed(2)
    x = tf_keras.Input((1,), dtype="string", name="sentence")
    given = {} if adapted else {"vocabulary": WORDS}
    if mode == "tf_idf" and not adapted:
        given["idf_weights"] = FREQUENCIES
    layer = tf_keras.layers.StringLookup(output_mode=mode, name="cut", **given)
    if adapted:
        layer.adapt(tf.constant([["cat"], ["dog"], ["mat"], ["cat"]]))
    hidden = tf_keras.layers.Dense(4, name="first")(
        tf_keras.layers.Flatten()(tf_keras.layers.Embedding(4, 4)(layer(x)))
        if mode == "int"
        else layer(x)
    )
    model = tf_keras.Model(x, tf_keras.layers.Dense(4, name="second")(hidden))
    model.save(tmp_path / "folder", save_format="tf")
    loaded = load_model(audit_file(tmp_path / "folder"))
    inputs = layer(tf.constant(COLUMNS["left"]))
    expected = model(tf.constant(COLUMNS["left"]))
    np.testing.assert_allclose(loaded.model(inputs), expected, rtol=1e-5, atol=1e-6)
    if not adapted:
        np.testing.assert_allclose(
            loaded.model(_prepared(loaded, COLUMNS["left"])), expected, rtol=1e-5, atol=1e-6
        )


def test_lookups_in_the_model_of_a_function(tmp_path: Path) -> None:
    """With weights in a file of their own, the layer was left in the model."""
    (tmp_path / "models.py").write_text(
        "import keras\nfrom keras import layers\n\n\ndef build():\n"
        "    x = keras.Input((1,), dtype='string', name='sentence')\n"
        f"    ids = layers.StringLookup(vocabulary={WORDS!r}, name='cut')(x)\n"
        "    return keras.Model(x, layers.Flatten()(layers.Embedding(4, 3)(ids)))\n"
    )
    namespace: dict[str, Any] = {}
    exec((tmp_path / "models.py").read_text(), namespace)
    model = namespace["build"]()
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = load_model(
        audit_file(tmp_path / "model.weights.h5"), architecture=f"{tmp_path}/models.py:build"
    )
    actual = loaded.model(_prepared(loaded, COLUMNS["left"]))
    np.testing.assert_allclose(actual, model(tf.constant(COLUMNS["left"])), rtol=1e-6)
