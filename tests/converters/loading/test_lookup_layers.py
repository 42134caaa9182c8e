"""Layers that look up values: which of them are removed, and what their inputs become."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from lookup_models import WORDS, number, text, two_lookups, words

from edgeattn.errors import SampleError, UnsupportedModelError, UsageError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.original_layers import OriginalLayers, by_loaded_inputs
from edgeattn_converters.worker import tasks


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


def dictionary_with_the_name_of_a_layer() -> Any:
    """The key of an input is the name of a layer that is removed behind another one."""
    code, raw = number(), text()
    one_hot = layers.IntegerLookup(vocabulary=[10, 20], output_mode="one_hot", name="lookup")(code)
    other = words("raw_lookup", output_mode="one_hot")(raw)
    both = layers.Concatenate()([keras.ops.cast(code, "float32"), one_hot, other])
    return keras.Model({"a": code, "lookup": raw}, layers.Dense(2)(both))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (two_lookups, ["known", "hashed"]),
        (lookup_beside_the_input, ["code", "lookup"]),
        (dictionary, ["one", "two", "three"]),
        (dictionary_with_the_name_of_a_layer, ["code", "lookup", "raw_lookup"]),
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
    expected = model(
        {key: raw[item.name] for key, item in model.input.items()}
        if isinstance(model.input, dict)
        else next(iter(raw.values()))
    )
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


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_features_of_a_feature_space(suffix: str, tmp_path: Path) -> None:
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
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    numbers = np.array([[2.0], [5.0]], "float32")
    expected = model({"kind": tf.constant([["b"], ["?"]]), "number": tf.constant(numbers)})
    (lookup,) = (item for item in model.layers if isinstance(item, layers.StringLookup))
    kinds = np.asarray(lookup(tf.constant([["b"], ["?"]])))
    feeds = {key: kinds if item.name != "number" else numbers
             for key, item in loaded.input.items()}  # fmt: skip
    np.testing.assert_allclose(loaded(feeds), expected, rtol=1e-5, atol=1e-6)


def test_a_saved_feature_space_is_named(tmp_path: Path) -> None:
    space = keras.utils.FeatureSpace
    features = space({"number": space.float_normalized()}, output_mode="concat")
    features.adapt(tf.data.Dataset.from_tensor_slices({"number": [1.0, 2.0, 6.0]}))
    features.save(tmp_path / "space.keras")
    with pytest.raises(UnsupportedModelError, match=r"keras\.utils\.FeatureSpace") as caught:
        load_model(audit_file(tmp_path / "space.keras"))
    assert "space.get_encoded_features()" in str(caught.value.hint)


def crossed() -> Any:
    left, right = number("left"), number("right")
    crossing = layers.HashedCrossing(6, output_mode="one_hot", name="crossing")
    return keras.Model([left, right], layers.Dense(2)(crossing((left, right))))


def crossed_beside_numbers() -> Any:
    model = crossed()
    numbers = keras.Input((3,), name="numbers")
    both = layers.Concatenate()([numbers, model.output])
    return keras.Model([numbers, *model.inputs], both)


def hashed(name: str, **options: Any) -> Any:
    return layers.Hashing(5, output_mode="one_hot", name=name, **options)


def crossing(name: str = "crossing") -> Any:
    return layers.HashedCrossing(6, output_mode="one_hot", name=name)


def crossed_behind_hashed() -> Any:
    """Both inputs are also hashed, into inputs of their own, so that the others move back."""
    left, right, numbers = number("left"), number("right"), keras.Input((3,), name="numbers")
    hash = hashed("hash")
    parts = [hash(left), hash(right), crossing()((left, right)), numbers]
    return keras.Model([left, right, numbers], layers.Dense(2)(layers.Concatenate()(parts)))


def crossed_before_hashed() -> Any:
    """The inputs have another order than the layers."""
    kind, left, right = text("kind"), number("left"), number("right")
    numbers = keras.Input((3,), name="numbers")
    parts = [crossing()((left, right)), hashed("hash")(kind), numbers, hashed("left_hash")(left)]
    inputs = [numbers, right, kind, left]
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(parts)))


def crossed_beside_two_lookups() -> Any:
    """One input has two lookups, of which the second has another crossed input."""
    kind, left, right = text("kind"), number("left"), number("right")
    numbers = keras.Input((3,), name="numbers")
    parts = [hashed("a")(kind), hashed("b", salt=3)(kind), crossing()((left, right)), numbers]
    return keras.Model([kind, left, right, numbers], layers.Dense(2)(layers.Concatenate()(parts)))


def crossed_by_name() -> Any:
    """Inputs of dictionaries are sorted by their keys."""
    inputs = {"z": number("a"), "b": number("z"), "c": keras.Input((3,), name="m"),
              "a": text("kind")}  # fmt: skip
    parts = [crossing()((inputs["z"], inputs["b"])), hashed("hash")(inputs["z"]),
             hashed("more")(inputs["a"]), inputs["c"]]  # fmt: skip
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(parts)))


def answered_in_words() -> Any:
    x = keras.Input((4,))
    best = keras.ops.argmax(layers.Dense(3)(x), axis=-1)
    return keras.Model(x, words("answer", invert=True)(best))


def after_another_layer() -> Any:
    x, y = text("x"), text("y")
    inner = keras.Model(x, words("inner", output_mode="one_hot")(x))
    return keras.Model(y, layers.Dense(2)(inner(layers.Reshape((1,))(y))))


def called_with_an_input_and_with_another_layer() -> Any:
    x = keras.Input((2,), dtype="int64")
    lookup = layers.IntegerLookup(vocabulary=[1, 2], output_mode="multi_hot", name="shared")
    return keras.Model(x, layers.Dense(2)(lookup(x) + lookup(layers.Reshape((2,))(x))))


def in_time_distributed() -> Any:
    x = text("sentence")
    inner = keras.Model(x, words("inner", output_mode="one_hot")(x))
    document = keras.Input((3, 1), dtype="string")
    over_time = layers.TimeDistributed(inner, name="sentences")
    return keras.Model(document, over_time(document))


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (in_time_distributed, "sentences"),
        (after_another_layer, "inner"),
        (called_with_an_input_and_with_another_layer, "shared"),
        (crossed, "crossing"),
        (crossed_beside_numbers, "crossing"),
        (crossed_behind_hashed, "crossing"),
        (crossed_before_hashed, "crossing"),
        (crossed_beside_two_lookups, "crossing"),
        (crossed_by_name, "crossing"),
        (answered_in_words, "answer"),
    ],
)
def test_other_lookups_are_named(build: Callable[[], Any], layer: str, tmp_path: Path) -> None:
    """Without a name, the error was one of NumPy about the data type 'string'."""
    path = tmp_path / "model.keras"
    build().save(path)
    with pytest.raises(
        UnsupportedModelError,
        match=f"Layer '{layer}' is a .* (not directly behind|with the StringLookup 'inner')",
    ) as error:
        load_model(audit_file(path))
    hint = str(error.value.hint)
    assert ("--labels" in hint) == (layer == "answer")
    if layer == "crossing":
        match = re.search(r"keras\.Model\(.*, model\.output\)", hint)
        assert match
        model = build()
        shorter = eval(match.group(), {"keras": keras, "model": model})
        shorter.save(path)
        ahead = {tensor.name for tensor in model.inputs}
        assert {tensor.name for tensor in shorter.inputs} - ahead != set()
        load_model(audit_file(path))
    load_model(audit_file(path), allow_free_time=True)


def test_several_crossings_are_left_out_together(tmp_path: Path) -> None:
    kind, left, right = text("kind"), number("left"), number("right")
    parts = [crossing("one")((left, right)), hashed("hash")(kind), crossing("two")((right, left))]
    model = keras.Model([kind, right, left], layers.Dense(2)(layers.Concatenate()(parts)))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(UnsupportedModelError, match="is a HashedCrossing") as error:
        load_model(audit_file(path))
    hint = str(error.value.hint)
    assert hint.endswith("computes 'one' and 'two'.")
    match = re.search(r"keras\.Model\(.*, model\.output\)", hint)
    assert match
    shorter = eval(match.group(), {"keras": keras, "model": model})
    assert [tensor.shape[1] for tensor in shorter.inputs] == [6, 6, 1]
    shorter.save(path)
    assert len(load_model(audit_file(path)).model.inputs) == 3


def test_a_crossing_of_a_crossing(tmp_path: Path) -> None:
    """Only the output of the last one is an input of the rest."""
    left, right = number("left"), number("right")
    first = layers.HashedCrossing(6, name="first")((left, right))
    y = layers.Dense(2)(crossing("second")((first, right)))
    model = keras.Model([left, right], y)
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="is a HashedCrossing") as error:
        load_model(audit_file(tmp_path / "model.keras"))
    assert "keras.Model(model.get_layer('second').output, model.output)" in str(error.value.hint)


def test_a_crossing_that_is_called_twice(tmp_path: Path) -> None:
    left, right, cross = number("left"), number("right"), crossing()
    both = layers.Concatenate()([cross((left, right)), cross((right, left))])
    keras.Model([left, right], layers.Dense(2)(both)).save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="'crossing' is a HashedCrossing") as error:
        load_model(audit_file(tmp_path / "model.keras"))
    assert "with the outputs of its 2 calls" in str(error.value.hint)


def test_a_layer_has_the_name_of_the_file(tmp_path: Path) -> None:
    """Keras 3 allows no slashes in names."""
    import tf_keras

    x = [tf_keras.Input((1,), dtype="int64", name=name) for name in ("a>b", "c")]
    crossed = tf_keras.layers.HashedCrossing(6, output_mode="one_hot", name="my>crossing")(x)
    number = tf_keras.Input((3,), name="n/m")
    y = tf_keras.layers.Concatenate()([crossed, number])
    model = tf_keras.Model([*x, number], tf_keras.layers.Dense(2)(y))
    model.save(tmp_path / "model.h5")
    with pytest.raises(UnsupportedModelError, match="'my>crossing' is a HashedCr") as error:
        load_model(audit_file(tmp_path / "model.h5"))
    match = re.search(r"keras\.Model\(.*, model\.output\)", str(error.value.hint))
    assert match
    shorter = eval(match.group(), {"keras": tf_keras, "model": model})
    assert [tensor.shape[1] for tensor in shorter.inputs] == [6, 3]


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


def in_text() -> Any:
    x = text("raw")
    cut = layers.TextVectorization(vocabulary=WORDS, output_sequence_length=2, name="cut")
    return keras.Model(x, layers.Flatten()(layers.Embedding(5, 2)(cut(x))))


def in_words(**options: Any) -> Any:
    x = text("raw")
    ids = words("cut", **options)(x)
    hidden = ids if options else layers.Flatten()(layers.Embedding(4, 2)(ids))
    return keras.Model(x, layers.Dense(2)(hidden))


def in_numbers(name: str = "raw") -> Any:
    x = number(name)
    ids = layers.IntegerLookup(vocabulary=[10, 20], name="cut")(x)
    return keras.Model(x, layers.Flatten()(layers.Embedding(3, 2)(ids)))


TEXT, INTEGERS = np.array([["dog cat"], ["bird"]]), np.array([[1], [0]])


@pytest.mark.parametrize(
    ("build", "arrays", "is_raw"),
    [
        (in_text, {"raw": TEXT}, True),
        (in_text, {"raw": np.array([[3, 2], [1, 0]])}, False),
        (in_words, {"raw": TEXT}, True),
        (in_words, {"raw": np.char.encode(TEXT)}, True),
        (in_words, {"raw": INTEGERS, "y": INTEGERS}, False),
        (in_words, {"x": TEXT}, True),
        (in_numbers, {"raw": INTEGERS}, True),
        # Not certain, or not under the names of the stored inputs.
        (in_words, {"raw": INTEGERS.astype("float32")}, None),
        (lambda: in_words(output_mode="one_hot"), {"raw": np.eye(4, dtype=int)}, None),
        (in_words, {"raw": TEXT, "cut": INTEGERS}, None),
        (in_words, {"other": TEXT}, None),
        (lambda: in_numbers("x"), {"x": INTEGERS}, None),
        (in_numbers, {"raw": TEXT}, None),
        (two_lookups, {"word": INTEGERS}, None),
        (dictionary, {"word": TEXT}, None),
    ],
)
def test_samples_under_the_names_of_the_stored_inputs(
    build: Callable[[], Any],
    arrays: dict[str, np.ndarray],
    is_raw: bool | None,
    tmp_path: Path,
) -> None:
    build().save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"))
    specs = tuple(
        TensorSpec(item.name, tuple(item.shape), item.dtype) for item in loaded.model.inputs
    )
    renamed = by_loaded_inputs(loaded, specs, arrays)
    if is_raw is None:
        assert renamed is None
        return
    assert renamed is not None
    assert renamed.is_raw == is_raw
    assert set(renamed.arrays) == {"cut", *arrays} - {"raw", "x"}
    expected = arrays["raw"] if "raw" in arrays else arrays["x"]
    np.testing.assert_array_equal(renamed.arrays["cut"], expected)


def test_one_stored_input_of_several_lookups_and_of_other_layers(tmp_path: Path) -> None:
    for build, raw, names in (
        (two_lookups, {"word": TEXT}, {"known", "hashed"}),
        (lookup_beside_the_input, {"code": INTEGERS}, {"code", "lookup"}),
    ):
        build().save(tmp_path / "model.keras")
        loaded = load_model(audit_file(tmp_path / "model.keras"))
        specs = tuple(TensorSpec(x.name, tuple(x.shape), x.dtype) for x in loaded.model.inputs)
        renamed = by_loaded_inputs(loaded, specs, raw)
        assert renamed is not None
        assert renamed.is_raw
        assert set(renamed.arrays) == names
        if build is two_lookups:
            assert loaded.notes[-1] == "'hashed' and 'known' are in place of the input 'word'"


def texts_of_any_length() -> Any:
    x = text("raw")
    ids = layers.TextVectorization(vocabulary=WORDS, name="cut")(x)
    return keras.Model(x, layers.LSTM(2)(layers.Embedding(5, 2)(ids)))


@pytest.mark.parametrize(
    ("build", "values", "kind"),
    [
        (in_words, INTEGERS, "prepared"),
        (in_numbers, INTEGERS, "raw"),
        # The shape of the text is not a length in words.
        (texts_of_any_length, TEXT, None),
    ],
)
def test_renamed_samples(
    build: Callable[[], Any], values: np.ndarray, kind: str | None, tmp_path: Path
) -> None:
    build().save(tmp_path / "model.keras")
    np.savez(tmp_path / "samples.npz", raw=values)
    source = ModelSource(tmp_path / "model.keras", samples=tmp_path / "samples.npz").to_json()
    options, target = ConversionOptions().to_json(), tmp_path / "renamed.npz"
    if kind is None:
        with pytest.raises(UsageError, match="time"):
            tasks.rename_samples(source, options, source["samples"], str(target))
        source["time_steps"], kind = 4, "raw"
    assert tasks.rename_samples(source, options, source["samples"], str(target)) == kind
    with np.load(target) as renamed:
        assert set(renamed) == {"cut"}
        np.testing.assert_array_equal(renamed["cut"], values)


def test_a_vectorization_for_each_step_of_keras_2_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """The errors were about an argument of the layer inside, and about the shape of its result."""
    import tf_keras

    vectorization = tf_keras.layers.TextVectorization(output_mode="count")
    vectorization.adapt(["a cat", "the mat"])
    x = tf_keras.Input((2, 1), dtype="string")
    counts = tf_keras.layers.TimeDistributed(vectorization)(x)
    model = tf_keras.Model(x, tf_keras.layers.LSTM(2)(counts))
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="around TextVectorization, which no edge"):
        load_model(audit_file(tmp_path / "model.keras"))


def test_the_length_of_a_vectorization_ahead_of_a_nested_model(tmp_path: Path) -> None:
    """The nested model is for any length; that of its input is the one of the vectorization."""
    vectorize = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=7)
    tokens = keras.Input((None,), dtype="int64", name="tokens")
    pooled = layers.GlobalMaxPooling1D()(layers.Embedding(5, 3)(tokens))
    nested = keras.Model(tokens, layers.Dense(2)(pooled), name="nested")
    sentence = keras.Input((1,), dtype="string", name="sentence")
    path = tmp_path / "m.keras"
    keras.Model(sentence, nested(vectorize(sentence))).save(path)
    model = load_model(audit_file(path)).model
    assert [tuple(item.shape) for item in model.inputs] == [(None, 7)]
    data = np.array([[2, 3, 1, 0, 0, 0, 0], [0, 0, 3, 0, 2, 0, 0]])
    np.testing.assert_allclose(model(data), nested(data), atol=1e-6)


PROGRAM = """
import keras
from keras import layers

class Sentence(layers.Layer):
    def __init__(self):
        super().__init__()
        self.words = layers.StringLookup(vocabulary=["a", "b"], name="words")
        self.embedding = layers.Embedding(4, 3, mask_zero=True)
        self.embedding.build()

    def call(self, x):
        return keras.ops.mean(self.embedding(self.words(x)), axis=1)

    def compute_output_shape(self, shape):
        return (shape[0], 3)

def around(layer):
    document = keras.Input((3, 2), dtype="string")
    return keras.Model(document, layers.GRU(2)(layers.TimeDistributed(layer)(document)))

def of_class():
    return around(Sentence())

def of_model():
    x = keras.Input((2,), dtype="string")
    return around(keras.Model(x, Sentence.call(Sentence(), x)))
"""


@pytest.mark.parametrize("name", ["of_class", "of_model"])
def test_lookups_over_time_of_programs_are_named(name: str, tmp_path: Path) -> None:
    """The error was one of NumPy about the data type 'string'."""
    (tmp_path / "program.py").write_text(PROGRAM)
    names: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM, names)
    names[name]().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(UnsupportedModelError, match="StringLookup"):
        load_model(
            audit_file(tmp_path / "m.weights.h5"),
            architecture=f"{tmp_path / 'program.py'}:{name}",
        )
