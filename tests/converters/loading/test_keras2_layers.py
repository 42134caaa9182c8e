"""Every layer of Keras 2 computes the same when its file is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from lost_arguments import LOST

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.build import accepted_arguments
from edgeattn_converters.loading.load import load_model

INPUTS = {
    "vector": (6,),
    "one": (1,),
    "sequence": (6, 3),
    "image": (6, 8, 3),
    "volume": (4, 4, 4, 2),
    "images": (3, 4, 5, 2),
    "volumes": (2, 3, 3, 3, 2),
}
Make = Callable[[Any, Any], Any]


def _plain(kind: str, name: str, *arguments: Any, **options: Any) -> tuple[str, Make]:
    return kind, lambda layers, x: getattr(layers, name)(*arguments, **options)(x)


def _pair(name: str, *arguments: Any, **options: Any) -> tuple[str, Make]:
    """Return a layer that is called with the sequence and its double."""
    return "sequence", lambda layers, x: getattr(layers, name)(*arguments, **options)([x, 2 * x])


def _wrapped(kind: str, outer: str, inner: Callable[[Any], Any], **options: Any) -> Any:
    return kind, lambda layers, x: getattr(layers, outer)(inner(layers), **options)(x)


# A layer, or a layer with other options after a space: the input and how the layer is called.
LAYERS: dict[str, tuple[str, Make]] = {
    "Activation": _plain("vector", "Activation", "hard_sigmoid"),
    "ActivityRegularization": _plain("vector", "ActivityRegularization", l1=0.1),
    "Add": _pair("Add"),
    "AdditiveAttention": _pair("AdditiveAttention"),
    "AdditiveAttention without scale": _pair("AdditiveAttention", use_scale=False),
    "AlphaDropout": _plain("vector", "AlphaDropout", 0.3),
    "Attention": _pair("Attention", use_scale=True),
    "Attention concat": _pair("Attention", score_mode="concat"),
    "Average": _pair("Average"),
    "AveragePooling1D": _plain("sequence", "AveragePooling1D", 2, padding="same", strides=1),
    "AveragePooling2D": _plain("image", "AveragePooling2D", 3, padding="same"),
    "AveragePooling3D": _plain("volume", "AveragePooling3D", 2),
    "BatchNormalization": _plain("sequence", "BatchNormalization", axis=1, scale=False),
    "BatchNormalization of steps": _plain("image", "BatchNormalization", epsilon=0.1),
    "BatchNormalization synchronized": _plain("sequence", "BatchNormalization", synchronized=True),
    "Bidirectional": _wrapped(
        "sequence", "Bidirectional", lambda L: L.GRU(2, reset_after=False), merge_mode="ave"
    ),
    "CategoryEncoding": _plain("one", "CategoryEncoding", 4),
    "CategoryEncoding count": _plain("vector", "CategoryEncoding", 4, output_mode="count"),
    "CategoryEncoding one-hot": _plain("one", "CategoryEncoding", 4, output_mode="one_hot"),
    "CenterCrop": _plain("image", "CenterCrop", 3, 4),
    "CenterCrop larger": _plain("image", "CenterCrop", 9, 4),
    "Concatenate": _pair("Concatenate", axis=1),
    "Conv1D": _plain("sequence", "Conv1D", 4, 3, padding="causal", dilation_rate=2),
    "Conv1DTranspose": _plain("sequence", "Conv1DTranspose", 4, 3, strides=2, padding="same"),
    "Conv2D": _plain("image", "Conv2D", 4, 3, groups=1, activation="relu6"),
    "Conv2DTranspose": _plain("image", "Conv2DTranspose", 4, 3, strides=2, output_padding=1),
    "Conv3D": _plain("volume", "Conv3D", 4, 2, padding="same"),
    "Conv3DTranspose": _plain("volume", "Conv3DTranspose", 2, 2, strides=2),
    "ConvLSTM1D": _plain("image", "ConvLSTM1D", 2, 2, return_sequences=True),
    "ConvLSTM2D": _plain("images", "ConvLSTM2D", 2, 2, padding="same"),
    "ConvLSTM3D": _plain("volumes", "ConvLSTM3D", 2, 2),
    "Cropping1D": _plain("sequence", "Cropping1D", (1, 2)),
    "Cropping2D": _plain("image", "Cropping2D", ((1, 2), (0, 1))),
    "Cropping3D": _plain("volume", "Cropping3D", 1),
    "Dense": _plain("sequence", "Dense", 4, activation="selu"),
    "DepthwiseConv1D": _plain("sequence", "DepthwiseConv1D", 3, depth_multiplier=2),
    "DepthwiseConv2D": _plain("image", "DepthwiseConv2D", 3, strides=2),
    "Discretization": _plain("vector", "Discretization", [-1.0, 0.0, 0.5]),
    "Discretization one-hot": _plain("one", "Discretization", [0.0], output_mode="one_hot"),
    "Dot": _pair("Dot", axes=2, normalize=True),
    "Dropout": _plain("sequence", "Dropout", 0.3, noise_shape=(None, 1, 3)),
    "ELU": _plain("vector", "ELU", 0.3),
    "EinsumDense": _plain("sequence", "EinsumDense", "abc,cd->abd", (None, 4), bias_axes="d"),
    "Embedding": _plain("vector", "Embedding", 9, 3),
    "Flatten": _plain("image", "Flatten"),
    "Flatten first": _plain("image", "Flatten", data_format="channels_first"),
    "GRU": _plain("sequence", "GRU", 3, return_sequences=True, go_backwards=True),
    "GRUCell": _wrapped("sequence", "RNN", lambda L: L.GRUCell(3)),
    "GaussianDropout": _plain("vector", "GaussianDropout", 0.3),
    "GaussianNoise": _plain("vector", "GaussianNoise", 0.3),
    "GlobalAveragePooling1D": _plain("sequence", "GlobalAveragePooling1D", keepdims=True),
    "GlobalAveragePooling2D": _plain("image", "GlobalAveragePooling2D"),
    "GlobalAveragePooling3D": _plain("volume", "GlobalAveragePooling3D"),
    "GlobalMaxPooling1D": _plain("sequence", "GlobalMaxPooling1D"),
    "GlobalMaxPooling2D": _plain("image", "GlobalMaxPooling2D", data_format="channels_first"),
    "GlobalMaxPooling3D": _plain("volume", "GlobalMaxPooling3D"),
    "GroupNormalization": _plain("image", "GroupNormalization", 3),
    "Identity": _plain("vector", "Identity"),
    "LSTM": _plain("sequence", "LSTM", 3, recurrent_activation="hard_sigmoid"),
    "LSTMCell": _wrapped("sequence", "RNN", lambda L: L.LSTMCell(3), go_backwards=True),
    "LayerNormalization": _plain("image", "LayerNormalization", axis=[1, 2]),
    "LeakyReLU": _plain("vector", "LeakyReLU", 0.2),
    "LocallyConnected1D": _plain("sequence", "LocallyConnected1D", 4, 3, activation="tanh"),
    "LocallyConnected1D dense": _plain(
        "sequence", "LocallyConnected1D", 4, 2, strides=2, padding="same", implementation=2
    ),
    "LocallyConnected1D sparse": _plain(
        "sequence", "LocallyConnected1D", 4, 3, padding="same", implementation=3
    ),
    "LocallyConnected1D first": _plain(
        "sequence", "LocallyConnected1D", 4, 2, data_format="channels_first"
    ),
    "LocallyConnected2D": _plain("image", "LocallyConnected2D", 4, (3, 2), strides=(2, 1)),
    "LocallyConnected2D dense": _plain(
        "image", "LocallyConnected2D", 4, (4, 2), strides=(3, 2), padding="same", implementation=2
    ),
    "LocallyConnected2D dense first": _plain(
        "image", "LocallyConnected2D", 4, 2, data_format="channels_first", implementation=2
    ),
    "LocallyConnected2D sparse": _plain(
        "image", "LocallyConnected2D", 4, 2, use_bias=False, implementation=3
    ),
    "LocallyConnected2D sparse first": _plain(
        "image", "LocallyConnected2D", 4, 2, data_format="channels_first", padding="same",
        implementation=3,
    ),
    "Masking": _plain("sequence", "Masking", 0.5),
    "MaxPooling1D": _plain("sequence", "MaxPooling1D", 2),
    "MaxPooling2D": _plain("image", "MaxPooling2D", 2, strides=1, padding="same"),
    "MaxPooling3D": _plain("volume", "MaxPooling3D", 2),
    "Maximum": _pair("Maximum"),
    "Minimum": _pair("Minimum"),
    "MultiHeadAttention": (
        "sequence",
        lambda layers, x: layers.MultiHeadAttention(2, 3, value_dim=2, output_shape=5)(x, 2 * x),
    ),
    "MultiHeadAttention of images": (
        "image",
        lambda layers, x: layers.MultiHeadAttention(2, 3, attention_axes=(2,))(x, x),
    ),
    "Multiply": _pair("Multiply"),
    "Normalization": _plain("sequence", "Normalization", mean=[1.0, 2.0, 3.0], variance=2.0),
    "PReLU": _plain("image", "PReLU", shared_axes=[1, 2]),
    "Permute": _plain("image", "Permute", (3, 1, 2)),
    "RNN": _wrapped("sequence", "RNN", lambda L: L.SimpleRNNCell(3), return_sequences=True),
    "RandomBrightness": _plain("image", "RandomBrightness", 0.2),
    "RandomContrast": _plain("image", "RandomContrast", 0.2),
    "RandomCrop": _plain("image", "RandomCrop", 4, 4),
    "RandomCrop larger": _plain("image", "RandomCrop", 7, 5),
    "RandomFlip": _plain("image", "RandomFlip"),
    "RandomHeight": _plain("image", "RandomHeight", 0.2),
    "RandomRotation": _plain("image", "RandomRotation", 0.2),
    "RandomTranslation": _plain("image", "RandomTranslation", 0.1, 0.2),
    "RandomWidth": _plain("image", "RandomWidth", 0.2),
    "RandomZoom": _plain("image", "RandomZoom", 0.2),
    "ReLU": _plain("vector", "ReLU", max_value=1.0, negative_slope=0.1, threshold=0.2),
    "RepeatVector": _plain("vector", "RepeatVector", 3),
    "Rescaling": _plain("image", "Rescaling", 0.5, offset=-1.0),
    "Reshape": _plain("image", "Reshape", (4, -1)),
    "Resizing": _plain("image", "Resizing", 3, 4),
    "Resizing nearest": _plain("image", "Resizing", 3, 5, interpolation="nearest"),
    "Resizing cropped": _plain("image", "Resizing", 4, 4, crop_to_aspect_ratio=True),
    "SeparableConv1D causal": _plain(
        "sequence", "SeparableConv1D", 4, 3, padding="causal", dilation_rate=2, depth_multiplier=2
    ),
    "SeparableConv1D causal in strides": _plain(
        "sequence", "SeparableConv1D", 4, 2, padding="causal", strides=2, activation="relu"
    ),
    "SeparableConv1D": _plain("sequence", "SeparableConv1D", 4, 2, depth_multiplier=2),
    "SeparableConv2D": _plain("image", "SeparableConv2D", 4, 2),
    "SimpleRNN": _plain("sequence", "SimpleRNN", 3, activation="relu"),
    "SimpleRNNCell": _wrapped("sequence", "RNN", lambda L: L.SimpleRNNCell(2, use_bias=False)),
    "Softmax": _plain("sequence", "Softmax", axis=1),
    "SpatialDropout1D": _plain("sequence", "SpatialDropout1D", 0.3),
    "SpatialDropout2D": _plain("image", "SpatialDropout2D", 0.3),
    "SpatialDropout3D": _plain("volume", "SpatialDropout3D", 0.3),
    "StackedRNNCells": _wrapped(
        "sequence", "RNN", lambda L: L.StackedRNNCells([L.LSTMCell(3), L.GRUCell(2)])
    ),
    "Subtract": _pair("Subtract"),
    "ThresholdedReLU": _plain("vector", "ThresholdedReLU", 0.4),
    "TimeDistributed": _wrapped("images", "TimeDistributed", lambda L: L.Conv2D(3, 2)),
    "UnitNormalization": _plain("sequence", "UnitNormalization", axis=1),
    "UpSampling1D": _plain("sequence", "UpSampling1D", 2),
    "UpSampling2D": _plain("image", "UpSampling2D", (2, 3), interpolation="bilinear"),
    "UpSampling3D": _plain("volume", "UpSampling3D", 2),
    "ZeroPadding1D": _plain("sequence", "ZeroPadding1D", (1, 2)),
    "ZeroPadding2D": _plain("image", "ZeroPadding2D", ((1, 0), (2, 3))),
    "ZeroPadding3D": _plain("volume", "ZeroPadding3D", 1),
}  # fmt: skip
# Base classes, layers of TensorFlow's feature columns, layers that are tested elsewhere, and one
# that tf_keras cannot build with the current TensorFlow.
OTHERS = {"AbstractRNNCell", "DenseFeatures", "InputLayer", "Lambda", "Layer", "Wrapper",
          "Hashing", "HashedCrossing", "IntegerLookup", "StringLookup",
          "TextVectorization", "SpectralNormalization"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Outputs of each layer in Keras 2 and in the loaded model.

    ``lost`` are the keys of configs that the loaded layers do not have, by class in Keras 2.
    """

    expected: dict[str, Any]
    actual: dict[str, Any]
    lost: dict[str, set[str]]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    import tf_keras

    generator = np.random.default_rng(4)
    inputs = {name: tf_keras.Input(shape, name=name) for name, shape in INPUTS.items()}
    names = list(LAYERS)
    outputs = [LAYERS[name][1](tf_keras.layers, inputs[LAYERS[name][0]]) for name in names]
    model = tf_keras.Model(list(inputs.values()), outputs)
    for variable in model.weights:
        if variable.dtype.is_floating:
            values = generator.normal(0, 0.5, variable.shape)
            variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    path = tmp_path_factory.mktemp("keras2") / "model.h5"
    model.save(path)
    samples = [
        np.abs(generator.normal(size=(2, *shape))).astype("float32") for shape in INPUTS.values()
    ]
    loaded = load_model(audit_file(path)).model
    lost: dict[str, set[str]] = {}
    for layer in model.layers:
        keys = layer.get_config().keys() - loaded.get_layer(layer.name).get_config().keys()
        if keys:
            lost.setdefault(type(layer).__name__, set()).update(keys)
    return Case(
        dict(zip(names, map(np.asarray, model(samples, training=False)), strict=True)),
        dict(zip(names, map(np.asarray, loaded(samples, training=False)), strict=True)),
        lost,
    )


@pytest.mark.parametrize("name", list(LAYERS))
def test_outputs_of_the_layer(name: str, case: Case) -> None:
    np.testing.assert_allclose(case.actual[name], case.expected[name], rtol=1e-4, atol=1e-5)


def test_configs_have_the_same_keys(case: Case) -> None:
    assert case.lost == LOST


def test_every_layer_of_keras_2_is_tested() -> None:
    import tf_keras

    classes = {
        name
        for name, value in vars(tf_keras.layers).items()
        if inspect.isclass(value) and issubclass(value, tf_keras.layers.Layer)
    }
    aliases = {name for name in classes if vars(tf_keras.layers)[name].__name__ != name}
    tested = {name.split()[0] for name in LAYERS}
    assert classes - aliases == tested | OTHERS


def test_random_fourier_features(tmp_path: Path) -> None:
    """A layer of ``tf_keras.layers.experimental``, which Keras 3 does not have."""
    import tf_keras

    layer = tf_keras.layers.experimental.RandomFourierFeatures
    x = tf_keras.Input((5,))
    one = layer(1, kernel_initializer="laplacian", trainable=True)(x)
    outputs = [tf_keras.layers.Dense(2)(layer(6, scale=3.0)(x)), one]
    model = tf_keras.Model(x, outputs)
    model.save(tmp_path / "model.h5")
    values = np.random.default_rng(2).normal(size=(3, 5)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    for value, result in zip(model(values), loaded(values), strict=True):
        np.testing.assert_allclose(result, value, atol=1e-5)


def test_arguments_that_a_layer_does_not_pass_on_are_not_accepted() -> None:
    """SpatialDropout has no ``trainable``, although its base class has."""
    with pytest.raises(TypeError):
        keras.layers.SpatialDropout1D(0.3, trainable=True)
    assert accepted_arguments("SpatialDropout1D") == {"rate", "seed", "name", "dtype"}
    assert {"units", "trainable", "name", "dtype"} <= (accepted_arguments("LSTM") or set())


def assign_same_weights(first: Any, second: Any, generator: np.random.Generator) -> None:
    """Give two models with weights of the same shapes the same random values."""
    for variable, other in zip(first.weights, second.weights, strict=True):
        values = generator.normal(0, 0.5, variable.shape)
        variable.assign(values)
        other.assign(values)


def test_channels_first_are_computed_with_the_channels_last(tmp_path: Path) -> None:
    """TensorFlow has no kernels for the channels first on a CPU."""
    import tf_keras

    def build(order: str) -> Any:
        first = order == "channels_first"
        x = inputs = tf_keras.Input((3, 6, 8) if first else (6, 8, 3))
        for layer in (
            tf_keras.layers.Conv2D(4, 3, activation="softmax" if not first else None,
                                   padding="same", data_format=order),
            tf_keras.layers.Softmax(axis=1) if first else tf_keras.layers.Activation("linear"),
            tf_keras.layers.MaxPooling2D(2, data_format=order),
            tf_keras.layers.DepthwiseConv2D(2, data_format=order),
            tf_keras.layers.Conv2DTranspose(3, 2, strides=2, data_format=order),
            tf_keras.layers.SeparableConv2D(3, 2, data_format=order, activation="tanh"),
            tf_keras.layers.Flatten(data_format=order),
        ):  # fmt: skip
            x = layer(x)
        return tf_keras.Model(inputs, x)

    first, last = build("channels_first"), build("channels_last")
    generator = np.random.default_rng(3)
    assign_same_weights(first, last, generator)
    first.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    x = generator.normal(size=(2, 6, 8, 3)).astype("float32")
    actual = loaded.model(np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(actual, last(x), rtol=1e-4, atol=1e-5)
    assert any("computed with the channels last" in note for note in loaded.notes)


def test_intervals_of_floats_are_not_those_of_integers(tmp_path: Path) -> None:
    """tf_keras stores int64 for the integers of Discretization, to which Keras 3 rounds inputs."""
    import tf_keras

    layers = tf_keras.layers
    x = tf_keras.Input((4,))
    boundaries = [-0.5, 0.0, 0.7]
    outputs = [layers.Embedding(4, 3)(layers.Discretization(boundaries)(x))]
    outputs += [
        layers.Dense(3)(layers.Discretization(boundaries, output_mode=mode)(x))
        for mode in ("multi_hot", "count")
    ]
    model = tf_keras.Model(x, outputs)
    model.save(tmp_path / "model.h5")
    values = np.random.default_rng(2).normal(size=(5, 4)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    actual = loaded.predict(values, verbose=0)
    table = next(layer for layer in model.layers if isinstance(layer, layers.Embedding))
    by_hand = table.get_weights()[0][np.digitize(values, boundaries)]
    np.testing.assert_array_equal(actual[0], by_hand)
    for one, other in zip(actual, model.predict(values, verbose=0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_activation_along_the_last_axis_stays_there(tmp_path: Path) -> None:
    """Softmax in a convolution with the channels first runs along the columns, as in Keras."""
    inputs = keras.Input((2, 5, 6))
    layer = keras.layers.Conv2D(3, 2, activation="softmax", data_format="channels_first")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(2).normal(size=(2, 2, 5, 6)).astype("float32")
    actual = np.asarray(load_model(audit_file(tmp_path / "m.keras")).model(x))
    assert actual.shape == (2, 3, 4, 5)
    np.testing.assert_allclose(actual.sum(axis=-1), 1, rtol=1e-5)


def test_recurrent_convolution_with_the_channels_first(tmp_path: Path) -> None:
    def build(order: str) -> Any:
        inputs = keras.Input((4, 2, 5, 6) if order == "channels_first" else (4, 5, 6, 2))
        x = keras.layers.TimeDistributed(keras.layers.Conv2D(3, 2, data_format=order))(inputs)
        x = keras.layers.ConvLSTM2D(3, 2, data_format=order, return_sequences=True)(x)
        return keras.Model(inputs, keras.layers.ConvLSTM2D(2, 2, data_format=order)(x))

    first, last = build("channels_first"), build("channels_last")
    generator = np.random.default_rng(3)
    assign_same_weights(first, last, generator)
    x = generator.normal(size=(2, 4, 5, 6, 2)).astype("float32")
    for suffix in (".keras", ".h5"):
        first.save(tmp_path / f"m{suffix}")
        actual = load_model(audit_file(tmp_path / f"m{suffix}")).model(np.moveaxis(x, -1, 2))
        np.testing.assert_allclose(actual, np.moveaxis(last(x), -1, 1), rtol=1e-4, atol=1e-5)


def test_attention_with_a_tensor_of_a_mask_returns_its_scores(tmp_path: Path) -> None:
    """Keras 3 refuses a tensor and a number in the remaining arguments of a call."""
    import tf_keras

    layers = tf_keras.layers
    x, valid = tf_keras.Input((6, 3)), tf_keras.Input((1, 6), dtype="bool")
    attended, scores = layers.MultiHeadAttention(2, 3)(
        x, x, attention_mask=valid, return_attention_scores=True, training=False
    )
    model = tf_keras.Model([x, valid], [attended, scores])
    model.save(tmp_path / "model.h5")
    arrays = [
        np.random.default_rng(2).normal(size=(4, 6, 3)).astype("float32"),
        np.broadcast_to(np.arange(6) < 4, (4, 1, 6)),
    ]
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    expected = model.predict(arrays, verbose=0)
    for one, other in zip(loaded.predict(arrays, verbose=0), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert expected[1][..., 4:].max() == 0


@pytest.mark.parametrize("shape", only([(6, 6), (2, 6, 6), (1, 6)], (2, 6, 6)))
def test_attention_with_a_constant_mask_for_all_samples(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Of shape (queries, keys), of each head, or of the keys."""
    import tf_keras

    mask = np.tril(np.ones(shape, "float32"))
    if len(shape) > 2:
        mask[1] = mask[1].T
    x = tf_keras.Input((6, 3))
    attended = tf_keras.layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask)
    model = tf_keras.Model(x, attended)
    model.save(tmp_path / "model.h5")
    values = np.random.default_rng(2).normal(size=(2, 6, 3)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    expected = model.predict(values, verbose=0)
    np.testing.assert_allclose(loaded.predict(values, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_ragged_inputs_have_one_length(tmp_path: Path) -> None:
    """Sequences of that length are computed as the ragged tensor of Keras."""
    import tensorflow as tf
    import tf_keras

    x = tf_keras.Input((None,), ragged=True, dtype="int32", name="x")
    embedded = tf_keras.layers.Embedding(9, 4)(x)
    pooled = tf_keras.layers.GlobalAveragePooling1D()(embedded)
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(pooled))
    model.save(tmp_path / "model.h5")
    tokens = np.random.default_rng(2).integers(0, 9, (4, 6))
    loaded = load_model(audit_file(tmp_path / "model.h5"), time_steps=6)
    assert any(note.startswith("x: takes ragged tensors in Keras") for note in loaded.notes)
    expected = model(tf.RaggedTensor.from_tensor(tokens))
    np.testing.assert_allclose(loaded.model(tokens), expected, rtol=1e-5, atol=1e-6)


def test_names_of_tensorflow_2_alpha(tmp_path: Path) -> None:
    """Its recurrent layers have other names than in all later versions."""
    x = tf_keras.Input((5, 3))
    y = tf_keras.layers.LSTM(4, return_sequences=True)(x)
    model = tf_keras.Model(x, tf_keras.layers.Bidirectional(tf_keras.layers.GRU(3))(y))
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = file.attrs["model_config"]
        for name in ("LSTM", "GRU"):
            config = config.replace(f'"class_name": "{name}"', f'"class_name": "Unified{name}"')
        file.attrs.update(model_config=config, keras_version="2.2.4-tf")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    samples = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(loaded.model(samples), model(samples), rtol=1e-5, atol=1e-6)
