"""Weights that an older Keras saved, with an architecture from a function or a JSON file."""

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.architecture import function_model
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model

STEPS, FEATURES, UNITS = 4, 2, 3


def write_weights(
    path: Path, version: str, backend: str = "tensorflow", **arrays: dict[str, Any]
) -> Path:
    """Write arrays by layer as ``save_weights`` of Keras 1 and 2 does."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        file.attrs.update(keras_version=version.encode(), backend=backend.encode())
        for layer, values in arrays.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in values]
            for name, value in values.items():
                group.create_dataset(f"{layer}/{name}:0", data=np.asarray(value, "float32"))
    return path


def random_arrays(**shapes: tuple[int, ...]) -> dict[str, Any]:
    generator = np.random.default_rng(8)
    return {name: generator.normal(0, 1.5, shape) for name, shape in shapes.items()}


def hard_sigmoid(x: Any) -> Any:
    """As Keras 1 and 2 define it."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def lstm(x: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
    h = c = np.zeros((len(x), len(recurrent_kernel)))
    for step in range(x.shape[1]):
        gates = np.split(x[:, step] @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
        write, forget, read = (hard_sigmoid(gates[k]) for k in (0, 1, 3))
        c = forget * c + write * np.tanh(gates[2])
        h = read * np.tanh(c)
    return h


def gru_before(x: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
    """GRU with the reset gate before the product, the only one of Keras 2.1."""
    h = np.zeros((len(x), len(recurrent_kernel)))
    for step in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, step] @ kernel + bias, 3, axis=1)
        uz, ur, uh = np.split(recurrent_kernel, 3, axis=1)
        z, r = hard_sigmoid(xz + h @ uz), hard_sigmoid(xr + h @ ur)
        h = z * h + (1 - z) * np.tanh(xh + (r * h) @ uh)
    return h


INPUT = np.random.default_rng(5).normal(size=(6, STEPS, FEATURES)).astype("float32")
LSTM_WEIGHTS = random_arrays(
    kernel=(FEATURES, 4 * UNITS), recurrent_kernel=(UNITS, 4 * UNITS), bias=(4 * UNITS,)
)
GRU_WEIGHTS = random_arrays(
    kernel=(FEATURES, 3 * UNITS), recurrent_kernel=(UNITS, 3 * UNITS), bias=(3 * UNITS,)
)
SCRIPT = """
import keras
from keras import layers

class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs + inputs

def gated(name="lstm_1", layer=layers.LSTM, **arguments):
    return layer({units}, recurrent_activation="hard_sigmoid", name=name, **arguments)

def model():
    return keras.Sequential([keras.Input(({steps}, {features})), gated()])

def other_name():
    return keras.Sequential([keras.Input(({steps}, {features})), gated("recurrence")])

def bidirectional():
    x = keras.Input(({steps}, {features}))
    return keras.Model(x, layers.Bidirectional(gated(), name="both")(x))

def own_layer():
    return keras.Sequential([keras.Input(({steps}, {features})), gated(), Doubled()])

def operation():
    x = keras.Input(({steps}, {features}))
    return keras.Model(x, Doubled()(keras.ops.hard_sigmoid(layers.Dense(2, name="dense_1")(x))))

def gru():
    return keras.Sequential([keras.Input(({steps}, {features})), gated("gru_1", layers.GRU)])

def default_gates():
    return keras.Sequential([keras.Input(({steps}, {features})), layers.LSTM(3, name="lstm_1")])

def convolution():
    return keras.Sequential([keras.Input((5, 5, 1)), layers.Conv2D(2, 3, name="conv")])

def convolution_and_own():
    return keras.Sequential([keras.Input((5, 5, 1)), layers.Conv2D(2, 3, name="conv"), Doubled()])

def pooled():
    x = keras.Input(({steps},))
    words = layers.Embedding(5, 4, mask_zero=True, name="words")(x)
    attended = layers.MultiHeadAttention(1, 4, name="heads")(words, words)
    return keras.Model(x, layers.GlobalMaxPooling1D()(attended))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "architecture.py"
    path.write_text(SCRIPT.format(units=UNITS, steps=STEPS, features=FEATURES))
    return path


@pytest.fixture
def lstm_file(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "old.h5", "2.1.5", lstm_1=LSTM_WEIGHTS)


def outputs(loaded: LoadedModel, x: Any = INPUT) -> Any:
    return loaded.model.predict(x, verbose=0)


@pytest.mark.parametrize(
    "function", only(["model", "other_name", "own_layer"], "model", "own_layer")
)
def test_hard_sigmoid_of_an_old_file(function: str, script: Path, lstm_file: Path) -> None:
    """Layers of the user's own classes are not rebuilt, the others of such a model are changed."""
    loaded = load_model(audit_file(lstm_file), architecture=f"{script}:{function}")
    expected = lstm(INPUT, **LSTM_WEIGHTS) * (2 if function == "own_layer" else 1)
    np.testing.assert_allclose(outputs(loaded), expected, atol=1e-5)
    assert "hard_sigmoid is computed as in Keras 2 (0.2x+0.5)." in loaded.notes
    assert any("saved by Keras 2.1.5" in note for note in loaded.notes)


def test_hard_sigmoid_as_an_operation(script: Path, tmp_path: Path) -> None:
    arrays = random_arrays(kernel=(FEATURES, 2), bias=(2,))
    file = write_weights(tmp_path / "old.h5", "2.4.0", dense_1=arrays)
    loaded = load_model(audit_file(file), architecture=f"{script}:operation")
    expected = 2 * hard_sigmoid(INPUT @ arrays["kernel"] + arrays["bias"])
    np.testing.assert_allclose(outputs(loaded), expected, atol=1e-5)


def test_wrapped_layer_of_an_old_file(script: Path, tmp_path: Path) -> None:
    arrays = {f"{side}_{k}": v for side in ("forward", "backward") for k, v in LSTM_WEIGHTS.items()}
    file = write_weights(tmp_path / "old.h5", "2.2.4", both=arrays)
    loaded = load_model(audit_file(file), architecture=f"{script}:bidirectional")
    halves = [lstm(INPUT, **LSTM_WEIGHTS), lstm(INPUT[:, ::-1], **LSTM_WEIGHTS)]
    np.testing.assert_allclose(outputs(loaded), np.concatenate(halves, axis=1), atol=1e-5)


def test_reset_gate_of_an_old_file(script: Path, tmp_path: Path) -> None:
    """The default of GRU has changed; the bias shows which one the weights belong to."""
    file = write_weights(tmp_path / "old.h5", "2.1.5", gru_1=GRU_WEIGHTS)
    loaded = load_model(audit_file(file), architecture=f"{script}:gru")
    np.testing.assert_allclose(outputs(loaded), gru_before(INPUT, **GRU_WEIGHTS), atol=1e-5)
    text = "gru_1: reset_after is False, the default of the Keras that saved the weights."
    assert text in loaded.notes


def test_json_of_the_current_keras(tmp_path: Path, lstm_file: Path) -> None:
    cell = layers.LSTM(UNITS, recurrent_activation="hard_sigmoid", name="lstm_1")
    inputs = keras.Input((STEPS, FEATURES))
    architecture = tmp_path / "model.json"
    architecture.write_text(keras.Model(inputs, cell(inputs)).to_json())
    loaded = load_model(audit_file(lstm_file), architecture=str(architecture))
    np.testing.assert_allclose(outputs(loaded), lstm(INPUT, **LSTM_WEIGHTS), atol=1e-5)


def test_default_of_the_keras_that_saved_the_weights(script: Path, lstm_file: Path) -> None:
    loaded = load_model(audit_file(lstm_file), architecture=f"{script}:default_gates")
    np.testing.assert_allclose(outputs(loaded), lstm(INPUT, **LSTM_WEIGHTS), atol=1e-5)
    text = "recurrent_activation is 'hard_sigmoid', the default of the Keras that saved"
    assert any(text in note for note in loaded.notes)
    assert not any("is 'sigmoid'" in note for note in loaded.notes)


def test_default_that_may_have_changed_is_noted(script: Path, tmp_path: Path) -> None:
    """TensorFlow 1.15 and 2.1, whose defaults differ, have the same version of Keras."""
    file = write_weights(tmp_path / "old.h5", "2.2.4-tf", lstm_1=LSTM_WEIGHTS)
    loaded = load_model(audit_file(file), architecture=f"{script}:default_gates")
    assert any("its default was 'hard_sigmoid' before Keras 2.3" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("axes", "function"),
    [
        (1, "build"),
        pytest.param(2, "build", marks=pytest.mark.long),
        (2, "own"),
        pytest.param(3, "own", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    ("version", "noted"),
    [
        pytest.param("2.1.5", True, marks=pytest.mark.long),
        ("2.15.0", True),
        ("3.0.0", False),
    ],
)
def test_default_of_convolutional_recurrences(
    axes: int, function: str, version: str, noted: bool, tmp_path: Path
) -> None:
    """tf_keras still has hard_sigmoid by default."""
    import tf_keras

    kind = f"ConvLSTM{axes}D"
    assert getattr(tf_keras.layers, kind)(1, 1).recurrent_activation.__name__ == "hard_sigmoid"
    script = tmp_path / "model.py"
    script.write_text(
        "import keras\n\nclass Own(keras.layers.Layer):\n"
        "    def call(self, x):\n        return x\n\n"
        "def build(*last):\n    return keras.Sequential([\n"
        f"        keras.Input({(2, *[3] * axes, 1)}),\n"
        f"        keras.layers.{kind}(1, 2, name='c'), *last])\n"
        "\ndef own():\n    return build(Own())\n"
    )
    window = (2,) * axes
    arrays = random_arrays(kernel=(*window, 1, 4), recurrent_kernel=(*window, 1, 4), bias=(4,))
    file = write_weights(tmp_path / "old.h5", version, c=arrays)
    notes = load_model(audit_file(file), architecture=f"{script}:build").notes
    text = (
        "c: recurrent_activation is 'hard_sigmoid', the default of the Keras that saved the weights"
    )
    assert any(text in note for note in notes) == noted


def test_weights_of_the_current_keras_need_no_changes(script: Path, tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES))
    cell = layers.LSTM(UNITS, recurrent_activation="hard_sigmoid", name="lstm_1")
    model = keras.Model(inputs, cell(inputs))
    model.save_weights(tmp_path / "new.weights.h5")
    loaded = load_model(audit_file(tmp_path / "new.weights.h5"), architecture=f"{script}:model")
    np.testing.assert_allclose(outputs(loaded), model.predict(INPUT, verbose=0), atol=1e-6)
    assert loaded.notes == ()


def test_masks_of_the_keras_that_saved_the_weights(script: Path, tmp_path: Path) -> None:
    """MultiHeadAttention ignored the masks of its inputs before Keras 2.10."""
    weights = {
        "words": random_arrays(embeddings=(5, 4)),
        "heads": random_arrays(
            query_kernel=(4, 1, 4), query_bias=(1, 4), key_kernel=(4, 1, 4), key_bias=(1, 4),
            value_kernel=(4, 1, 4), value_bias=(1, 4), output_kernel=(1, 4, 4), output_bias=(4,),
        ),
    }  # fmt: skip
    file = write_weights(tmp_path / "old.h5", "2.8.0", **weights)
    loaded = load_model(audit_file(file), architecture=f"{script}:pooled")
    x = np.array([[3, 1, 0, 0]])
    words = weights["words"]["embeddings"][x]
    query, key, value = (
        words @ weights["heads"][f"{name}_kernel"][:, 0] + weights["heads"][f"{name}_bias"]
        for name in ("query", "key", "value")
    )
    scores = np.exp(query @ key.transpose(0, 2, 1) / 2)
    attended = scores / scores.sum(-1, keepdims=True) @ value
    expected = attended @ weights["heads"]["output_kernel"][0] + weights["heads"]["output_bias"]
    np.testing.assert_allclose(outputs(loaded, x), expected.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("function", ["convolution", "convolution_and_own"])
def test_kernels_of_theano(function: str, script: Path, tmp_path: Path) -> None:
    arrays = random_arrays(kernel=(3, 3, 1, 2), bias=(2,))
    file = write_weights(tmp_path / "old.h5", "2.1.5", "theano", conv=arrays)
    loaded = load_model(audit_file(file), architecture=f"{script}:{function}")
    x = np.random.default_rng(2).normal(size=(1, 5, 5, 1))
    kernel = arrays["kernel"][::-1, ::-1]  # Theano convolves, TensorFlow correlates
    first = np.tensordot(x[0, :3, :3], kernel, 3) + arrays["bias"]
    first = first * 2 if function == "convolution_and_own" else first
    np.testing.assert_allclose(outputs(loaded, x)[0, 0, 0], first, atol=1e-5)


OTHER_CONVOLUTIONS = {
    "one_axis": ("layers.Conv1D(2, 3, name='conv')", (9, 2), {"kernel": (3, 2, 2)}),
    "three_axes": ("layers.Conv3D(2, 3, name='conv')", (4, 5, 6, 1), {"kernel": (3, 3, 3, 1, 2)}),
    "transposed": (
        "layers.Conv2DTranspose(2, 3, name='conv')",
        (5, 4, 1),
        {"kernel": (3, 3, 2, 1)},
    ),
    "recurrent": (
        "layers.ConvLSTM2D(2, 3, recurrent_activation='hard_sigmoid', name='conv')",
        (2, 5, 5, 1),
        {"kernel": (3, 3, 1, 8), "recurrent_kernel": (3, 3, 2, 8)},
    ),
}


@pytest.mark.parametrize("kind", only(OTHER_CONVOLUTIONS, "one_axis", "three_axes"))
def test_kernels_of_theano_in_other_convolutions(kind: str, tmp_path: Path) -> None:
    """Keras 2 reverses the spatial axes of the kernels of these layers."""
    layer, shape, kernels = OTHER_CONVOLUTIONS[kind]
    script = tmp_path / "model.py"
    script.write_text(
        "import keras\nfrom keras import layers\n\ndef build():\n"
        f"    return keras.Sequential([keras.Input({shape}), {layer}])\n"
    )
    arrays = random_arrays(**kernels, bias=(8 if kind == "recurrent" else 2,))
    file = write_weights(tmp_path / "old.h5", "2.1.5", "theano", conv=arrays)
    loaded = load_model(audit_file(file), architecture=f"{script}:build")
    expected = function_model(f"{script}:build")
    expected.set_weights(
        [
            np.flip(value, tuple(range(value.ndim - 2))) if name in kernels else value
            for name, value in arrays.items()
        ]
    )
    if kind == "recurrent":  # the gates of Keras 2
        expected.layers[0].cell.recurrent_activation = hard_sigmoid_of_keras_2
    x = np.random.default_rng(2).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(outputs(loaded, x), expected(x), rtol=1e-4, atol=1e-5)


def test_kernels_with_the_channels_first(script: Path, tmp_path: Path) -> None:
    """Keras 1 with Theano stored (filters, channels, rows, columns)."""
    arrays = random_arrays(kernel=(2, 1, 3, 3), bias=(2,))
    file = write_weights(tmp_path / "old.h5", "1.2.2", "theano", conv=arrays)
    loaded = load_model(audit_file(file), architecture=f"{script}:convolution")
    x = np.random.default_rng(2).normal(size=(1, 5, 5, 1))
    kernel = arrays["kernel"][:, 0, ::-1, ::-1]
    first = np.tensordot(kernel, x[0, :3, :3, 0], 2) + arrays["bias"]
    np.testing.assert_allclose(outputs(loaded, x)[0, 0, 0], first, atol=1e-5)


def cudnn_lstm(kernel: Any, recurrent_kernel: Any, bias: Any) -> dict[str, Any]:
    """The weights as CuDNN orders them: transposed for each gate, with two biases."""
    first = np.random.default_rng(4).normal(size=bias.shape)
    return {
        "kernel": np.hstack([w.T.reshape(w.shape) for w in np.hsplit(kernel, 4)]),
        "recurrent_kernel": np.hstack([w.T for w in np.hsplit(recurrent_kernel, 4)]),
        "bias": np.concatenate([first, bias - first]),
    }


@pytest.mark.parametrize("function", only(["model", "other_name", "own_layer"], "model"))
@pytest.mark.parametrize("version", ["2.2.4", "3.12.0"])
def test_weights_of_cudnn(function: str, version: str, script: Path, tmp_path: Path) -> None:
    file = write_weights(tmp_path / "old.h5", version, lstm_1=cudnn_lstm(**LSTM_WEIGHTS))
    loaded = load_model(audit_file(file), architecture=f"{script}:{function}")
    layer = layers.LSTM(
        UNITS, recurrent_activation="hard_sigmoid" if version[0] == "3" else hard_sigmoid_of_keras_2
    )
    layer.build(INPUT.shape)
    layer.set_weights(list(LSTM_WEIGHTS.values()))
    expected = np.asarray(layer(INPUT)) * (2 if function == "own_layer" else 1)
    np.testing.assert_allclose(outputs(loaded), expected, atol=1e-5)


@pytest.mark.parametrize("kind", only(["GRU", "both GRU", "both LSTM"], "both GRU"))
def test_weights_of_other_cudnn_layers(kind: str, tmp_path: Path) -> None:
    """The same file, loaded by tf_keras."""
    import tf_keras

    cell = kind.split()[-1]
    gates = 3 if cell == "GRU" else 4
    arrays = [
        random_arrays(
            kernel=(FEATURES, gates * UNITS),
            recurrent_kernel=(UNITS, gates * UNITS),
            bias=(2 * gates * UNITS,),
        )
    ]
    text = f"layers.{cell}({UNITS}"
    text += ", reset_after=True, name='cell')" if cell == "GRU" else ", name='cell')"
    if kind.startswith("both"):
        arrays.append({name: value[::-1] / 2 for name, value in arrays[0].items()})
        text = f"layers.Bidirectional({text}, name='cell')"
    stored = {f"{name}_{k}": v for k, part in enumerate(arrays) for name, v in part.items()}
    file = write_weights(tmp_path / "old.h5", "2.3.1", cell=stored)
    script = tmp_path / "model.py"
    script.write_text(
        "import keras\nfrom keras import layers\n\ndef build():\n"
        f"    return keras.Sequential([keras.Input({(STEPS, FEATURES)}), {text}])\n"
    )
    loaded = load_model(audit_file(file), architecture=f"{script}:build")
    layer = eval(text, {"layers": tf_keras.layers})
    expected = tf_keras.Sequential([tf_keras.Input((STEPS, FEATURES)), layer])
    expected.load_weights(file)
    np.testing.assert_allclose(outputs(loaded), expected(INPUT), rtol=1e-4, atol=1e-5)


def hard_sigmoid_of_keras_2(x: Any) -> Any:
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


@pytest.mark.parametrize("class_name", ["CuDNNGRU", "GRU"])
def test_layout_follows_the_shape_of_the_bias(class_name: str, tmp_path: Path) -> None:
    """Weights of a portable GRU, for the architecture of a CuDNN layer or with another default."""
    weights = {**GRU_WEIGHTS, "bias": np.random.default_rng(3).normal(size=(2, 3 * UNITS))}
    config = {"name": "gru_1", "units": UNITS, "batch_input_shape": [None, STEPS, FEATURES]}
    if class_name == "GRU":
        config |= {"reset_after": False, "recurrent_activation": "sigmoid"}
    stored = {
        "class_name": "Sequential", "keras_version": "2.3.1", "backend": "tensorflow",
        "config": {"name": "m", "layers": [{"class_name": class_name, "config": config}]},
    }  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps(stored))
    file = write_weights(tmp_path / "w.h5", "2.3.1", gru_1=weights)
    loaded = load_model(audit_file(file), architecture=str(tmp_path / "m.json"))
    layer = layers.GRU(UNITS, reset_after=True)
    layer.build(INPUT.shape)
    layer.set_weights(list(weights.values()))
    np.testing.assert_allclose(outputs(loaded), layer(INPUT), atol=1e-5)


TWO_LAYERS = """
import keras
from keras import layers

class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs + inputs

def build(*last):
    return keras.Sequential([
        keras.Input((4, 2)), layers.LSTM(3, name="recurrence"), layers.Dropout(0.1),
        layers.Dense(5, name="answer"), *last])

def plain():
    return build()

def own():
    return build(Doubled())
"""


@pytest.mark.parametrize("version", ["2.3.1", "3.12.0"])
@pytest.mark.parametrize("architecture", only(["plain", "own", "json"], "own"))
def test_other_names_in_order(architecture: str, version: str, tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    script.write_text(TWO_LAYERS)
    (tmp_path / "model.json").write_text(function_model(f"{script}:plain").to_json())
    dense = random_arrays(kernel=(UNITS, 5), bias=(5,))
    file = write_weights(tmp_path / "w.h5", version, lstm_7=LSTM_WEIGHTS, dense_9=dense)
    option = str(tmp_path / "model.json") if architecture == "json" else f"{script}:{architecture}"
    loaded = load_model(audit_file(file), architecture=option)
    layer = layers.LSTM(UNITS)
    layer.build(INPUT.shape)
    layer.set_weights(list(LSTM_WEIGHTS.values()))
    expected = np.asarray(layer(INPUT)) @ dense["kernel"] + dense["bias"]
    expected = expected * 2 if architecture == "own" else expected
    np.testing.assert_allclose(outputs(loaded), expected, rtol=1e-4, atol=1e-5)
    [note] = [note for note in loaded.notes if "assigned in order" in note]
    assert "recurrence <- lstm_7; answer <- dense_9" in note
    assert "same" not in note


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("1.2.2", "w.h5 was saved by Keras 1.2.2: the layers are built as in Keras 1.2.2, which "
         "cannot be verified."),
        ("2.2.4-tf", "w.h5 was saved by Keras 2.2.4-tf: the layers are built as in Keras "
         "2.2.4-tf."),
        ("2.3.0-tf", "w.h5 was saved by Keras 2.3.0-tf: the layers are built as in Keras "
         "2.3.0-tf."),
        ("2.21.0", "w.h5 was saved by tf_keras 2.21.0: the layers are built as in tf_keras "
         "2.21.0."),
    ],
)  # fmt: skip
def test_names_of_what_saved_weights(version: str, note: str, tmp_path: Path) -> None:
    """There is no Keras 2.21, and its layers are verified by the comparison with tf_keras."""
    (tmp_path / "model.py").write_text(TWO_LAYERS)
    dense = random_arrays(kernel=(UNITS, 5), bias=(5,))
    file = write_weights(tmp_path / "w.h5", version, recurrence=LSTM_WEIGHTS, answer=dense)
    notes = load_model(audit_file(file), architecture=f"{tmp_path}/model.py:plain").notes
    assert note in notes


def test_other_names_with_other_shapes(tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    script.write_text(TWO_LAYERS)
    dense = random_arrays(kernel=(UNITS, 4), bias=(4,))
    file = write_weights(tmp_path / "w.h5", "2.3.1", lstm_7=LSTM_WEIGHTS, dense_9=dense)
    with pytest.raises(UnsupportedModelError, match="has weights of shape"):
        load_model(audit_file(file), architecture=f"{script}:plain")
