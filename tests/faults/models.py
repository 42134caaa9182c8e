"""The models to convert: small, seeded, with another prime as the length of every axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEED = 11


def reader() -> Any:
    """A text model with masked padding."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    inputs = keras.Input((11,), name="tokens")
    states = layers.Embedding(29, 5, mask_zero=True, name="words")(inputs)
    states = layers.LSTM(7, return_sequences=True, name="memory")(states)
    vector = Attention(5, name="look")(states)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="answer")(vector))


def watcher() -> Any:
    """A sensor model with the additive attention score."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    inputs = keras.Input((13, 3), name="sensor")
    states = layers.LSTM(7, return_sequences=True, name="memory")(inputs)
    vector = Attention(5, score="bahdanau", name="look")(states)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="answer")(vector))


def counter() -> Any:
    """A regression model with a bidirectional GRU."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    inputs = keras.Input((13, 3), name="sensor")
    states = layers.GRU(5, return_sequences=True, name="memory")(inputs)
    states = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(states)
    return keras.Model(inputs, layers.Dense(1, name="answer")(Attention(7, name="look")(states)))


def heads() -> Any:
    """A transformer block with three heads and a causal mask."""
    import keras
    from keras import layers

    inputs = keras.Input((11, 6), name="sequence")
    attended = layers.MultiHeadAttention(3, 2, name="look")(inputs, inputs, use_causal_mask=True)
    states = layers.LayerNormalization(name="norm")(layers.Add()([inputs, attended]))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(7, activation="gelu")(states))
    return keras.Model(inputs, layers.Dense(2, name="answer")(pooled))


def pair() -> Any:
    """Two inputs of one shape and two outputs of one shape, which can be confused."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    left, right = keras.Input((7, 3), name="left"), keras.Input((7, 3), name="right")
    one = layers.SimpleRNN(5, return_sequences=True, name="memory")(left)
    other = layers.LSTM(5, return_sequences=True, name="store")(right)
    vector = Attention(4, name="look")(layers.Concatenate(axis=1)([one, other]))
    outputs = [
        layers.Dense(2, activation="softmax", name="yes")(vector),
        layers.Dense(2, activation="softmax", name="no")(vector),
    ]
    return keras.Model([left, right], outputs)


BUILT = {build.__name__: build for build in (reader, watcher, counter, heads, pair)}


def save(folder: str) -> None:
    """Write each model to ``folder``. Runs in a process that may import Keras."""
    import keras
    import numpy as np

    for name, build in BUILT.items():
        keras.utils.set_random_seed(SEED)
        model = build()
        generator = np.random.default_rng(SEED)
        for variable in model.variables:
            if "seed" in variable.path:
                continue
            # Attention scores that differ enough for the map to affect the outputs.
            spread = 2.4 if "luong_w" in variable.path else 0.6
            value = generator.normal(0, spread, variable.shape)
            variable.assign((value + ("gamma" in variable.path)).astype("float32"))
        model.save(Path(folder) / f"{name}.keras")
