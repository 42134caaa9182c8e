"""Small versions of architectures from papers and tutorials."""

from typing import Any

import numpy as np

from .case import WORDS, Case, in_group

TOKENS = 17


def _words(keras: Any, steps: int = 8, name: str = "x") -> Any:
    return keras.Input((steps,), dtype="int32", name=name)


def _block(keras: Any, h: Any, width: int, **options: Any) -> Any:
    """A transformer block with its norms first."""
    L = keras.layers
    normal = L.LayerNormalization()(h)
    h = L.Add()([h, L.MultiHeadAttention(2, width // 2)(normal, normal, **options)])
    normal = L.LayerNormalization()(h)
    return L.Add()([h, L.Dense(width)(L.Dense(2 * width, activation="gelu")(normal))])


def words_in_the_model(keras: Any) -> Any:
    """A classifier that looks up its words."""
    L = keras.layers
    x = keras.Input((6,), dtype="string", name="x")
    tokens = L.StringLookup(vocabulary=list(WORDS[:6]), mask_token="", name="look")(x)
    h = L.LSTM(5, return_sequences=True)(L.Embedding(8, 4, mask_zero=True)(tokens))
    return keras.Model(x, L.Dense(2, activation="softmax")(L.Attention()([h, h])))


def two_columns_of_words(keras: Any) -> Any:
    """Two lookups with vocabularies of their own, as of words and tags."""
    L = keras.layers
    words = keras.Input((5,), dtype="string", name="words")
    tags = keras.Input((5,), dtype="string", name="tags")
    w = L.StringLookup(vocabulary=list(WORDS[:6]), name="look_words")(words)
    t = L.StringLookup(vocabulary=list(WORDS[2:5]), name="look_tags")(tags)
    h = L.Concatenate()([L.Embedding(7, 4)(w), L.Embedding(4, 3)(t)])
    return keras.Model([words, tags], L.Dense(3)(L.GRU(5)(h)))


def masked_decoder(keras: Any) -> Any:
    """A transformer's encoder and decoder; both sequences are padded."""
    L = keras.layers
    source, target = _words(keras, 7, "source"), _words(keras, 5, "target")
    s = L.Embedding(TOKENS, 6, mask_zero=True)(source)
    s = L.LayerNormalization()(L.Add()([s, L.MultiHeadAttention(2, 3)(s, s)]))
    t = L.Embedding(TOKENS, 6, mask_zero=True)(target)
    t = L.LayerNormalization()(L.Add()([t, L.MultiHeadAttention(2, 3)(t, t, use_causal_mask=True)]))
    t = L.LayerNormalization()(L.Add()([t, L.MultiHeadAttention(2, 3)(t, s)]))
    return keras.Model([source, target], L.Dense(TOKENS, activation="softmax")(t))


def shifted_windows(keras: Any) -> Any:
    """Attention within windows of 4 positions, then within windows shifted by 2."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((4, 4, 6), name="x")
    rows = np.arange(4)
    region = np.where(rows < 2, 0, np.where(rows < 3, 1, 2))
    region = (region[:, None] * 3 + region[None]).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3)
    region = region.reshape(4, 4)
    mask = np.where(region[:, :, None] == region[:, None], 0.0, -100.0)[None, :, None]
    h = x
    for shift in (0, 1):
        n = L.LayerNormalization()(h)
        n = ops.roll(n, (-shift, -shift), axis=(1, 2)) if shift else n
        n = ops.transpose(ops.reshape(n, (-1, 2, 2, 2, 2, 6)), (0, 1, 3, 2, 4, 5))
        q, k, v = (
            ops.transpose(ops.reshape(L.Dense(6)(n), (-1, 4, 4, 2, 3)), (0, 1, 3, 2, 4))
            for _ in range(3)
        )
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 2, 4, 3))) * 3**-0.5
        scores = scores + mask.astype("float32") if shift else scores
        n = ops.transpose(ops.matmul(ops.softmax(scores), v), (0, 1, 3, 2, 4))
        n = ops.transpose(ops.reshape(n, (-1, 2, 2, 2, 2, 6)), (0, 1, 3, 2, 4, 5))
        n = L.Dense(6)(ops.reshape(n, (-1, 4, 4, 6)))
        h = h + (ops.roll(n, (shift, shift), axis=(1, 2)) if shift else n)
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(L.LayerNormalization()(h))))


def compact_convolutional_transformer(keras: Any) -> Any:
    """Tokens from convolutions; a learned weighted mean of the sequence."""
    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = L.MaxPooling2D(2, padding="same")(L.Conv2D(6, 3, padding="same", activation="relu")(x))
    h = L.LayerNormalization()(_block(keras, L.Reshape((16, 6))(h), 6))
    weights = L.Softmax(axis=1)(L.Dense(1)(h))
    pooled = L.Flatten()(L.Dot(axes=1)([weights, h]))
    return keras.Model(x, L.Dense(3)(pooled))


def point_cloud(keras: Any) -> Any:
    """Points are rotated by a matrix computed from all of them; then their maximum."""
    L = keras.layers
    x = keras.Input((12, 3), name="x")
    t = L.BatchNormalization()(L.Conv1D(6, 1)(x))
    t = L.GlobalMaxPooling1D()(L.Activation("relu")(t))
    h = L.Dot(axes=(2, 1))([x, L.Reshape((3, 3))(L.Dense(9)(t))])
    h = L.Activation("relu")(L.BatchNormalization()(L.Conv1D(8, 1)(h)))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.GlobalMaxPooling1D()(h)))


def sentence_pair_inference(keras: Any) -> Any:
    """Both sentences aligned with each other, compared, and composed by recurrent layers."""
    L = keras.layers
    left, right = _words(keras, 6, "left"), _words(keras, 5, "right")
    embedding, encoder = L.Embedding(TOKENS, 4), L.Bidirectional(L.LSTM(3, return_sequences=True))
    a, b = encoder(embedding(left)), encoder(embedding(right))
    scores = L.Dot(axes=2)([a, b])
    a2 = L.Dot(axes=(2, 1))([L.Softmax(axis=2)(scores), b])
    b2 = L.Dot(axes=1)([L.Softmax(axis=1)(scores), a])
    compose, pooled = L.Bidirectional(L.LSTM(3, return_sequences=True)), []
    for h, aligned in ((a, a2), (b, b2)):
        parts = [h, aligned, L.Subtract()([h, aligned]), L.Multiply()([h, aligned])]
        h = compose(L.Dense(4, activation="relu")(L.Concatenate()(parts)))
        pooled += [L.GlobalAveragePooling1D()(h), L.GlobalMaxPooling1D()(h)]
    h = L.Dense(5, activation="tanh")(L.Concatenate()(pooled))
    return keras.Model([left, right], L.Dense(3, activation="softmax")(h))


def decomposable_attention(keras: Any) -> Any:
    """Both sentences aligned with each other and compared, without recurrent layers."""
    L = keras.layers
    left, right = _words(keras, 6, "left"), _words(keras, 5, "right")
    embedding, attend = L.Embedding(TOKENS, 4), L.TimeDistributed(L.Dense(4, activation="relu"))
    compare = L.TimeDistributed(L.Dense(5, activation="relu"))
    a, b = embedding(left), embedding(right)
    scores = L.Dot(axes=2)([attend(a), attend(b)])
    a2 = L.Dot(axes=(2, 1))([L.Softmax(axis=2)(scores), b])
    b2 = L.Dot(axes=1)([L.Softmax(axis=1)(scores), a])
    both = [compare(L.Concatenate()(pair)) for pair in ((a, a2), (b, b2))]
    h = L.Concatenate()([L.GlobalAveragePooling1D()(h) for h in both])
    return keras.Model([left, right], L.Dense(3, activation="softmax")(h))


def automatic_interactions(keras: Any) -> Any:
    """Self-attention between the embeddings of the fields."""
    L = keras.layers
    x = _words(keras, 5)
    h = L.Embedding(TOKENS, 6)(x)
    for _ in range(2):
        h = L.ReLU()(L.Add()([L.MultiHeadAttention(2, 3)(h, h), L.Dense(6)(h)]))
    return keras.Model(x, L.Dense(1, activation="sigmoid")(L.Flatten()(h)))


def factorization_machine(keras: Any) -> Any:
    """Linear, pairwise and deep scores of the same fields."""
    L, ops = keras.layers, keras.ops
    x = _words(keras, 5)
    e = L.Embedding(TOKENS, 4)(x)
    pairs = ops.square(ops.sum(e, axis=1)) - ops.sum(ops.square(e), axis=1)
    pairs = 0.5 * ops.sum(pairs, axis=1, keepdims=True)
    linear = ops.sum(L.Embedding(TOKENS, 1)(x), axis=1)
    deep = L.Dense(1)(L.Dense(6, activation="relu")(L.Flatten()(e)))
    return keras.Model(x, L.Activation("sigmoid")(linear + pairs + deep))


def cross_network(keras: Any) -> Any:
    """Products of the input with projections of what was computed of it, beside dense layers."""
    L = keras.layers
    x = keras.Input((6,), name="x")
    h = x
    for _ in range(2):
        h = L.Add()([L.Multiply()([x, L.Dense(6)(h)]), h])
    deep = L.Dense(5, activation="relu")(x)
    return keras.Model(x, L.Dense(1, activation="sigmoid")(L.Concatenate()([h, deep])))


def behavior_sequence_transformer(keras: Any) -> Any:
    """A history with the candidate behind it, and other features of the user."""
    from . import custom_layers as custom

    L = keras.layers
    history, user = _words(keras, 6, "history"), _words(keras, 1, "user")
    h = custom.TokenAndPositionEmbedding(6, TOKENS, 6)(history)
    h = L.LayerNormalization()(L.Add()([h, L.MultiHeadAttention(2, 3)(h, h)]))
    h = L.LayerNormalization()(L.Add()([h, L.Dense(6)(L.LeakyReLU()(L.Dense(6)(h)))]))
    h = L.Concatenate()([L.Flatten()(h), L.Flatten()(L.Embedding(TOKENS, 3)(user))])
    h = L.Dense(8, activation="leaky_relu")(h)
    return keras.Model([history, user], L.Dense(1, activation="sigmoid")(h))


def sequential_recommendation(keras: Any) -> Any:
    """Causal attention over a padded history; scores of all items by the embeddings."""
    L, ops = keras.layers, keras.ops
    x = _words(keras, 6)
    items = L.Embedding(TOKENS, 6, name="items")
    padding = ops.expand_dims(ops.cast(ops.not_equal(x, 0), "float32"), -1)
    h = items(x) * 6**0.5 * padding
    n = L.LayerNormalization()(h)
    h = n + L.MultiHeadAttention(2, 3)(n, h, h, use_causal_mask=True)
    n = L.LayerNormalization()(h)
    h = (n + L.Dense(6)(L.Dense(6, activation="relu")(n))) * padding
    h = L.LayerNormalization()(h)
    return keras.Model(x, L.Dense(TOKENS, use_bias=False)(h[:, -1]))


def squeeze_and_excitation(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, padding="same")(x)))
    s = L.Dense(3, activation="relu")(L.GlobalAveragePooling2D()(h))
    h = L.Multiply()([h, L.Reshape((1, 1, 6))(L.Dense(6, activation="sigmoid")(s))])
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def non_local_block(keras: Any) -> Any:
    """Softmax attention between all positions of an image, beside a residual."""
    L = keras.layers
    x = keras.Input((4, 4, 6), name="x")
    theta, phi, g = (L.Reshape((16, 3))(L.Conv2D(3, 1)(x)) for _ in range(3))
    weights = L.Activation("softmax")(L.Dot(axes=2)([theta, phi]))
    h = L.Reshape((4, 4, 3))(L.Dot(axes=(2, 1))([weights, g]))
    return keras.Model(x, L.Add()([x, L.Conv2D(6, 1)(h)]))


def slot_attention(keras: Any) -> Any:
    """Slots compete for the inputs, in three rounds; their start is an input."""
    L, ops = keras.layers, keras.ops
    x, start = keras.Input((9, 5), name="x"), keras.Input((3, 4), name="slots")
    n = L.LayerNormalization()(x)
    key, value = L.Dense(4, use_bias=False)(n), L.Dense(4, use_bias=False)(n)
    norm, query, cell = L.LayerNormalization(), L.Dense(4, use_bias=False), L.GRUCell(4)
    slots = start
    for _ in range(3):
        scores = ops.matmul(key, ops.transpose(query(norm(slots)), (0, 2, 1))) * 0.5
        weights = ops.softmax(scores, axis=-1) + 1e-8
        weights = weights / ops.sum(weights, axis=1, keepdims=True)
        updates = ops.matmul(ops.transpose(weights, (0, 2, 1)), value)
        slots, _ = cell(ops.reshape(updates, (-1, 4)), [ops.reshape(slots, (-1, 4))])
        slots = ops.reshape(slots, (-1, 3, 4))
    return keras.Model([x, start], L.Dense(2)(slots))


def linear_attention(keras: Any) -> Any:
    """Products of positive features, elu(x) + 1, in place of a softmax."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 6), name="x")
    q, k = (ops.elu(L.Dense(6)(x)) + 1.0 for _ in range(2))
    context = ops.matmul(ops.transpose(k, (0, 2, 1)), L.Dense(6)(x))
    norm = ops.sum(q * ops.sum(k, axis=1, keepdims=True), axis=-1, keepdims=True)
    return keras.Model(x, L.Dense(2)(x + ops.matmul(q, context) / (norm + 1e-6)))


def landmark_attention(keras: Any) -> Any:
    """Attention through means of the sequence, with an iterated pseudo-inverse."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 6), name="x")
    q, k, v = L.Dense(6)(x) * 6**-0.5, L.Dense(6)(x), L.Dense(6)(x)
    ql, kl = (ops.mean(ops.reshape(h, (-1, 4, 2, 6)), axis=2) for h in (q, k))
    left, inner, right = (
        ops.softmax(ops.matmul(a, ops.transpose(b, (0, 2, 1))))
        for a, b in ((q, kl), (ql, kl), (ql, k))
    )
    scale = ops.max(ops.sum(ops.abs(inner), axis=-2), axis=-1, keepdims=True)
    inverse = ops.transpose(inner, (0, 2, 1)) / ops.expand_dims(scale, -1)
    identity = np.eye(4, dtype="float32")
    for _ in range(4):
        p = ops.matmul(inner, inverse)
        h = ops.matmul(p, ops.subtract(7.0 * identity, p))
        h = ops.matmul(p, ops.subtract(15.0 * identity, h))
        inverse = ops.matmul(inverse, ops.subtract(13.0 * identity, h)) * 0.25
    h = ops.matmul(ops.matmul(left, inverse), ops.matmul(right, v))
    return keras.Model(x, L.Dense(2)(x + h))


def retention(keras: Any) -> Any:
    """Products of queries and keys that decay with the distance, normalized and gated."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 6), name="x")
    distance = np.arange(8)[:, None] - np.arange(8)[None]
    n = L.LayerNormalization()(x)
    heads = []
    for decay in (0.9, 0.7):
        q, k, v = L.Dense(3)(n), L.Dense(3)(n), L.Dense(3)(n)
        decays = np.where(distance >= 0, decay ** np.maximum(distance, 0), 0.0).astype("float32")
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1))) * 3**-0.5 * decays
        heads.append(L.LayerNormalization()(ops.matmul(scores, v)))
    h = L.Dense(6, activation="silu")(n) * ops.concatenate(heads, axis=-1)
    return keras.Model(x, x + L.Dense(6)(h))


def graph_attention(keras: Any) -> Any:
    """Attention of each node to its neighbors, which are an input."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((6, 5), name="x")
    edges = keras.Input((6, 6), dtype="bool", name="edges")
    h = L.Dense(4)(x)
    scores = L.Dense(1)(h) + ops.transpose(L.Dense(1)(h), (0, 2, 1))
    edges_and_self = ops.logical_or(edges, np.eye(6, dtype="bool"))
    scores = ops.where(edges_and_self, ops.leaky_relu(scores, 0.2), -1e9)
    return keras.Model([x, edges], L.Dense(2)(ops.elu(ops.matmul(ops.softmax(scores), h))))


def mobile_vision_transformer(keras: Any) -> Any:
    """Attention between the same positions of all patches, between convolutions."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 8, 3), name="x")
    h = L.Conv2D(4, 3, padding="same", activation="swish")(x)
    patches = ops.reshape(L.Conv2D(6, 1)(h), (-1, 4, 2, 4, 2, 6))
    patches = ops.reshape(ops.transpose(patches, (0, 2, 4, 1, 3, 5)), (-1, 4, 16, 6))
    n = L.LayerNormalization()(patches)
    patches = patches + L.MultiHeadAttention(2, 3, attention_axes=2)(n, n)
    folded = ops.transpose(ops.reshape(patches, (-1, 2, 2, 4, 4, 6)), (0, 3, 1, 4, 2, 5))
    folded = L.Conv2D(4, 1, activation="swish")(ops.reshape(folded, (-1, 8, 8, 6)))
    h = L.Conv2D(4, 3, padding="same", activation="swish")(L.Concatenate()([h, folded]))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def convolution_mixer(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = L.BatchNormalization()(L.Conv2D(6, 2, 2, activation="gelu")(x))
    for _ in range(2):
        y = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", activation="gelu")(h))
        h = L.BatchNormalization()(L.Conv2D(6, 1, activation="gelu")(L.Add()([h, y])))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(h)))


def tabular_transformer(keras: Any) -> Any:
    """Attention between categories, beside normalized numbers."""
    L = keras.layers
    categories, numbers = _words(keras, 4, "categories"), keras.Input((3,), name="numbers")
    h = L.Flatten()(_block(keras, L.Embedding(TOKENS, 6)(categories), 6))
    h = L.Concatenate()([h, L.LayerNormalization()(numbers)])
    return keras.Model([categories, numbers], L.Dense(1)(L.Dense(6, activation="selu")(h)))


def bidirectional_attention_flow(keras: Any) -> Any:
    """A text attends to a question, and the question's best match to the text."""
    L, ops = keras.layers, keras.ops
    text, question = _words(keras, 7, "text"), _words(keras, 4, "question")
    embedding, encoder = L.Embedding(TOKENS, 4), L.Bidirectional(L.LSTM(3, return_sequences=True))
    h, u = encoder(embedding(text)), encoder(embedding(question))
    scores = ops.matmul(h, ops.transpose(u, (0, 2, 1)))
    to_question = ops.matmul(ops.softmax(scores, axis=-1), u)
    best = ops.softmax(ops.max(scores, axis=2), axis=-1)
    to_text = ops.sum(ops.expand_dims(best, -1) * h, axis=1, keepdims=True)
    g = L.Concatenate()([h, to_question, h * to_question, h * to_text])
    start = L.Softmax(name="start")(L.Flatten()(L.Dense(1)(g)))
    return keras.Model([text, question], start)


TEXT = {"values": TOKENS}
PADDED = {"values": TOKENS, "padding": 0.0}
KERAS_3 = {"tf_keras": False}
CUSTOM = {"tf_keras": False, "custom": True}
PUBLISHED: tuple[tuple[Any, dict[str, Any]], ...] = (
    (words_in_the_model, {"first_layers": ("look",)}),
    (two_columns_of_words, {"first_layers": ("look_words", "look_tags")}),
    (masked_decoder, PADDED),
    (shifted_windows, KERAS_3),
    (compact_convolutional_transformer, {}),
    (point_cloud, {}),
    (sentence_pair_inference, TEXT),
    (decomposable_attention, TEXT),
    (automatic_interactions, TEXT),
    (factorization_machine, TEXT | KERAS_3),
    (cross_network, {}),
    (behavior_sequence_transformer, TEXT | CUSTOM),
    (sequential_recommendation, PADDED | KERAS_3),
    (squeeze_and_excitation, {}),
    (non_local_block, {}),
    (slot_attention, KERAS_3),
    (linear_attention, KERAS_3),
    (landmark_attention, KERAS_3),
    (retention, KERAS_3),
    (graph_attention, KERAS_3),
    (mobile_vision_transformer, KERAS_3),
    (convolution_mixer, {}),
    (tabular_transformer, TEXT),
    (bidirectional_attention_flow, TEXT | KERAS_3),
)
CASES = in_group(
    "published",
    [Case(build.__name__.replace("_", " "), build, **options) for build, options in PUBLISHED],
)
