"""Small Keras models with a different prime as the size of every axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from edgeattn.layers import Attention

SEED = 11


def filled(model: Any, scale: float = 0.5) -> Any:
    """``model`` with random weights from a fixed seed; variances are positive."""
    generator = np.random.default_rng(SEED)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        value = generator.normal(0, scale, variable.shape)
        if "variance" in variable.path:
            value = np.abs(value) + 0.5
        variable.assign(value.astype("float32"))
    return model


def lstm_luong() -> Any:
    inputs = keras.Input((13, 3), name="sensor")
    states = layers.LSTM(7, return_sequences=True)(inputs)
    vector = Attention(5, name="look")(states)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="answer")(vector))


def gru_bahdanau_masked() -> Any:
    inputs = keras.Input((11,), name="tokens")
    states = layers.Embedding(17, 5, mask_zero=True)(inputs)
    states = layers.Bidirectional(layers.GRU(3, return_sequences=True))(states)
    vector = Attention(7, score="bahdanau", name="look")(layers.Dropout(0.5)(states))
    return keras.Model(inputs, layers.Dense(1, name="answer")(vector))


def convolutional() -> Any:
    inputs = keras.Input((23, 3), name="signal")
    x = layers.Conv1D(5, 3, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling1D(2)(x)
    x = layers.Conv1D(7, 3, padding="causal", strides=1, dilation_rate=2)(x)
    x = layers.LayerNormalization()(layers.AveragePooling1D(2)(x))
    pooled = layers.Concatenate()(
        [layers.GlobalAveragePooling1D()(x), layers.GlobalMaxPooling1D()(x)]
    )
    return keras.Model(inputs, layers.Dense(3, name="answer")(pooled))


def transformer() -> Any:
    inputs = keras.Input((13, 6), name="sequence")
    attended = layers.MultiHeadAttention(3, 2, name="heads")(inputs, inputs, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([inputs, attended]))
    x = layers.Add()([x, layers.Dense(6)(layers.Dense(11, activation="gelu")(x))])
    query = layers.Attention(name="dot_product", use_scale=True, score_mode="concat")([x, x])
    query = layers.AdditiveAttention(name="additive")([query, x])
    return keras.Model(inputs, layers.Dense(2, name="answer")(layers.Flatten()(query)))


def masked_heads() -> Any:
    """Queries that are padding, which MultiHeadAttention treats differently from Attention."""
    inputs = keras.Input((11,), name="tokens")
    states = layers.Embedding(17, 6, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 3, name="heads")(states, states)
    mixed = layers.Attention(name="dots")([attended, states])
    return keras.Model(inputs, layers.Dense(2, name="answer")(mixed))


def grouped() -> Any:
    """A grouped convolution, which Keras compiles as a separate function."""
    inputs = keras.Input((11, 6), name="signal")
    x = layers.Conv1D(6, 3, groups=3)(inputs)
    x = layers.GroupQueryAttention(4, 4, 2, name="heads")(x, x)
    return keras.Model(inputs, layers.Dense(2, name="answer")(x))


def two_inputs() -> Any:
    """Two inputs of different dtypes, and outputs of equal shapes, one of them an input."""
    signal = keras.Input((7, 3), name="signal")
    token = keras.Input((5,), name="token", dtype="int32")
    states = layers.LSTM(4, return_sequences=True)(signal)
    words = layers.SimpleRNN(4, return_sequences=True)(layers.Embedding(13, 4)(token))
    vector, weights = Attention(4, return_attention_weights=True, name="look")(
        layers.Concatenate(axis=1)([states, words])
    )
    return keras.Model(
        [signal, token],
        [
            layers.Dense(2, name="zeta")(vector),
            weights,
            layers.Dense(2, name="alpha")(vector),
            signal,
        ],
    )


def nested() -> Any:
    inner_inputs = keras.Input((7, 3))
    inner = keras.Model(
        inner_inputs, Attention(3, name="look")(layers.LSTM(5, return_sequences=True)(inner_inputs))
    )
    inputs = keras.Input((7, 3), name="signal")
    twice = layers.Concatenate()([inner(inputs), inner(layers.Rescaling(-1.0)(inputs))])
    return keras.Model(inputs, layers.Dense(2, name="answer")(twice))


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((7, 3), name="signal"),
            layers.TimeDistributed(layers.Dense(5, activation="tanh")),
            layers.GRU(3, return_sequences=True),
            Attention(2, name="look"),
            layers.Dense(1, name="answer"),
        ]
    )


MODELS: dict[str, Callable[[], Any]] = {
    build.__name__: build
    for build in (
        lstm_luong,
        gru_bahdanau_masked,
        convolutional,
        transformer,
        masked_heads,
        grouped,
        two_inputs,
        nested,
        sequential,
    )
}


def layers_of(model: Any) -> list[Any]:
    """Every layer, including inner layers."""
    return list(model._flatten_layers(include_self=False, recursive=True))
