"""Attention, normalisation and dense layers: same results as Keras, without shape arithmetic."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only
from recurrent_models import FEATURES, ROWS, Converted, masks, randomise, sequences

from edgeattn.file_structure.tflite import read_tflite
from edgeattn.layers import Attention
from edgeattn_converters.lowering.masking import (
    MASK_OFFSET,
    mask_scores,
    select_by_arithmetic,
    select_by_where,
)
from edgeattn_converters.tracing.trace import trace

BOTH = ("tflite", "onnx")
SCAFFOLDING = {"Shape", "ReduceProd", "Loop", "Scan", "If", "Size"}
layers = keras.layers


def _edgeattn_attention():
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
    with_map = Attention(3, return_attention_weights=True, name="with_map")(plain)
    return keras.Model(x, [*outputs, *with_map], name="edgeattn")


@pytest.mark.parametrize("attention", only([True, False], True))
def test_edgeattn_attention(attention, tmp_path):
    converted = Converted(randomise(_edgeattn_attention()), tmp_path, BOTH, attention=attention)
    real = masks(7)
    wrong = converted.errors({"x": sequences(7) * real[:, :, None].astype(np.float32)})
    assert not wrong, "\n".join(wrong)
    assert not SCAFFOLDING & set(converted.achieved["onnx"]["operators"])
    maps = {name for name in converted.runners["onnx"].run({"x": sequences(7)}) if "/" in name}
    assert len(maps) == (7 if attention else 0)


KINDS = {
    "heads": lambda q, v, **options: layers.MultiHeadAttention(2, 5)(q, v, **options),
    "gated": lambda q, v, **options: layers.MultiHeadAttention(2, 3, use_gate=True)(
        q, v, **options
    ),
    # With dropout, Keras computes the scores, whose outputs are zero for a query that is padding.
    "dropping": lambda q, v, **options: layers.MultiHeadAttention(2, 3, dropout=0.1)(
        q, v, **options
    ),
    "grouped": lambda q, v, **options: layers.GroupQueryAttention(5, 4, 2)(q, v, **options),
    "window": lambda q, v, **options: layers.GroupQueryAttention(3, 4, 2, sliding_window=2)(
        q, v, **options
    ),
    "dot": lambda q, v, **options: layers.Attention(use_scale=True)([q, v], **options),
    "concat": lambda q, v, **options: layers.Attention(score_mode="concat")([q, v], **options),
    "additive": lambda q, v, **options: layers.AdditiveAttention()([q, v], **options),
}


def _every_kind(kinds, *, padded):
    x = keras.Input((7, 10), name="x")
    source = layers.Masking(0.0)(x) if padded else x
    outputs = [
        layers.Activation("linear", name=f"{kind}_{causal}")(
            KINDS[kind](source, source, use_causal_mask=causal)
        )
        for kind in kinds
        for causal in (False, True)
    ]
    return keras.Model(x, outputs, name="kinds")


@pytest.mark.parametrize(
    ("attention", "padded"),
    [
        pytest.param(True, True, marks=pytest.mark.long),
        pytest.param(True, False, marks=pytest.mark.long),
        pytest.param(False, True, marks=pytest.mark.long),
        pytest.param(False, False, marks=pytest.mark.long),
    ],
)
def test_keras_attention_layers(attention, padded, tmp_path):
    model = randomise(_every_kind(KINDS, padded=padded))
    converted = Converted(model, tmp_path, BOTH, attention=attention)
    x = 3 * np.random.default_rng(1).standard_normal((ROWS, 7, 10))
    if padded:
        x *= masks(7)[:, :, None]
    x = x.astype(np.float32)
    wrong = converted.errors({"x": x})
    assert not wrong, "\n".join(wrong)
    traced = trace(model, converted.interface, batch=None, attention=attention, freeze=False)
    assert len(traced.attention) == (2 * len(KINDS) if attention else 0)
    expected = dict(
        zip([s.name for s in traced.outputs], traced.function(tf.constant(x)), strict=True)
    )
    for format, runner in converted.runners.items():
        got = runner.run({"x": x})
        for name in traced.attention:
            # In a row of padding, Keras' own Attention fills with -1e9 and rounds coarsely.
            np.testing.assert_allclose(
                got[name], expected[name], atol=1e-5, err_msg=f"{format} {name}"
            )


# Unsqueeze and one Cast belong to the masks themselves: the axis of the heads, Masking's any().
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("kind", only(["heads", "grouped", "dot", "additive"], "heads", "additive"))
def test_masks_add_no_shape_arithmetic(kind, padded, tmp_path):
    converted = Converted(
        randomise(_every_kind([kind], padded=padded)), tmp_path, ("onnx",), attention=True
    )
    operators = converted.achieved["onnx"]["operators"]
    shape_operators = {"Gather", "Slice", "Concat", "Expand", "Tile", "Range", "ConstantOfShape"}
    assert not (SCAFFOLDING | shape_operators) & set(operators), operators
    # One Where per mask: the scores, the map, a query that is padding, and Masking's own.
    assert operators.get("Where", 0) <= (6 if padded else 2), operators
    assert operators.get("Cast", 0) <= (1 if padded else 0), operators
    if not padded and kind != "additive":
        assert "Unsqueeze" not in operators


def test_masked_scores_have_no_weight():
    """In float32 for any scores; and the remaining range suits integers."""
    generator = np.random.default_rng(3)
    scores = np.float32(20 * generator.standard_normal((40, 3, 50)))
    real = generator.random((40, 1, 50)) < 0.4
    real[..., 0] = True
    scores[~np.broadcast_to(real, scores.shape)] *= 50  # far above, far below
    for select in (select_by_arithmetic, select_by_where):
        filled = mask_scores(tf.constant(scores), tf.constant(real), select)
        got = tf.nn.softmax(filled).numpy()
        want = np.where(
            real, np.exp(scores - scores.max(-1, where=real, initial=-1e9)[..., None]), 0
        )
        want /= want.sum(-1, keepdims=True)
        np.testing.assert_allclose(got, want, rtol=3e-6, atol=1e-12)
        assert np.all(np.ptp(filled, axis=-1) <= np.ptp(scores, axis=-1) + MASK_OFFSET + 1e-3)
    # Ordinary scores in int8: the map survives, whereas a fill of -1e9 makes it uniform.
    ordinary = np.float32(2 * generator.standard_normal((40, 1, 50)))
    filled = mask_scores(tf.constant(ordinary), tf.constant(real), select_by_where).numpy()
    lost = np.where(real, ordinary, np.float32(-1e9))
    exact = tf.nn.softmax(filled).numpy()
    error = [np.abs(tf.nn.softmax(_in_int8(s)).numpy() - exact).max() for s in (filled, lost)]
    assert error[0] < 0.05 < 0.3 < error[1]


def _in_int8(values):
    scale = np.ptp(values) / 255
    return np.rint(values / scale) * scale


def _transformer():
    """The model of benchmarks/models.py: two blocks of 64 features and four heads."""
    x = keras.Input((64, 64), name="x")
    hidden = x
    for _ in range(2):
        hidden = layers.LayerNormalization()(
            hidden + layers.MultiHeadAttention(4, 16)(hidden, hidden)
        )
        forward = layers.Dense(64)(layers.Dense(128, activation="relu")(hidden))
        hidden = layers.LayerNormalization()(hidden + forward)
    return keras.Model(x, layers.GlobalAveragePooling1D()(hidden), name="transformer")


def test_transformer_runs_in_xnnpack_with_fewer_operators_than_stock(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = randomise(_transformer())
    converted = Converted(model, tmp_path, ("tflite",), attention=False)
    x = np.random.default_rng(1).standard_normal((3, 64, 64)).astype(np.float32)
    wrong = converted.errors({"x": x})
    assert not wrong, "\n".join(wrong)
    interpreter = Interpreter(model_path=str(converted.paths["tflite"]), num_threads=1)
    interpreter.allocate_tensors()
    delegates = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    # One partition from the input to the output contains every operator.
    assert len(delegates) == 1
    assert interpreter.get_input_details()[0]["index"] in delegates[0]["inputs"]
    assert [*delegates[0]["outputs"]] == [interpreter.get_output_details()[0]["index"]]
    function = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((1, 64, 64))]
    ).get_concrete_function()
    stock = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    stock_operators = read_tflite(stock).operators
    operators = converted.achieved["tflite"]["operators"]
    assert sum(operators.values()) < sum(stock_operators.values())
    assert operators["TRANSPOSE"] <= stock_operators["TRANSPOSE"]


def _keras_layers():
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(13, 10)(tokens)
    normal = layers.LayerNormalization(epsilon=1e-3)(x)
    outputs = [
        layers.MultiHeadAttention(2, 5, name="heads")(normal, normal),
        layers.GroupQueryAttention(5, 4, 2, name="grouped")(x, normal),
        layers.LayerNormalization(center=False, scale=False)(x),
        layers.LayerNormalization(axis=1)(x),
        layers.Dense(3, activation="gelu", use_bias=False)(layers.Dense(4, activation="relu")(x)),
        layers.Dense(3, activation="celu")(x),
    ]
    return keras.Model(tokens, outputs, name="keras_layers")


@pytest.mark.parametrize("attention", only([True, False], False))
def test_keras_layers(attention, tmp_path):
    converted = Converted(randomise(_keras_layers()), tmp_path, BOTH, attention=attention)
    tokens = np.random.default_rng(1).integers(0, 13, (ROWS, 7)).astype(np.int32)
    wrong = converted.errors({"tokens": tokens})
    assert not wrong, "\n".join(wrong)
    operators = converted.achieved["onnx"]["operators"]
    assert operators["LayerNormalization"] == 2
    assert not {"Loop", "Scan", "If"} & set(operators), operators


def test_unselected_values_may_be_infinite(tmp_path):
    """tf2onnx's own selection multiplies, which would give NaN."""
    x = keras.Input((3,), name="x")
    inverse = layers.Lambda(lambda x: tf.where(x == 0, 0.0, 1 / x), name="inverse")(x)
    either = layers.Lambda(
        lambda x: tf.cast(tf.where(x > 1, x < 3, x < 0), tf.float32), name="either"
    )(x)
    kernel = layers.Dense(3)(inverse)
    converted = Converted(
        randomise(keras.Model(x, [kernel, either], name="select")), tmp_path, BOTH
    )
    wrong = converted.errors({"x": np.float32([[0, 1, 2], [-1, 0, 4]])})
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("attention", [True, False])
def test_transformer_block_without_shape_arithmetic(attention, tmp_path):
    x = keras.Input((7, 10), name="x")
    normal = layers.LayerNormalization()(layers.MultiHeadAttention(2, 5)(x, x) + x)
    dense = layers.Dense(10)(layers.Dense(13, activation="relu")(normal))
    model = keras.Model(x, layers.GlobalAveragePooling1D()(dense + normal), name="block")
    converted = Converted(randomise(model), tmp_path, ("onnx",), attention=attention)
    assert not SCAFFOLDING & set(converted.achieved["onnx"]["operators"])


@pytest.mark.long
def test_recurrent_nodes_without_shape_arithmetic(tmp_path):
    x = keras.Input((7, FEATURES), name="x")
    steps = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    steps = layers.GRU(5, return_sequences=True)(layers.Dense(4)(steps))
    model = keras.Model(x, layers.Dense(2)(Attention(3)(steps)), name="nodes")
    converted = Converted(randomise(model), tmp_path, BOTH)
    wrong = converted.errors({"x": sequences(7)})
    assert not wrong, "\n".join(wrong)
    operators = converted.achieved["onnx"]["operators"]
    assert operators["GRU"] == 1
    assert operators["LSTM"] == 1
    # One Reshape concatenates the two directions.
    assert not (SCAFFOLDING | {"Slice", "Cast", "Split"}) & set(operators), operators
    assert operators["Reshape"] == 1
