"""The measured models, with random weights from a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.model_names import NAMES
from edgeattn.layers import Attention

layers = keras.layers
SEED = 4


def t10_lstm128(unroll: bool = False) -> keras.Model:
    """Maximum of ten numbers."""
    x = keras.Input((10, 1))
    steps = layers.LSTM(128, return_sequences=True, unroll=unroll)(x)
    return keras.Model(x, layers.Dense(1)(Attention(128)(steps)))


def t50_lstm64(unroll: bool = False) -> keras.Model:
    x = keras.Input((50, 16))
    steps = layers.LSTM(64, return_sequences=True, unroll=unroll)(x)
    return keras.Model(x, layers.Dense(6, activation="softmax")(Attention(32)(steps)))


def t128_bilstm64(unroll: bool = False) -> keras.Model:
    """Human activity: 128 readings of nine sensors."""
    x = keras.Input((128, 9))
    steps = layers.Bidirectional(layers.LSTM(64, return_sequences=True, unroll=unroll))(x)
    return keras.Model(x, layers.Dense(6, activation="softmax")(Attention(32)(steps)))


def t500_embedding_lstm100(unroll: bool = False) -> keras.Model:
    """IMDB: 500 words."""
    x = keras.Input((500,), dtype="int32")
    steps = layers.LSTM(100, return_sequences=True, unroll=unroll)(layers.Embedding(5000, 32)(x))
    return keras.Model(x, layers.Dense(1, activation="sigmoid")(Attention(128)(steps)))


def t50_gru64(unroll: bool = False) -> keras.Model:
    x = keras.Input((50, 16))
    steps = layers.GRU(64, return_sequences=True, unroll=unroll)(x)
    return keras.Model(x, layers.Dense(6, activation="softmax")(Attention(32)(steps)))


def t29_masked_lstm(unroll: bool = False) -> keras.Model:
    """Padded sequences of up to 29 steps."""
    x = keras.Input((29, 8))
    steps = layers.LSTM(64, return_sequences=True, unroll=unroll)(layers.Masking(0.0)(x))
    return keras.Model(x, layers.Dense(3, activation="softmax")(Attention(32)(steps)))


def t64_transformer(unroll: bool = False) -> keras.Model:
    """Two blocks, 64 features, four heads; nothing to unroll."""
    x = keras.Input((64, 64))
    hidden = x
    for _ in range(2):
        hidden = layers.LayerNormalization()(
            hidden + layers.MultiHeadAttention(4, 16)(hidden, hidden)
        )
        forward = layers.Dense(64)(layers.Dense(128, activation="relu")(hidden))
        hidden = layers.LayerNormalization()(hidden + forward)
    pooled = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(x, layers.Dense(4, activation="softmax")(pooled))


def t100_stack_heads(unroll: bool = False) -> keras.Model:
    """Two LSTM layers and MultiHeadAttention."""
    x = keras.Input((100, 12))
    steps = layers.LSTM(64, return_sequences=True, unroll=unroll)(x)
    steps = layers.LSTM(64, return_sequences=True, unroll=unroll)(steps)
    steps = layers.MultiHeadAttention(4, 16)(steps, steps)
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling1D()(steps)))


def of_length(steps: int) -> keras.Model:
    """T50-LSTM64 with another number of steps, to measure conversion."""
    x = keras.Input((steps, 16))
    states = layers.LSTM(64, return_sequences=True)(x)
    return keras.Model(x, layers.Dense(6, activation="softmax")(Attention(32)(states)))


MODELS: dict[str, Callable[..., keras.Model]] = {
    "T10-LSTM128": t10_lstm128,
    "T50-LSTM64": t50_lstm64,
    "T128-BiLSTM64": t128_bilstm64,
    "T500-Embedding-LSTM100": t500_embedding_lstm100,
    "T50-GRU64": t50_gru64,
    "T29-masked-LSTM64": t29_masked_lstm,
    "T64-transformer": t64_transformer,
    "T100-2LSTM64-heads": t100_stack_heads,
}
assert tuple(MODELS) == NAMES


def build(name: str, *, unroll: bool = False) -> keras.Model:
    """Build a model; its weights do not depend on ``unroll``."""
    keras.utils.set_random_seed(SEED)
    return MODELS[name](unroll=unroll)


def inputs(model: Any, count: int) -> np.ndarray:
    """Return ``count`` random input sequences; those of masked models have different lengths."""
    (tensor,) = model.inputs
    generator = np.random.default_rng(SEED)
    shape = (count, *tensor.shape[1:])
    if "int" in str(tensor.dtype):
        return generator.integers(1, 5000, shape).astype(np.int32)
    values = generator.standard_normal(shape).astype(np.float32)
    if any(isinstance(layer, layers.Masking) for layer in model.layers):
        for row in range(count):
            values[row, shape[1] - 5 * (row % 4) :] = 0
    return values


def multiplications(model: Any) -> tuple[int, int]:
    """Return the multiply-accumulates and the bytes of recurrent weights read, per sequence."""
    total = streamed = 0
    for layer in model.layers:
        shape = layer.output.shape if not isinstance(layer.output, list) else layer.output[0].shape
        time = shape[1] if len(shape) == 3 else 1
        inner = (
            [layer.forward_layer, layer.backward_layer]
            if isinstance(layer, layers.Bidirectional)
            else [layer]
        )
        if isinstance(inner[0], layers.LSTM | layers.GRU | layers.SimpleRNN):
            for recurrent in inner:
                kernels = (recurrent.cell.kernel, recurrent.cell.recurrent_kernel)
                total += time * sum(int(np.prod(kernel.shape)) for kernel in kernels)
                streamed += time * 4 * int(np.prod(kernels[1].shape))
        elif isinstance(layer, layers.Dense):
            total += time * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.MultiHeadAttention):
            steps, width = int(shape[1]), layer.num_heads * layer.key_dim
            total += steps * sum(int(np.prod(w.shape)) for w in layer.weights if len(w.shape) == 3)
            total += 2 * steps * steps * width
        elif isinstance(layer, Attention):
            sequence = layer.input[0] if isinstance(layer.input, list) else layer.input
            steps, features = sequence.shape[1:]
            total += features * features + 2 * steps * features + 2 * features * layer.units
    return total, streamed
