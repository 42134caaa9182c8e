"""Loading model files: options, the user's own classes, free axes, migrated configs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers
from long_parameters import only

from edgeattn.bundle.model_digest import digest
from edgeattn.errors import SampleError, UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.layers import Attention
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.worker import tasks

FEATURES, UNITS, STEPS = 3, 5, 7


def seeded(model: Any) -> Any:
    generator = np.random.default_rng(17)
    for variable in model.weights:
        value = generator.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def assert_same_outputs(loaded: LoadedModel, model: Any, *inputs: Any) -> None:
    arguments = list(inputs) if len(inputs) > 1 else inputs[0]
    expected = keras.tree.flatten(model(arguments, training=False))
    actual = keras.tree.flatten(loaded.model(arguments, training=False))
    for output, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-6, atol=1e-6)


def random_input(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def edgeattn_attention() -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    states = layers.GRU(UNITS, return_sequences=True)(inputs)
    return keras.Model(inputs, Attention(2, score="bahdanau")(states))


def operators() -> Any:
    """Return a model of operations (``x + y``, slices) and built-in attention layers."""
    inputs = keras.Input((STEPS, FEATURES))
    states = layers.LSTM(UNITS, return_sequences=True)(inputs)
    first = layers.Attention(use_scale=True)([states, states])
    second = layers.AdditiveAttention()([states, states])
    third = layers.MultiHeadAttention(2, 3)(states, states)
    fourth = layers.GroupQueryAttention(3, 2, 1)(states, states)
    summed = first + second * 2.0 - third / fourth
    return keras.Model(inputs, layers.Dense(2)(summed[:, -1]))


def nested() -> Any:
    inner = keras.Sequential(
        [keras.Input((STEPS, FEATURES)), layers.LSTM(UNITS), layers.BatchNormalization()],
        name="inner",
    )
    left, right = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
    joined = layers.Concatenate()([inner(left), inner(right)])
    return keras.Model([left, right], [layers.Dense(2)(joined), inner(right)])


@pytest.mark.parametrize("suffix", only([".h5", ".keras"], ".keras"))
@pytest.mark.parametrize("build", [edgeattn_attention, operators, nested])
def test_files_of_the_current_keras(build: Any, suffix: str, tmp_path: Path) -> None:
    model = seeded(build())
    path = tmp_path / f"model{suffix}"
    model.save(path)
    inputs = [random_input(2, STEPS, FEATURES) for _ in model.inputs]
    assert_same_outputs(load_model(audit_file(path)), model, *inputs)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_unknown_loss_is_ignored(suffix: str, tmp_path: Path) -> None:
    model = seeded(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)]))
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2), metrics=["mae"])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert_same_outputs(load_model(audit_file(path)), model, random_input(2, FEATURES))


@pytest.mark.parametrize("name", ["-a b", "______config___1_____"])
def test_model_name_that_tensorflow_rejects(name: str, tmp_path: Path) -> None:
    """Keras accepts any name, and then cannot predict with the model. Found by the fuzzer."""
    from edgeattn_converters.tracing.trace import interface_of

    model = seeded(keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(UNITS)], name=name))
    model.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"))
    x = np.ones((2, STEPS, FEATURES), np.float32)
    assert_same_outputs(loaded, model, x)
    assert loaded.model.predict(x, verbose=0).shape == (2, UNITS)
    assert interface_of(loaded.model).outputs
    assert any("TensorFlow does not accept" in note for note in loaded.notes)


def test_notes_list_what_was_migrated(tmp_path: Path) -> None:
    old = {"name": "a", "units": 2, "activation": "hard_sigmoid", "batch_input_shape": [None, 3]}
    config = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": old}]}
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": json.dumps(config), "keras_version": "2.0.5"})
        group = file.create_group("model_weights/a")
        file["model_weights"].attrs["layer_names"] = [b"a"]
        group.attrs["weight_names"] = [b"a/kernel:0", b"a/bias:0"]
        group["a/kernel:0"] = np.eye(3, 2, dtype="float32")
        group["a/bias:0"] = np.zeros(2, "float32")
    loaded = load_model(audit_file(path))
    assert loaded.notes == ("hard_sigmoid is computed as in Keras 2 (0.2x+0.5).",)
    # 0.2 * 1 + 0.5 and 0.2 * -4 + 0.5, clipped at 0
    np.testing.assert_allclose(loaded.model(np.array([[1.0, -4.0, 9.0]])), [[0.7, 0.0]], atol=1e-7)


def test_masks_before_keras_2_10_and_the_cross_check(tmp_path: Path) -> None:
    """MultiHeadAttention ignored masks in Keras 2.8; tf_keras opens the file but applies them."""
    import tf_keras

    inputs = tf_keras.Input((STEPS,))
    words = tf_keras.layers.Embedding(11, FEATURES, mask_zero=True)(inputs)
    attended = tf_keras.layers.MultiHeadAttention(2, 3)(words, words)
    model = seeded(tf_keras.Model(inputs, tf_keras.layers.GlobalMaxPooling1D()(attended)))
    path = tmp_path / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "2.8.0"
    loaded = load_model(audit_file(path))
    assert "masks as in Keras 2.8.0" in loaded.notes[0]
    assert "opens this file too and computes different outputs" in loaded.notes[1]
    assert "only because it does not make the changes listed here" in loaded.notes[1]
    x = np.array([[3, 5, 0, 0, 0, 0, 0]])
    table = loaded.model.layers[1].get_weights()[0]
    unmasked = keras.layers.MultiHeadAttention(2, 3)
    plain = keras.Input((STEPS, FEATURES))
    unmasked(plain, plain)
    unmasked.set_weights(loaded.model.layers[2].get_weights())
    expected = np.asarray(unmasked(table[x], table[x])).max(axis=1)
    np.testing.assert_allclose(loaded.model(x), expected, rtol=1e-5, atol=1e-5)


def save_json(model: Any, folder: Path) -> tuple[Path, Path]:
    weights, architecture = folder / "m.weights.h5", folder / "m.json"
    model.save_weights(weights)
    architecture.write_text(model.to_json())
    return weights, architecture


def test_weights_only_with_an_architecture_file(tmp_path: Path) -> None:
    model = seeded(edgeattn_attention())
    weights, architecture = save_json(model, tmp_path)
    assert_same_outputs(
        load_model(audit_file(weights), architecture=str(architecture)),
        model,
        random_input(2, STEPS, FEATURES),
    )
    with pytest.raises(UnsupportedModelError, match="no architecture") as error:
        load_model(audit_file(weights))
    assert "--architecture FILE.json" in str(error.value)


def test_architecture_from_a_function(tmp_path: Path) -> None:
    code = """
    import keras

    def build():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    def nothing():
        return 3

    def broken():
        raise KeyError("oh")
    """
    script = tmp_path / "architecture.py"
    script.write_text("\n".join(line[4:] for line in code.splitlines()))
    model = seeded(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)]))
    weights, _ = save_json(model, tmp_path)
    assert_same_outputs(
        load_model(audit_file(weights), architecture=f"{script}:build"),
        model,
        random_input(2, FEATURES),
    )
    for option, message in [
        (f"{script}:nothing", "not a built Keras model"),
        (f"{script}:broken", "KeyError"),
        (f"{script}:absent", "no function 'absent'"),
        (f"{tmp_path}/absent.py:build", "no such file"),
        ("model.txt", "neither FILE.json"),
        ("absent.json", "no such file"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_model(audit_file(weights), architecture=option)


def test_architecture_is_rejected_for_whole_models(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="has its own"):
        load_model(audit_file(tmp_path / "m.keras"), architecture="m.json")


CUSTOM = """
import keras

class Attention(keras.layers.Layer):
    \"\"\"A class with the name of one of Keras' own.\"\"\"

    def __init__(self, step_dim, **kwargs):
        super().__init__(**kwargs)
        self.step_dim = step_dim

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return keras.ops.sum(x * self.w, axis=1)

    def get_config(self):
        return {**super().get_config(), "step_dim": self.step_dim}

def twice(x):
    return 2 * x
"""


@pytest.fixture
def custom_model(tmp_path: Path) -> tuple[Any, Path]:
    file = tmp_path / "custom.py"
    file.write_text(CUSTOM)
    names: dict[str, Any] = {"__name__": "custom"}
    exec(CUSTOM, names)
    inputs = keras.Input((STEPS, FEATURES))
    return seeded(keras.Model(inputs, names["Attention"](STEPS, name="look")(inputs))), file


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_custom_class_with_the_name_of_a_keras_class(
    suffix: str, custom_model: tuple[Any, Path], tmp_path: Path
) -> None:
    model, file = custom_model
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert_same_outputs(
        load_model(audit_file(path), custom_objects=file), model, random_input(2, STEPS, FEATURES)
    )
    with pytest.raises(UnsupportedModelError, match="'Attention'") as error:
        load_model(audit_file(path))
    assert "step_dim" in str(error.value)
    assert "--custom-objects" in str(error.value)


OWN_SHAPE = """
import keras

class Pooled(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.key = keras.layers.Dense(units)
        self.scorer = keras.layers.Dense(1)

    def call(self, x):
        weights = keras.ops.softmax(self.scorer(keras.ops.tanh(self.key(x))), axis=1)
        return keras.ops.sum(weights * x, axis=1)

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])

    def get_config(self):
        return {**super().get_config(), "units": self.units}

class Scaled(Pooled):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return self.scale * super().call(x)

class Outer(Pooled):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.inner = Scaled(units)

    def call(self, x):
        return self.inner(x) + super().call(x)
"""


@pytest.mark.parametrize("suffix", only([".h5", ".keras"], ".keras"))
@pytest.mark.parametrize("class_name", ["Pooled", "Scaled", "Outer"])
def test_layer_that_defines_its_output_shape(class_name: str, suffix: str, tmp_path: Path) -> None:
    """Keras does not trace its call, so the layers inside are not built when it is loaded."""
    file = tmp_path / "custom.py"
    file.write_text(OWN_SHAPE)
    names: dict[str, Any] = {"__name__": "custom"}
    exec(OWN_SHAPE, names)
    layer = names[class_name](UNITS)
    layer(random_input(1, STEPS, FEATURES))
    inputs = keras.Input((STEPS, FEATURES))
    model = seeded(keras.Model(inputs, layers.Dense(2)(layer(inputs))))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path), custom_objects=file)
    assert_same_outputs(loaded, model, random_input(2, STEPS, FEATURES))


def test_custom_function_replaces_a_lambda(tmp_path: Path) -> None:
    file = tmp_path / "custom.py"
    file.write_text("def odd_one(x):\n    return 2 * x + 1\n")
    inputs = keras.Input((FEATURES,))
    hidden = layers.Dense(2)(inputs)
    odd = layers.Lambda(lambda x: sum((x, x)) + 1, name="odd_one")(hidden)
    model = seeded(keras.Model(inputs, odd))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(UnsafeModelError, match="odd_one"):
        audit_file(path)
    trusted = audit_file(path, trust=digest(path))
    with pytest.raises(UnsafeModelError, match="odd_one"):
        load_model(trusted)
    assert_same_outputs(load_model(trusted, custom_objects=file), model, random_input(2, FEATURES))


@pytest.mark.parametrize(
    ("text", "message"),
    [("raise ValueError('no')", "ValueError: no"), (None, "no such file")],
)
def test_custom_objects_that_do_not_load(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    seeded(edgeattn_attention()).save(path)
    file = tmp_path / "custom.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_model(audit_file(path), custom_objects=file)


def test_free_time_axis_gets_its_length(tmp_path: Path) -> None:
    inputs = keras.Input((None, FEATURES), name="sensor")
    model = seeded(keras.Model(inputs, layers.LSTM(UNITS)(inputs)))
    path = tmp_path / "m.keras"
    model.save(path)
    with pytest.raises(UsageError, match=r"'sensor' has shape \(free, free, 3\)") as error:
        load_model(audit_file(path))
    assert "--time-steps" in str(error.value)
    loaded = load_model(audit_file(path), time_steps=STEPS)
    assert loaded.model.inputs[0].shape == (None, STEPS, FEATURES)
    assert_same_outputs(loaded, model, random_input(2, STEPS, FEATURES))


def test_another_number_of_steps_than_that_of_the_weights(tmp_path: Path) -> None:
    model = tf_keras.Sequential(
        [tf_keras.layers.Conv1D(4, 2), tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)]
    )
    model.build((None, STEPS, FEATURES))
    path = tmp_path / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:  # as older versions save it
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"] = config["config"]["layers"][1:]
        for layer in config["config"]["layers"]:
            layer.pop("build_config", None)
            layer["config"].pop("batch_input_shape", None)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UnsupportedModelError, match="has weights of shape") as error:
        load_model(audit_file(path), time_steps=STEPS + 1)
    assert "--time-steps N" in str(error.value.hint)
    x = random_input(2, STEPS, FEATURES)
    assert_same_outputs(load_model(audit_file(path), time_steps=STEPS), model, x)


def test_other_free_axes_get_their_sizes(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, None, 1), name="x")
    path = tmp_path / "m.keras"
    keras.Model(inputs, layers.Conv2D(2, 3)(inputs)).save(path)
    with pytest.raises(UsageError, match="needs a fixed shape") as caught:
        load_model(audit_file(path), time_steps=STEPS)
    assert f"--input-shape x={STEPS}xWx1" in str(caught.value.hint)
    first = f"Leave out --time-steps: it is the size of axis 1, here {STEPS}. Pass the sizes"
    assert str(caught.value.hint).startswith(first)
    with pytest.raises(UsageError, match="needs a fixed shape") as caught:
        load_model(audit_file(path))
    assert str(caught.value.hint).startswith("Pass the sizes")
    loaded = load_model(audit_file(path), time_steps={"x": (STEPS, 9, 1)})
    assert loaded.model.inputs[0].shape == (None, STEPS, 9, 1)


def test_text_vectorization_is_removed(tmp_path: Path) -> None:
    text = keras.Input((1,), dtype="string", name="text")
    numbers = layers.TextVectorization(
        vocabulary=["red", "blue"], output_sequence_length=STEPS, name="words"
    )(text)
    hidden = layers.LSTM(UNITS)(layers.Embedding(4, FEATURES, mask_zero=True)(numbers))
    other = keras.Input((2,), name="other")
    model = seeded(keras.Model([text, other], layers.Concatenate()([hidden, other])))
    path = tmp_path / "m.keras"
    model.save(path)
    loaded = load_model(audit_file(path))
    assert [tensor.name for tensor in loaded.model.inputs] == ["words", "other"]
    assert loaded.model.inputs[0].shape == (None, STEPS)
    assert "words: removed TextVectorization" in loaded.notes[0]
    x = random_input(2, 2)
    words = keras.ops.convert_to_tensor([["red blue"], ["blue"]])
    expected = model([words, keras.ops.convert_to_tensor(x)])
    indices = np.array([[2, 3, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(loaded.model([indices, x]), expected, atol=1e-6)


WORDS = np.array([["red", "blue"], ["green", "red"], ["blue", "blue"]])
NUMBERS = np.array([[5, 7], [6, 5], [7, 7]])


@pytest.mark.parametrize(
    ("build", "values"),
    [
        (lambda: layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot"), WORDS),
        (lambda: layers.StringLookup(vocabulary=["red", "blue"], output_mode="count"), WORDS),
        (lambda: layers.IntegerLookup(vocabulary=[5, 7], output_mode="one_hot"), NUMBERS),
        (lambda: layers.IntegerLookup(vocabulary=[5, 7], output_mode="multi_hot"), NUMBERS[:, :1]),
        (
            lambda: layers.IntegerLookup(
                vocabulary=[5, 7], output_mode="multi_hot", num_oov_indices=2
            ),
            NUMBERS,
        ),
        (
            lambda: layers.IntegerLookup(
                vocabulary=[5, 7], output_mode="one_hot", max_tokens=6, pad_to_max_tokens=True
            ),
            NUMBERS[:, :1],
        ),
        (
            lambda: layers.TextVectorization(vocabulary=["red", "blue"], output_mode="multi_hot"),
            WORDS[:, :1],
        ),
        (lambda: layers.Hashing(5, output_mode="one_hot"), WORDS),
        (lambda: layers.Hashing(5, output_mode="multi_hot"), WORDS),
        (lambda: layers.Hashing(5, output_mode="count", mask_value="red"), WORDS),
    ],
)
def test_encoded_words_have_a_number_for_unknown_ones(
    build: Any, values: np.ndarray, tmp_path: Path
) -> None:
    dtype = "string" if values.dtype.kind == "U" else "int64"
    lookup = build()
    inputs = keras.Input(values.shape[1:], dtype=dtype, name="raw")
    model = seeded(keras.Model(inputs, layers.Dense(2)(lookup(inputs))))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = load_model(audit_file(path))
    raw = keras.ops.convert_to_tensor(values, dtype=dtype)
    encoded = lookup(raw)
    assert loaded.model.inputs[0].shape[1:] == encoded.shape[1:]
    np.testing.assert_allclose(loaded.model(encoded), model(raw), atol=1e-6)


def test_a_model_without_its_lookup_is_not_compared_with_the_stored_one(tmp_path: Path) -> None:
    """Both take integers, but one takes values and the other their numbers."""
    inputs = keras.Input((3,), dtype="int64", name="raw")
    lookup = layers.IntegerLookup(vocabulary=[5, 7])
    table = layers.Embedding(3, 2)(lookup(inputs))
    model = seeded(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(table))))
    model.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"))
    raw = np.array([[5, 7, 6]])
    np.testing.assert_allclose(loaded.model(lookup(raw)), model(raw), atol=1e-6)


CUT_LAYERS: dict[str, tuple[Any, Any, str, str]] = {
    "words": (
        lambda: layers.StringLookup(vocabulary=["red", "blue"], name="cut"), WORDS,
        "cut (?, 2) int64", "the device must look up the values in the vocabulary",
    ),
    "encoded words": (
        lambda: layers.StringLookup(
            vocabulary=["red", "blue"], output_mode="multi_hot", name="cut"
        ),
        WORDS, "cut (?, 3) float32", "look up the values and encode them (mode multi_hot)",
    ),
    "numbers": (
        lambda: layers.IntegerLookup(vocabulary=[5, 7], name="cut"), NUMBERS, "cut (?, 2) int64",
        "the device must look up the values in the vocabulary",
    ),
    "encoded numbers": (
        lambda: layers.IntegerLookup(vocabulary=[5, 7], output_mode="one_hot", name="cut"),
        NUMBERS, "cut (?, 2, 3) float32", "encode them (mode one_hot)",
    ),
    "text": (
        lambda: layers.TextVectorization(
            vocabulary=["red", "blue"], output_sequence_length=4, name="cut"
        ),
        WORDS[:, :1], "cut (?, 4) int64", "turn text into word indices",
    ),
    "hashes": (
        lambda: layers.Hashing(3, name="cut"), WORDS, "cut (?, 2) int64", "hash the values into 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CUT_LAYERS)
def test_raw_samples_after_a_cut_are_refused_with_what_to_pass(kind: str, tmp_path: Path) -> None:
    build, values, needed, task = CUT_LAYERS[kind]
    dtype = "string" if values.dtype.kind == "U" else "int64"
    inputs = keras.Input(values.shape[1:], dtype=dtype, name="raw")
    cut = build()(inputs)
    hidden = layers.Embedding(4, 3)(cut) if "int64" in needed else layers.Dense(3)(cut)
    model = keras.Model(inputs, layers.Flatten()(hidden))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "samples.npz", raw=values)
    source = ModelSource(str(tmp_path / "model.keras"), samples=str(tmp_path / "samples.npz"))
    options = ConversionOptions(schemes=("float32",)).to_json()
    with pytest.raises(SampleError) as error:
        tasks.write_reference(source.to_json(), options, str(tmp_path))
    for text in (needed, task, "Pass raw inputs with --raw-samples"):
        assert text in str(error.value.hint)


@keras.saving.register_keras_serializable(package="test")
def letters(text: Any) -> Any:
    return tf.strings.unicode_split(text, "UTF-8")


def test_samples_of_layers_that_no_front_end_computes(tmp_path: Path) -> None:
    """A function of the user splits the text: raw samples cannot be prepared."""
    vectors = layers.TextVectorization(
        vocabulary=["r", "b"], split=letters, output_sequence_length=4, name="cut"
    )
    inputs = keras.Input((), dtype="string", name="raw")
    hidden = layers.Embedding(4, 3)(vectors(inputs))
    keras.Model(inputs, layers.Flatten()(hidden)).save(tmp_path / "model.keras")
    (tmp_path / "own.py").write_text(
        "import keras, tensorflow as tf\n"
        "@keras.saving.register_keras_serializable(package='test')\n"
        "def letters(text):\n    return tf.strings.unicode_split(text, 'UTF-8')\n"
    )
    np.savez(tmp_path / "samples.npz", ids=np.zeros((4, 4), "int64"))
    source = ModelSource(
        str(tmp_path / "model.keras"),
        samples=str(tmp_path / "samples.npz"),
        custom_objects=str(tmp_path / "own.py"),
    )
    options = ConversionOptions(schemes=("float32",)).to_json()
    with pytest.raises(SampleError) as error:
        tasks.write_reference(source.to_json(), options, str(tmp_path))
    assert "--raw-samples" not in error.value.hint
    assert error.value.hint.startswith("Pass what these layers returned for the inputs cut (?, 4)")
    assert "split=letters" in error.value.hint


def test_input_shape_of_a_sequential_built_from_data(tmp_path: Path) -> None:
    model = keras.Sequential([layers.LSTM(UNITS), layers.Dense(2)])
    model(random_input(2, STEPS, FEATURES))
    seeded(model)
    for name in ("m.keras", "m.h5"):
        path = tmp_path / name
        model.save(path)
        loaded = load_model(audit_file(path), time_steps=STEPS)
        assert loaded.model.inputs[0].shape == (None, STEPS, FEATURES)
        assert_same_outputs(loaded, model, random_input(2, STEPS, FEATURES))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_model_without_weights(suffix: str, tmp_path: Path) -> None:
    query, value = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
    model = keras.Model([query, value], layers.Attention()([query, value]))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    inputs = [random_input(2, STEPS, FEATURES) for _ in range(2)]
    assert_same_outputs(load_model(audit_file(path)), model, *inputs)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    seeded(edgeattn_attention()).save(path)
    with h5py.File(path, "a") as file:
        names = file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names"] = [n for n in names if b"gru" not in n.encode()]
    with pytest.raises(UnsupportedModelError, match="no weights for 3 of"):
        load_model(audit_file(path))


def test_declared_sizes_are_checked_before_allocation(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    seeded(edgeattn_attention()).save(path)
    other = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as bomb:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = data.replace(b'"units": 5', b'"units": 500000')
            bomb.writestr(name, data)
    with pytest.raises(UnsafeModelError, match="more than the file contains"):
        load_model(audit_file(other))


@pytest.mark.parametrize("initializer", [None, "orthogonal"])
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (keras.layers.Dense(4), "units"),
        (keras.layers.Conv1D(4, 2), "filters"),
        (keras.layers.LSTM(4), "units"),
        (keras.layers.MultiHeadAttention(2, 4), "key_dim"),
        (keras.layers.Bidirectional(keras.layers.GRU(4)), "units"),
    ],
)
def test_declared_sizes_are_checked_for_every_initializer(
    tmp_path: Path, layer: Any, size: str, initializer: Any
) -> None:
    """A config may lack the initializers, or name others than Keras' defaults."""
    inputs = keras.Input((3, 1000))
    twice = isinstance(layer, keras.layers.MultiHeadAttention)
    layer = type(layer).from_config(layer.get_config())
    path, other = tmp_path / "m.keras", tmp_path / "bomb.keras"
    keras.Model(inputs, layer(inputs, inputs) if twice else layer(inputs)).save(path)

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(item) for item in value]
        if not isinstance(value, dict):
            return value
        items = {key: changed(item) for key, item in value.items()}
        for key in list(items):
            if key.endswith("_initializer"):
                items[key] = initializer
                if initializer is None:
                    del items[key]
        return {**items, size: 400_000} if size in items else items

    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as bomb:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = json.dumps(changed(json.loads(data))).encode()
            bomb.writestr(name, data)
    with pytest.raises(UnsafeModelError, match="more than the file contains"):
        load_model(audit_file(other))


def test_artifacts_are_not_loaded(tmp_path: Path) -> None:
    lite = tmp_path / "m.tflite"
    lite.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    with pytest.raises(UsageError, match="is a TFLite model"):
        load_model(audit_file(lite))
