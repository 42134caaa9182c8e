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


def scanner() -> Any:
    """A convolutional model: padding, strides, dilation, pooling, and activations with a slope."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    inputs = keras.Input((25, 3), name="signal")
    x = layers.Conv1D(5, 4, strides=2, padding="same", name="narrow")(inputs)
    x = layers.LeakyReLU(negative_slope=0.3)(layers.BatchNormalization(name="batch")(x))
    x = layers.Conv1D(7, 2, dilation_rate=2, padding="same", name="wide")(x)
    x = layers.PReLU(shared_axes=[1], name="slope")(x)
    pooled = layers.MaxPooling1D(3, padding="same")(x)
    x = layers.Activation("hard_silu")(layers.UpSampling1D(3)(pooled))
    vector = Attention(5, name="look")(x)
    scaled = layers.Dense(3, activation="relu6", name="strength")(vector)
    return keras.Model(inputs, [layers.Dense(2, name="answer")(vector), scaled])


def writer() -> Any:
    """A text model with positions, a mask over its keys and GELU."""
    import keras
    from keras import layers

    inputs = keras.Input((11,), dtype="int32", name="tokens")
    words = layers.Embedding(29, 6, mask_zero=True, name="words")(inputs)
    count = keras.ops.cumsum(keras.ops.ones_like(inputs), axis=1)
    places = layers.Embedding(12, 6, name="positions")(count)
    states = layers.Add()([words, places])
    attended = layers.MultiHeadAttention(2, 3, name="look")(states, states)
    states = layers.LayerNormalization(name="norm")(layers.Add()([states, attended]))
    states = layers.Dense(7, activation="gelu")(states)
    states = layers.GRU(5, name="memory")(states)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="answer")(states))


def keeper() -> Any:
    """A model that returns the state of an LSTM, and merges two directions by their sum."""
    import keras
    from keras import layers

    inputs = keras.Input((13, 3), name="sensor")
    forward_backward = layers.Bidirectional(layers.GRU(5), merge_mode="sum", name="both")(inputs)
    sequence, hidden, cell = layers.LSTM(
        5, return_sequences=True, return_state=True, name="memory"
    )(inputs)
    return keras.Model(
        inputs,
        [
            layers.Activation("linear", name="hidden")(hidden),
            layers.Activation("linear", name="cell")(cell),
            layers.Dense(2, name="answer")(
                layers.Concatenate()([forward_backward, sequence[:, -1]])
            ),
        ],
    )


def ledger() -> Any:
    """Arithmetic whose operands have an order, on real numbers and on integers."""
    import keras
    from keras import layers, ops

    amounts = keras.Input((7,), name="amounts")
    counts = keras.Input((7,), dtype="int32", name="counts")
    weighted = layers.Dense(5, activation="tanh", name="weights")(amounts)
    rest = 1.0 - weighted
    share = weighted / (2.0 + ops.abs(rest))
    power = ops.power(rest - 1.5, 3.0)
    quotient = ops.cast(ops.floor_divide(counts, 3), "float32")
    rest_of_counts = ops.cast(ops.mod(counts, 3), "float32")
    largest = ops.one_hot(ops.argmax(counts, axis=-1), 7)
    joined = layers.Concatenate()([share, power, quotient, rest_of_counts, largest])
    return keras.Model([amounts, counts], layers.Dense(3, name="answer")(joined))


BUILT = {
    build.__name__: build
    for build in (reader, watcher, counter, heads, pair, scanner, writer, keeper, ledger)
}


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
            if "variance" in variable.path:
                value = 0.1 + np.abs(value)
            variable.assign((value + ("gamma" in variable.path)).astype("float32"))
        model.save(Path(folder) / f"{name}.keras")
    # Real samples, on which a missed limit fails a quantized artifact too.
    tokens = generator.integers(1, 29, (40, 11))
    tokens[np.arange(11) >= generator.integers(3, 12, (40, 1))] = 0
    np.savez(Path(folder) / "reader.npz", tokens=tokens)
    # Integers of both signs, and several largest ones in a row.
    amounts = generator.normal(0, 1, (40, 7)).astype("float32")
    counts = generator.integers(-9, 10, (40, 7)).astype("int32")
    np.savez(Path(folder) / "ledger.npz", amounts=amounts, counts=np.minimum(counts, 6))
