"""Functional models of Keras 2 with losses and metrics of their own, such as autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

K, layers = tf_keras.backend, tf_keras.layers


def autoencoder() -> Any:
    """A layer, ``spread``, has an effect on the loss only."""
    x = tf_keras.Input((8,), name="x")
    hidden = layers.Dense(4, activation="relu")(x)
    mean, spread = layers.Dense(2, name="mean")(hidden), layers.Dense(2, name="spread")(hidden)
    decoded = layers.Dense(8, activation="sigmoid")(mean)
    model = tf_keras.Model(x, decoded)
    divergence = -0.5 * K.sum(1 + spread - K.square(mean) - K.exp(spread), axis=-1)
    model.add_loss(K.mean(8 * tf_keras.losses.binary_crossentropy(x, decoded) + divergence))
    model.add_metric(K.mean(divergence), name="divergence")
    return model


def recognizer() -> Any:
    """An input, ``labels``, has an effect on the loss only."""
    image, labels = tf_keras.Input((6, 5), name="image"), tf_keras.Input((4,), name="labels")
    shares = layers.Dense(5, activation="softmax")(layers.LSTM(4, return_sequences=True)(image))
    model = tf_keras.Model([image, labels], shares)
    lengths = K.ones_like(labels[:, :1])
    model.add_loss(K.mean(K.ctc_batch_cost(labels, shares, lengths * 6, lengths * 4)))
    return model


def siamese() -> Any:
    """The loss uses outputs, and a shape."""
    encoder = layers.Dense(3)
    inputs = [tf_keras.Input((5,), name=name) for name in ("left", "right")]
    left, right = map(encoder, inputs)
    model = tf_keras.Model(inputs, [left, right])
    count = tf.cast(tf.shape(left)[0], tf.float32)
    model.add_loss(tf.reduce_sum(tf.square(left - right)) / count)
    return model


def regularized() -> Any:
    x = tf_keras.Input((5,), name="x")
    y = layers.Dense(3)(tf.nn.l2_normalize(x, axis=-1))
    model = tf_keras.Model(x, y)
    model.add_metric(tf.reduce_max(y), name="highest", aggregation="mean")
    return model


@pytest.mark.parametrize(
    "build", only([autoencoder, recognizer, siamese, regularized], autoencoder, siamese)
)
@pytest.mark.parametrize("suffix", only([".h5", ".keras"], ".h5"))
def test_losses_are_left_out(build: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    tf_keras.utils.set_random_seed(2)
    model, path = build(), tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    generator = np.random.default_rng(3)
    inputs = [generator.uniform(size=(2, *i.shape[1:])).astype("float32") for i in model.inputs]
    assert [tensor.name for tensor in loaded.inputs] == [tensor.name for tensor in model.inputs]
    expected, actual = (tf.nest.flatten(m.predict(inputs, verbose=0)) for m in (model, loaded))
    for value, result in zip(expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)


def _encoder(numbered: bool) -> Any:
    """A layer of a nested model has an effect on its loss only; ``numbered`` names are similar."""
    names = ("dense", "dense_1", "dense_2") if numbered else ("hidden", "mean", "spread")
    x = tf_keras.Input((8,))
    hidden = layers.Dense(4, activation="relu", name=names[0])(x)
    mean, spread = (layers.Dense(2, name=name)(hidden) for name in names[1:])
    model = tf_keras.Model(x, mean, name="encoder")
    model.add_loss(-0.5 * K.mean(1 + spread - K.square(mean) - K.exp(spread)))
    return model


def _decoder() -> Any:
    hidden = layers.Dense(4, activation="relu")
    return tf_keras.Sequential([tf_keras.Input((2,)), hidden, layers.Dense(8)], name="decoder")


def _model_in_model(numbered: bool) -> Any:
    x = tf_keras.Input((8,))
    inner = tf_keras.Model(x, _decoder()(_encoder(numbered)(x)), name="inner")
    outer = tf_keras.Input((8,))
    return tf_keras.Model(outer, layers.Dense(3)(inner(outer)))


def _steps(numbered: bool) -> Any:
    x = tf_keras.Input((3, 8))
    return tf_keras.Model(x, layers.TimeDistributed(_encoder(numbered))(x))


NESTED: dict[str, Callable[[bool], Any]] = {
    "Sequential": lambda numbered: tf_keras.Sequential(
        [tf_keras.Input((8,)), _encoder(numbered), _decoder()]
    ),
    "model in a model": _model_in_model,
    "TimeDistributed": _steps,
}


@pytest.mark.parametrize("numbered", only([False, True], True), ids=["names", "generated names"])
@pytest.mark.parametrize("kind", NESTED)
def test_losses_of_nested_models_are_left_out(kind: str, numbered: bool, tmp_path: Path) -> None:
    """The arrays of a nested model are in one group, also those that only a loss needs."""
    tf_keras.utils.set_random_seed(2)
    model, path = NESTED[kind](numbered), tmp_path / "model.h5"
    model.save(path)
    x = np.random.default_rng(3).uniform(size=(2, *model.inputs[0].shape[1:])).astype("float32")
    loaded = load_model(audit_file(path)).model
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)


def test_weights_of_other_layers_are_not_left_out(tmp_path: Path) -> None:
    """A layer that the outputs depend on needs its weights, whatever the file contains."""
    import h5py

    model, path = autoencoder(), tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        file["model_weights/mean"].attrs["weight_names"] = []
    with pytest.raises(UnsupportedModelError, match="no weights for 2 of 6 variables"):
        load_model(audit_file(path))
