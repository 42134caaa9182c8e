"""Functions of --architecture that were written for Keras 1, or for Keras 2 as if it were Keras 1.

What they compute is that of tf_keras or numpy, with weights that are stored in the order of the
layers, under the names of another program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OLD = tf_keras.layers
GENERATOR = np.random.default_rng(3)
HEADER = """
from keras.models import Sequential, Model
from keras.layers import Input, merge, Merge
from keras.layers.core import (
    Activation, Dense, Dropout, Flatten, Highway, Lambda, MaxoutDense, Reshape,
    TimeDistributedDense)
from keras.layers.recurrent import GRU, LSTM, SimpleRNN
from keras.layers.convolutional import (
    AtrousConvolution2D, Convolution1D, Convolution2D, Deconvolution2D, MaxPooling1D,
    MaxPooling2D, UpSampling1D)
from keras.layers.embeddings import Embedding
from keras.layers.normalization import BatchNormalization
from keras.layers.advanced_activations import LeakyReLU, ThresholdedReLU
from keras.layers.local import LocallyConnected1D, LocallyConnected2D
from keras.regularizers import l2, activity_l2
from keras.constraints import maxnorm
from keras.optimizers import SGD
from keras.initializations import normal
from keras.utils.visualize_util import plot
from keras.utils import np_utils
from keras.preprocessing.text import Tokenizer
from keras.preprocessing.image import ImageDataGenerator
from keras.engine.topology import Layer
from keras.backend.tensorflow_backend import set_session
import keras
import keras.backend as K

K.set_image_dim_ordering('tf')

def build():
    model = Sequential()
"""
WORDS = GENERATOR.integers(0, 9, (4, 6))
SEQUENCES = GENERATOR.normal(size=(4, 8, 3)).astype("float32")
IMAGES = GENERATOR.normal(size=(4, 8, 8, 3)).astype("float32")
VECTORS = GENERATOR.normal(size=(4, 5)).astype("float32")


def add(*lines: str) -> str:
    """A program that adds layers to a Sequential, and compiles it."""
    added = "".join(f"    model.add({line})\n" for line in lines)
    return (
        f"{HEADER}{added}    model.compile(loss='mse', optimizer=SGD(lr=0.1, decay=1e-6), "
        "class_mode='categorical')\n    return model\n"
    )


TEXT = add(
    "Embedding(9, 4, input_length=6, dropout=0.2)",
    "LSTM(output_dim=5, dropout_W=0.2, dropout_U=0.2, init=normal, inner_init='orthogonal', "
    "return_sequences=True)",
    "GRU(4, W_regularizer=l2(0.01), consume_less='gpu')",
    "Dense(output_dim=3, init='uniform', W_constraint=maxnorm(2), "
    "activity_regularizer=activity_l2(0.1))",
    "Activation('softmax')",
)
IMAGE = add(
    "Convolution2D(4, 3, 3, input_shape=(8, 8, 3), border_mode='same', subsample=(2, 1), "
    "dim_ordering='tf')",
    "BatchNormalization(mode=0, axis=-1)",
    "MaxPooling2D((2, 2), border_mode='valid')",
    "Convolution2D(3, 2, 3)",
    "AtrousConvolution2D(2, 1, 2, atrous_rate=(1, 1), bias=False)",
    "LocallyConnected2D(2, 1, 1, activation='tanh')",
    "ThresholdedReLU(theta=0.1)",
    "Flatten()",
    "Dropout(p=0.5)",
)
SERIES = add(
    "Convolution1D(nb_filter=6, filter_length=3, border_mode='same', input_dim=3, input_length=8)",
    "MaxPooling1D(pool_length=2, stride=2)",
    "LocallyConnected1D(4, 2, border_mode='valid', activation='tanh')",
    "UpSampling1D(length=2)",
    "TimeDistributedDense(5)",
    "keras.layers.advanced_activations.LeakyReLU(alpha=0.2)",
    "SimpleRNN(output_dim=4)",
)
GATES = {"recurrent_activation": "hard_sigmoid"}
SEQUENTIAL: dict[str, tuple[str, Any, Callable[[], list[Any]]]] = {
    "words": (
        TEXT, WORDS,
        lambda: [OLD.Embedding(9, 4), OLD.LSTM(5, return_sequences=True, **GATES),
                 OLD.GRU(4, reset_after=False, **GATES), OLD.Dense(3, activation="softmax")],
    ),
    "images": (
        IMAGE, IMAGES,
        lambda: [OLD.Conv2D(4, 3, strides=(2, 1), padding="same"), OLD.BatchNormalization(),
                 OLD.MaxPooling2D(2), OLD.Conv2D(3, (2, 3)), OLD.Conv2D(2, (1, 2), use_bias=False),
                 OLD.LocallyConnected2D(2, 1, activation="tanh"), OLD.ThresholdedReLU(0.1),
                 OLD.Flatten()],
    ),
    "series": (
        SERIES, SEQUENCES,
        lambda: [OLD.Conv1D(6, 3, padding="same"), OLD.MaxPooling1D(2),
                 OLD.LocallyConnected1D(4, 2, activation="tanh"), OLD.UpSampling1D(2),
                 OLD.TimeDistributed(OLD.Dense(5)), OLD.LeakyReLU(0.2), OLD.SimpleRNN(4)],
    ),
    "transposed": (
        add("Deconvolution2D(3, 3, 3, output_shape=(None, 16, 16, 3), subsample=(2, 2), "
            "border_mode='same', input_shape=(8, 8, 3))"),
        IMAGES, lambda: [OLD.Conv2DTranspose(3, 3, strides=2, padding="same")],
    ),
}  # fmt: skip


def write(path: Path, arrays: Sequence[Sequence[Any]], version: str | None = "2.1.5") -> Path:
    """Write the weights of layers, as Keras does, by names that no program here generates."""
    with h5py.File(path, "w") as file:
        if version:
            file.attrs.update(keras_version=version.encode(), backend=b"tensorflow")
        file.attrs["layer_names"] = [f"part_{number}".encode() for number in range(len(arrays))]
        for number, values in enumerate(arrays):
            group = file.create_group(f"part_{number}")
            names = [f"part_{number}/w{index}" for index in range(len(values))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, values, strict=True):
                group[name] = np.asarray(value, "float32")
    return path


def load(text: str, path: Path) -> Any:
    script = path.with_suffix(".py")
    script.write_text(text)
    return load_model(audit_file(path), architecture=f"{script}:build")


def random(*shapes: tuple[int, ...]) -> list[Any]:
    return [GENERATOR.uniform(-1, 1, shape) for shape in shapes]


@pytest.mark.parametrize("kind", only(SEQUENTIAL, "images"))
def test_sequential_programs(kind: str, tmp_path: Path) -> None:
    text, x, layers = SEQUENTIAL[kind]
    model = tf_keras.Sequential(layers())
    model(x)
    for layer in model.layers:
        layer.set_weights([GENERATOR.uniform(0.1, 1, value.shape) for value in layer.get_weights()])
    arrays = [layer.get_weights() for layer in model.layers if layer.weights]
    loaded = load(text, write(tmp_path / "m.h5", arrays))
    np.testing.assert_allclose(loaded.model(x), model(x), atol=1e-5)


BRANCHES = f"""{HEADER}
    left = Sequential()
    left.add(Dense(4, input_dim=5))
    right = Sequential()
    right.add(Dense(4, input_shape=(5,)))
    right.add(Activation('tanh'))
    inner = Sequential()
    inner.add(Merge([left, right], mode='concat'))
    inner.add(Dense(4))
    other = Sequential()
    other.add(Dense(4, input_dim=5))
    model.add(Merge([inner, other], mode='mul'))
    model.add(Dense(3))
    return model
"""


def test_branches_that_are_merged_in_a_sequential(tmp_path: Path) -> None:
    """Keras 1 stores the layers of one branch after the other, not those of the same depth."""
    arrays = [random((size, width), (width,))
              for size, width in [(5, 4), (5, 4), (8, 4), (5, 4), (4, 3)]]  # fmt: skip
    left, right, inner, other, last = arrays
    x = [GENERATOR.normal(size=(4, 5)).astype("float32") for _ in range(3)]
    joined = np.concatenate([x[0] @ left[0] + left[1], np.tanh(x[1] @ right[0] + right[1])], axis=1)
    expected = (joined @ inner[0] + inner[1]) * (x[2] @ other[0] + other[1])
    loaded = load(BRANCHES, write(tmp_path / "m.h5", arrays))
    np.testing.assert_allclose(loaded.model(x), expected @ last[0] + last[1], atol=1e-5)


MERGED = f"""{HEADER}
    a, b = Input(shape=(8, 3)), Input(shape=(8, 3))
    shared = SimpleRNN(2, return_sequences=True)
    first, second = shared(a), shared(b)
    scores = merge([first, second], mode='dot', dot_axes=[2, 2])
    both = keras.layers.merge([Flatten()(first), Flatten()(second)], mode='concat')
    alike = merge([Flatten()(first), Flatten()(second)], mode='cos', dot_axes=1)
    assert both._keras_shape == (None, 32)
    return Model(input=[a, b], output=[scores, both, alike])
"""


def test_merged_tensors(tmp_path: Path) -> None:
    arrays = random((3, 2), (2, 2), (2,))
    rnn = tf_keras.Sequential([OLD.SimpleRNN(2, return_sequences=True)])
    rnn(SEQUENCES)
    rnn.set_weights(arrays)
    first, second = rnn(SEQUENCES).numpy(), rnn(SEQUENCES[::-1].copy()).numpy()
    loaded = load(MERGED, write(tmp_path / "m.h5", [arrays]))
    scores, both, alike = loaded.model([SEQUENCES, SEQUENCES[::-1].copy()])
    np.testing.assert_allclose(scores, first @ second.swapaxes(1, 2), atol=1e-5)
    left, right = first.reshape(4, 16), second.reshape(4, 16)
    np.testing.assert_allclose(both, np.concatenate([left, right], 1), atol=1e-5)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    # Keras 1 adds an axis.
    np.testing.assert_allclose(alike, ((left * right).sum(1) / lengths)[:, None, None], atol=1e-5)


def test_dense_layers_of_keras_1_in_a_file_without_version(tmp_path: Path) -> None:
    """Keras 1.0 has an array for each gate, and its hard_sigmoid is the default."""
    maxout, highway = random((3, 5, 4), (3, 4)), random((4, 4), (4, 4), (4,), (4,))
    gates = [value for _ in range(4) for value in random((2, 3), (3, 3), (3,))]
    text = add(
        "MaxoutDense(4, nb_feature=3, input_dim=5)",
        "Highway(activation='tanh')",
        "Reshape((2, 2))",
        "LSTM(3)",
    )
    loaded = load(text, write(tmp_path / "m.h5", [maxout, highway, gates], version=None))
    x = np.max(np.einsum("bi,fio->bfo", VECTORS, maxout[0]) + maxout[1], axis=1)
    gate = 1 / (1 + np.exp(-(x @ highway[1] + highway[3])))
    x = (gate * np.tanh(x @ highway[0] + highway[2]) + (1 - gate) * x).reshape(4, 2, 2)
    h = c = np.zeros((4, 3))
    for step in range(2):
        i, g, f, o = (
            x[:, step] @ gates[3 * k] + h @ gates[3 * k + 1] + gates[3 * k + 2] for k in range(4)
        )
        i, f, o = (np.clip(0.2 * value + 0.5, 0, 1) for value in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    np.testing.assert_allclose(loaded.model(VECTORS), h, atol=1e-5)
    assert any("m.h5 does not contain its Keras version" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("version", "stride"), [("2.1.5", 1), ("2.2.4-tf", 3), ("2.15.0", 3), ("1.2.2", 1)]
)
def test_second_and_third_argument_of_convolutions(
    version: str, stride: int, tmp_path: Path
) -> None:
    """``Conv2D(4, 3, 3)`` has a kernel of 3x3 in Keras before 2.4, and strides of 3 elsewhere."""
    text = add("keras.layers.Conv2D(4, 3, 3, input_shape=(8, 8, 3))").replace("K.set_image", "#")
    convolution = tf_keras.Sequential([OLD.Conv2D(4, 3, strides=stride)])
    convolution(IMAGES)
    loaded = load(text, write(tmp_path / "m.h5", [convolution.get_weights()], version))
    np.testing.assert_allclose(loaded.model(IMAGES), convolution(IMAGES), atol=1e-5)


def test_functions_as_modes(tmp_path: Path) -> None:
    text = f"{HEADER}    a = Input(shape=(5,))\n" + (
        "    both = merge([a, a], mode=lambda x: x[0] * x[1], output_shape=(5,))\n"
        "    return Model(input=a, output=Dense(2)(both))\n"
    )
    kernel, bias = random((5, 2), (2,))
    loaded = load(text, write(tmp_path / "m.h5", [[kernel, bias]]))
    np.testing.assert_allclose(loaded.model(VECTORS), VECTORS**2 @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        (["BatchNormalization(mode=2, input_shape=(5,))"], UnsupportedModelError, "mode=2"),
        (["Dense(2, input_dim=5)", "Merge([], mode='sum')"], UsageError, "must be the first"),
        (["Dense(2, input_dim=5, unknown=1)"], UsageError, "unknown"),
    ],
)
def test_programs_that_are_refused(
    lines: list[str], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        load(add(*lines), write(tmp_path / "m.h5", [random((5, 2), (2,))]))


def test_cudnn_layers_have_no_note_on_their_gates(tmp_path: Path) -> None:
    text = add("keras.layers.CuDNNLSTM(3, input_shape=(8, 3))", "Dense(2)")
    model = tf_keras.Sequential([OLD.LSTM(3), OLD.Dense(2)])
    model(SEQUENCES)
    arrays = [layer.get_weights() for layer in model.layers]
    for version in ("2.1.5", "2.2.4-tf"):
        loaded = load(text, write(tmp_path / "m.h5", arrays, version))
        np.testing.assert_allclose(loaded.model(SEQUENCES), model(SEQUENCES), atol=1e-5)
        assert not any("sigmoid" in note for note in loaded.notes)
