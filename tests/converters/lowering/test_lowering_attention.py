"""Attention, normalisation and what surrounds them: right, and without shape arithmetic."""

import keras
import numpy as np
import pytest
from recurrent_models import FEATURES, ROWS, Converted, masks, randomise, sequences

from edgeattn.layers import Attention

BOTH = ("tflite", "onnx")
SCAFFOLDING = {"Shape", "ReduceProd", "Loop", "Scan", "If", "Size"}
layers = keras.layers


def _ours():
    x = keras.Input((7, FEATURES), name="x")
    plain = layers.LSTM(5, return_sequences=True)(x)
    padded = layers.LSTM(5, return_sequences=True)(layers.Masking(0.0)(x))
    outputs = [
        Attention(11, score=score, use_mask=use_mask, name=f"{score}_{use_mask}_{name}")(states)
        for score in ("luong", "bahdanau")
        for name, states, use_mask in (
            ("plain", plain, True),
            ("padded", padded, True),
            ("ignored", padded, False),
        )
    ]
    told = Attention(3, return_attention_weights=True, name="told")(plain)
    return keras.Model(x, [*outputs, *told], name="ours")


@pytest.mark.parametrize("attention", [True, False])
def test_our_layer(attention, tmp_path):
    converted = Converted(randomise(_ours()), tmp_path, BOTH, attention=attention)
    real = masks(7)
    wrong = converted.errors({"x": sequences(7) * real[:, :, None].astype(np.float32)})
    assert not wrong, "\n".join(wrong)
    assert not SCAFFOLDING & set(converted.achieved["onnx"]["operators"])
    maps = {name for name in converted.runners["onnx"].run({"x": sequences(7)}) if "/" in name}
    assert len(maps) == (7 if attention else 0)


def _keras_layers():
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(13, 10)(tokens)
    normal = layers.LayerNormalization(epsilon=1e-3)(x)
    outputs = [
        layers.MultiHeadAttention(2, 5, name="heads")(normal, normal),
        layers.MultiHeadAttention(2, 5, name="causal")(x, x, use_causal_mask=True),
        layers.GroupQueryAttention(5, 4, 2, name="grouped")(x, normal),
        layers.Attention(use_scale=True, score_mode="dot", name="dot")([x, normal]),
        layers.AdditiveAttention(name="additive")([x, normal]),
        layers.LayerNormalization(center=False, scale=False)(x),
        layers.Dense(3, activation="gelu", use_bias=False)(layers.Dense(4, activation="relu")(x)),
    ]
    return keras.Model(tokens, outputs, name="keras_layers")


@pytest.mark.parametrize("attention", [True, False])
def test_layers_of_keras(attention, tmp_path):
    converted = Converted(randomise(_keras_layers()), tmp_path, BOTH, attention=attention)
    tokens = np.random.default_rng(1).integers(0, 13, (ROWS, 7)).astype(np.int32)
    wrong = converted.errors({"tokens": tokens})
    assert not wrong, "\n".join(wrong)
    operators = converted.achieved["onnx"]["operators"]
    assert operators["LayerNormalization"] == 2
    assert not {"Loop", "Scan", "If"} & set(operators), operators


@pytest.mark.parametrize("attention", [True, False])
def test_a_transformer_block_without_scaffolding(attention, tmp_path):
    x = keras.Input((7, 10), name="x")
    normal = layers.LayerNormalization()(layers.MultiHeadAttention(2, 5)(x, x) + x)
    dense = layers.Dense(10)(layers.Dense(13, activation="relu")(normal))
    model = keras.Model(x, layers.GlobalAveragePooling1D()(dense + normal), name="block")
    converted = Converted(randomise(model), tmp_path, ("onnx",), attention=attention)
    assert not SCAFFOLDING & set(converted.achieved["onnx"]["operators"])


def test_recurrent_nodes_without_scaffolding(tmp_path):
    x = keras.Input((7, FEATURES), name="x")
    steps = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    steps = layers.GRU(5, return_sequences=True)(layers.Dense(4)(steps))
    model = keras.Model(x, layers.Dense(2)(Attention(3)(steps)), name="nodes")
    converted = Converted(randomise(model), tmp_path, BOTH)
    wrong = converted.errors({"x": sequences(7)})
    assert not wrong, "\n".join(wrong)
    operators = converted.achieved["onnx"]["operators"]
    assert operators["LSTM"] in (1, 2)
    assert operators["GRU"] == 1
    assert not (SCAFFOLDING | {"Slice", "Cast", "Reshape"}) & set(operators), operators
