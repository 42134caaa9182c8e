"""Files become models of the right era: bad flags, the user's own classes, free axes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.layers import Attention
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model

FEATURES, UNITS, STEPS = 3, 5, 7


def seeded(model: Any) -> Any:
    generator = np.random.default_rng(17)
    for variable in model.weights:
        value = generator.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def same(loaded: LoadedModel, model: Any, *inputs: Any) -> None:
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    expected = keras.tree.flatten(model(given, training=False))
    actual = keras.tree.flatten(loaded.model(given, training=False))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def steps(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def ours() -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    states = layers.GRU(UNITS, return_sequences=True)(inputs)
    return keras.Model(inputs, Attention(2, score="bahdanau")(states))


def operators() -> Any:
    """``x + y``, slices and built-in attentions: operations beside layers."""
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


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("build", [ours, operators, nested])
def test_what_todays_keras_saves(build: Any, suffix: str, tmp_path: Path) -> None:
    model = seeded(build())
    path = tmp_path / f"model{suffix}"
    model.save(path)
    inputs = [steps(2, STEPS, FEATURES) for _ in model.inputs]
    same(load_model(audit_file(path)), model, *inputs)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_trained_with_a_loss_nobody_has(suffix: str, tmp_path: Path) -> None:
    model = seeded(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)]))
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2), metrics=["mae"])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    same(load_model(audit_file(path)), model, steps(2, FEATURES))


@pytest.mark.parametrize("name", ["-a b", "______config___1_____"])
def test_a_model_whose_name_no_graph_takes(name: str, tmp_path: Path) -> None:
    """Found by the fuzzer: Keras takes any name, and then cannot predict with the model."""
    from edgeattn_converters.tracing.trace import interface_of

    model = seeded(keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(UNITS)], name=name))
    model.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"))
    x = np.ones((2, STEPS, FEATURES), np.float32)
    same(loaded, model, x)
    assert loaded.model.predict(x, verbose=0).shape == (2, UNITS)
    assert interface_of(loaded.model).outputs
    assert any("none that TensorFlow takes" in note for note in loaded.notes)


def test_notes_say_what_was_repaired(tmp_path: Path) -> None:
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
    assert loaded.notes == ("hard_sigmoid is kept as Keras 2 computed it (0.2x+0.5).",)
    # 0.2 * 1 + 0.5 and 0.2 * -4 + 0.5, cut off at 0
    np.testing.assert_allclose(loaded.model(np.array([[1.0, -4.0, 9.0]])), [[0.7, 0.0]], atol=1e-7)


def test_masks_before_keras_2_10_and_a_second_opinion(tmp_path: Path) -> None:
    """MultiHeadAttention ignored masks then; tf_keras, which opens the file, does not."""
    import tf_keras

    inputs = tf_keras.Input((STEPS,))
    words = tf_keras.layers.Embedding(11, FEATURES, mask_zero=True)(inputs)
    looked = tf_keras.layers.MultiHeadAttention(2, 3)(words, words)
    model = seeded(tf_keras.Model(inputs, tf_keras.layers.GlobalMaxPooling1D()(looked)))
    path = tmp_path / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "2.8.0"
    loaded = load_model(audit_file(path))
    assert "masks as in Keras 2.8.0" in loaded.notes[0]
    assert "tf_keras opens this file too and computes something else" in loaded.notes[1]
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


def test_weights_apart_from_their_architecture(tmp_path: Path) -> None:
    model = seeded(ours())
    weights, architecture = save_json(model, tmp_path)
    same(
        load_model(audit_file(weights), architecture=str(architecture)),
        model,
        steps(2, STEPS, FEATURES),
    )
    with pytest.raises(UnsupportedModelError, match="no architecture") as error:
        load_model(audit_file(weights))
    assert "--architecture FILE.json" in str(error.value)


def test_an_architecture_made_by_a_function(tmp_path: Path) -> None:
    code = """
    import keras

    def build():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    def nothing():
        return 3

    def broken():
        raise KeyError("oh")
    """
    maker = tmp_path / "maker.py"
    maker.write_text("\n".join(line[4:] for line in code.splitlines()))
    model = seeded(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)]))
    weights, _ = save_json(model, tmp_path)
    same(load_model(audit_file(weights), architecture=f"{maker}:build"), model, steps(2, FEATURES))
    for flag, said in [
        (f"{maker}:nothing", "not a built Keras model"),
        (f"{maker}:broken", "KeyError"),
        (f"{maker}:absent", "no function 'absent'"),
        (f"{tmp_path}/absent.py:build", "no file"),
        ("model.txt", "expected FILE.json"),
        ("absent.json", "no such file"),
    ]:
        with pytest.raises(UsageError, match=said):
            load_model(audit_file(weights), architecture=flag)


def test_architecture_is_for_weights_only(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="has its own"):
        load_model(audit_file(tmp_path / "m.keras"), architecture="m.json")


OWN = """
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
def own_model(tmp_path: Path) -> tuple[Any, Path]:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    names: dict[str, Any] = {"__name__": "own"}
    exec(OWN, names)
    inputs = keras.Input((STEPS, FEATURES))
    return seeded(keras.Model(inputs, names["Attention"](STEPS, name="look")(inputs))), file


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_own_classes_also_where_keras_has_the_name(
    suffix: str, own_model: tuple[Any, Path], tmp_path: Path
) -> None:
    model, file = own_model
    path = tmp_path / f"model{suffix}"
    model.save(path)
    same(load_model(audit_file(path), custom_objects=file), model, steps(2, STEPS, FEATURES))
    with pytest.raises(UnsupportedModelError, match="'Attention'") as error:
        load_model(audit_file(path))
    assert "step_dim" in str(error.value)
    assert "--custom-objects" in str(error.value)


def test_own_function_for_a_lambda_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def odd_one(x):\n    return 2 * x + 1\n")
    inputs = keras.Input((FEATURES,))
    hidden = layers.Dense(2)(inputs)
    odd = layers.Lambda(lambda x: sum((x, x)) + 1, name="odd_one")(hidden)
    model = seeded(keras.Model(inputs, odd))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(UnsafeModelError, match="odd_one"):
        audit_file(path)
    trusted = audit_file(path, trust=audit_digest(path))
    with pytest.raises(UnsafeModelError, match="odd_one"):
        load_model(trusted)
    same(load_model(trusted, custom_objects=file), model, steps(2, FEATURES))


def audit_digest(path: Path) -> str:
    from edgeattn_converters.loading.audit import digest

    return digest(path)


@pytest.mark.parametrize(
    ("text", "said"), [("raise ValueError('no')", "ValueError: no"), (None, "no file")]
)
def test_custom_objects_that_do_not_load(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    seeded(ours()).save(path)
    file = tmp_path / "own.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_model(audit_file(path), custom_objects=file)


def test_a_free_time_axis_gets_its_length(tmp_path: Path) -> None:
    inputs = keras.Input((None, FEATURES), name="sensor")
    model = seeded(keras.Model(inputs, layers.LSTM(UNITS)(inputs)))
    path = tmp_path / "m.keras"
    model.save(path)
    with pytest.raises(UsageError, match=r"'sensor' has shape \(free, free, 3\)") as error:
        load_model(audit_file(path))
    assert "--time-steps" in str(error.value)
    loaded = load_model(audit_file(path), time_steps=STEPS)
    assert loaded.model.inputs[0].shape == (None, STEPS, FEATURES)
    same(loaded, model, steps(2, STEPS, FEATURES))


def test_other_free_axes_are_not_supported(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, None, 1))
    path = tmp_path / "m.keras"
    keras.Model(inputs, layers.Conv2D(2, 3)(inputs)).save(path)
    with pytest.raises(UnsupportedModelError, match="only the batch and the time axis"):
        load_model(audit_file(path), time_steps=STEPS)


def test_tables_of_words_are_cut_off(tmp_path: Path) -> None:
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
    assert "words: TextVectorization was cut off" in loaded.notes[0]
    x = steps(2, 2)
    words = keras.ops.convert_to_tensor([["red blue"], ["blue"]])
    expected = model([words, keras.ops.convert_to_tensor(x)])
    given = np.array([[2, 3, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(loaded.model([given, x]), expected, atol=1e-6)


def test_a_chain_without_an_input_gets_it_from_what_is_stored(tmp_path: Path) -> None:
    model = keras.Sequential([layers.LSTM(UNITS), layers.Dense(2)])
    model(steps(2, STEPS, FEATURES))
    seeded(model)
    for name in ("m.keras", "m.h5"):
        path = tmp_path / name
        model.save(path)
        loaded = load_model(audit_file(path), time_steps=STEPS)
        assert loaded.model.inputs[0].shape == (None, STEPS, FEATURES)
        same(loaded, model, steps(2, STEPS, FEATURES))


def test_a_model_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((FEATURES,)), layers.Activation("tanh")]).save(path)
    with pytest.raises(UnsupportedModelError, match="without any weights"):
        load_model(audit_file(path))


def test_no_weight_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    seeded(ours()).save(path)
    with h5py.File(path, "a") as file:
        names = file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names"] = [n for n in names if b"gru" not in n.encode()]
    with pytest.raises(UnsupportedModelError, match="no weights for 3 of"):
        load_model(audit_file(path))


def test_declared_sizes_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    seeded(ours()).save(path)
    other = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as bomb:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = data.replace(b'"units": 5', b'"units": 500000')
            bomb.writestr(name, data)
    with pytest.raises(UnsafeModelError, match="more than the file holds"):
        load_model(audit_file(other))


def test_artifacts_are_no_models(tmp_path: Path) -> None:
    lite = tmp_path / "m.tflite"
    lite.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    with pytest.raises(UsageError, match="is a tflite"):
        load_model(audit_file(lite))
