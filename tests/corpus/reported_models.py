"""Small versions of models that people convert and report problems with."""

from typing import Any

from .case import Case, in_group

TOKENS = 17


def _words(keras: Any, steps: int = 8, name: str = "x") -> Any:
    return keras.Input((steps,), dtype="int32", name=name)


def seq2seq_training(keras: Any) -> Any:
    """An encoder and a decoder with dot-product attention, as trained."""
    L = keras.layers
    source, target = _words(keras, 7, "source"), _words(keras, 5, "target")
    encoded, h, c = L.LSTM(6, return_sequences=True, return_state=True)(
        L.Embedding(TOKENS, 4)(source)
    )
    decoded = L.LSTM(6, return_sequences=True)(L.Embedding(TOKENS, 4)(target), initial_state=[h, c])
    context = L.Attention()([decoded, encoded])
    return keras.Model(
        [source, target], L.Dense(TOKENS, activation="softmax")(L.Concatenate()([context, decoded]))
    )


def seq2seq_step(keras: Any) -> Any:
    """One step of the decoder: the states are inputs and outputs."""
    L = keras.layers
    word, encoded = _words(keras, 1, "word"), keras.Input((7, 6), name="encoded")
    h, c = keras.Input((6,), name="h"), keras.Input((6,), name="c")
    decoded, h2, c2 = L.LSTM(6, return_sequences=True, return_state=True)(
        L.Embedding(TOKENS, 4)(word), initial_state=[h, c]
    )
    context = L.AdditiveAttention()([decoded, encoded])
    scores = L.Dense(TOKENS, activation="softmax")(L.Concatenate()([context, decoded]))
    return keras.Model([word, encoded, h, c], [scores, h2, c2])


def seq2seq_encoder(keras: Any) -> Any:
    L = keras.layers
    x = _words(keras)
    forward = L.Bidirectional(L.LSTM(4, return_sequences=True, return_state=True))
    encoded, fh, fc, bh, bc = forward(L.Embedding(TOKENS, 4, mask_zero=True)(x))
    return keras.Model(
        x, [encoded, L.Concatenate(name="h")([fh, bh]), L.Concatenate(name="c")([fc, bc])]
    )


def text_transformer(keras: Any) -> Any:
    from . import custom_layers as custom

    x = _words(keras)
    h = custom.TokenAndPositionEmbedding(8, TOKENS, 6)(x)
    h = custom.TransformerBlock(6, 2, 5)(h)
    h = keras.layers.GlobalAveragePooling1D()(h)
    h = keras.layers.Dropout(0.1)(h)
    return keras.Model(x, keras.layers.Dense(2, activation="softmax")(h))


def series_transformer(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((12, 1), name="x")
    h = x
    for _ in range(2):
        attended = L.MultiHeadAttention(2, 4, dropout=0.1)(h, h)
        attended = L.LayerNormalization(epsilon=1e-6)(L.Dropout(0.1)(attended))
        residual = attended + h
        h = L.Conv1D(4, 1, activation="relu")(residual)
        h = L.Conv1D(1, 1)(L.Dropout(0.1)(h))
        h = L.LayerNormalization(epsilon=1e-6)(h) + residual
    h = L.GlobalAveragePooling1D(data_format="channels_last")(h)
    return keras.Model(x, L.Dense(3, activation="softmax")(L.Dense(7, activation="relu")(h)))


def vision_transformer(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = custom.PatchEncoder(4, 6)(custom.Patches(4)(x))
    for _ in range(2):
        normal = L.LayerNormalization(epsilon=1e-6)(h)
        h = L.Add()([L.MultiHeadAttention(2, 6, dropout=0.1)(normal, normal), h])
        normal = L.LayerNormalization(epsilon=1e-6)(h)
        h = L.Add()([L.Dense(6, activation="gelu")(normal), h])
    h = L.Dropout(0.5)(L.Flatten()(L.LayerNormalization(epsilon=1e-6)(h)))
    return keras.Model(x, L.Dense(3)(h))


def causal_language_model(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    x = _words(keras)
    h = custom.SinePositions()(L.Embedding(TOKENS, 6)(x))
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True))
    return keras.Model(x, L.Dense(TOKENS)(h))


def rotary_attention(keras: Any) -> Any:
    from . import custom_layers as custom

    x = _words(keras)
    h = keras.layers.Embedding(TOKENS, 6)(x)
    h = h + custom.RotaryAttention(6)(keras.layers.RMSNormalization()(h))
    return keras.Model(x, keras.layers.Dense(TOKENS)(h))


def grouped_query_attention(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((7, 6), name="x")
    h = L.RMSNormalization()(x)
    h = x + L.GroupQueryAttention(3, 4, 2)(h, h, use_causal_mask=True)
    gate = L.Dense(8, activation="silu")(h) * L.Dense(8)(h)
    return keras.Model(x, h + L.Dense(6)(gate))


def bert_pooler(keras: Any) -> Any:
    """Tokens, their mask and segments; a dense layer on the first position."""
    L = keras.layers
    words, segments = _words(keras, 6, "words"), _words(keras, 6, "segments")
    h = L.LayerNormalization()(L.Embedding(TOKENS, 6)(words) + L.Embedding(TOKENS, 6)(segments))
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 3)(h, h))
    h = L.LayerNormalization()(h + L.Dense(6)(L.Dense(10, activation="gelu")(h)))
    return keras.Model([words, segments], L.Dense(5, activation="tanh")(h[:, 0]))


def temporal_convolutions(keras: Any) -> Any:
    """Residual blocks of dilated causal convolutions."""
    L = keras.layers
    x = keras.Input((16, 3), name="x")
    h = x
    for rate in (1, 2, 4):
        y = h
        for _ in range(2):
            y = L.Conv1D(5, 3, padding="causal", dilation_rate=rate)(y)
            y = L.SpatialDropout1D(0.1)(L.Activation("relu")(L.BatchNormalization()(y)))
        h = L.Activation("relu")(L.Add()([y, L.Conv1D(5, 1, padding="same")(h)]))
    return keras.Model(x, L.Dense(2)(h[:, -1, :]))


def wavenet(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((16, 2), name="x")
    h, skips = L.Conv1D(4, 1)(x), []
    for rate in (1, 2, 4):
        left = L.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation="tanh")(h)
        right = L.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(h)
        gated = L.Multiply()([left, right])
        skips.append(L.Conv1D(4, 1)(gated))
        h = L.Add()([h, L.Conv1D(4, 1)(gated)])
    return keras.Model(x, L.Conv1D(1, 1)(L.Activation("relu")(L.Add()(skips))))


def next_frame(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((4, 6, 6, 1), name="x")
    h = L.ConvLSTM2D(3, 3, padding="same", return_sequences=True, activation="relu")(x)
    h = L.ConvLSTM2D(3, 1, padding="same", return_sequences=True)(L.BatchNormalization()(h))
    return keras.Model(x, L.Conv3D(1, 3, padding="same", activation="sigmoid")(h))


def frames_to_lstm(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((4, 8, 8, 1), name="x")
    h = L.TimeDistributed(L.Conv2D(3, 3, activation="relu"))(x)
    h = L.TimeDistributed(L.MaxPooling2D(2))(h)
    h = L.LSTM(5)(L.TimeDistributed(L.Flatten())(h))
    return keras.Model(x, L.Dense(3, activation="softmax")(h))


def time_distributed_model(keras: Any) -> Any:
    L = keras.layers
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(3, 3), L.BatchNormalization(), L.GlobalMaxPooling2D()]
    )
    x = keras.Input((4, 8, 8, 1), name="x")
    return keras.Model(x, L.Dense(2)(L.GRU(5)(L.TimeDistributed(inner)(x))))


def conditional_random_field(keras: Any) -> Any:
    from . import custom_layers as custom

    x = _words(keras, 6)
    h = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(
        keras.layers.Embedding(TOKENS, 4)(x)
    )
    return keras.Model(x, custom.ViterbiDecoder()(keras.layers.Dense(4)(h)))


def conformer(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((10, 6), name="x")
    h = x + 0.5 * L.Dense(6)(L.Dense(12, activation="swish")(L.LayerNormalization()(x)))
    normal = L.LayerNormalization()(h)
    h = h + L.MultiHeadAttention(2, 3)(normal, normal)
    c = L.Conv1D(12, 1)(L.LayerNormalization()(h))
    c = c[..., :6] * L.Activation("sigmoid")(c[..., 6:])
    c = L.BatchNormalization()(L.DepthwiseConv1D(3, padding="same")(c))
    h = h + L.Conv1D(6, 1)(L.Activation("swish")(c))
    return keras.Model(x, L.LayerNormalization()(h))


def temporal_fusion(keras: Any) -> Any:
    from . import custom_layers as custom

    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 3), name="x")
    features = ops.stack([L.Dense(5)(x[..., k : k + 1]) for k in range(3)], axis=2)
    weights = L.Softmax(axis=-1)(custom.GatedResidual(3)(x))
    h = ops.sum(features * ops.expand_dims(weights, -1), axis=2)
    h = L.LayerNormalization()(h + L.LSTM(5, return_sequences=True)(h))
    h = custom.GatedResidual(5)(h)
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True))
    return keras.Model(x, L.Dense(3, name="quantiles")(h[:, -2:]))


def earthquake_transformer(keras: Any) -> Any:
    """Convolutions, residual blocks, recurrent layers, attention, and three decoders."""
    L = keras.layers
    x = keras.Input((32, 3), name="x")
    h = L.MaxPooling1D(2, padding="same")(L.Conv1D(4, 5, padding="same", activation="relu")(x))
    h = L.Add()(
        [h, L.Conv1D(4, 3, padding="same")(L.Activation("relu")(L.BatchNormalization()(h)))]
    )
    h = L.MaxPooling1D(2, padding="same")(h)
    h = L.BatchNormalization()(L.Conv1D(4, 1)(L.Bidirectional(L.LSTM(3, return_sequences=True))(h)))
    h = L.LayerNormalization()(L.Add()([h, L.AdditiveAttention()([h, h])]))
    outputs = []
    for name in ("detector", "picker_P", "picker_S"):
        d = h if name == "detector" else L.LSTM(4, return_sequences=True)(h)
        d = L.Conv1D(4, 3, padding="same", activation="relu")(L.UpSampling1D(2)(d))
        d = L.Conv1D(3, 3, padding="same", activation="relu")(L.UpSampling1D(2)(d))
        outputs.append(L.Conv1D(1, 5, padding="same", activation="sigmoid", name=name)(d))
    return keras.Model(x, outputs)


def siamese_lstm(keras: Any) -> Any:
    L = keras.layers
    left, right = _words(keras, 7, "left"), _words(keras, 7, "right")
    embedding, lstm = L.Embedding(TOKENS, 4, mask_zero=True), L.LSTM(5)
    a, b = lstm(embedding(left)), lstm(embedding(right))
    joined = L.Concatenate()([a, b, L.Subtract()([a, b]), L.Multiply()([a, b])])
    return keras.Model([left, right], L.Dense(1, activation="sigmoid")(joined))


def siamese_images(keras: Any) -> Any:
    L = keras.layers
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    tower = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(4)]
    )
    return keras.Model([left, right], L.Dot(1, normalize=True)([tower(left), tower(right)]))


def hierarchical_attention(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    words = _words(keras, 5, "words")
    h = L.Bidirectional(L.GRU(3, return_sequences=True))(L.Embedding(TOKENS, 4)(words))
    sentence = keras.Model(words, custom.SumAttention()(h))
    x = keras.Input((3, 5), dtype="int32", name="x")
    h = L.Bidirectional(L.GRU(3, return_sequences=True))(L.TimeDistributed(sentence)(x))
    return keras.Model(x, L.Dense(2, activation="softmax")(custom.SumAttention()(h)))


def masked_sum_attention(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    x = _words(keras)
    h = L.LSTM(5, return_sequences=True)(L.Embedding(TOKENS, 4, mask_zero=True)(x))
    return keras.Model(x, L.Dense(2)(custom.SumAttention()(h)))


def local_self_attention(keras: Any) -> Any:
    from . import custom_layers as custom

    x = _words(keras)
    h = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(
        keras.layers.Embedding(TOKENS, 4)(x)
    )
    return keras.Model(x, keras.layers.Dense(2)(custom.SelfAttentionWithHistory(4)(h)))


def speech_recognition(keras: Any) -> Any:
    """Convolutions over a spectrogram, recurrent layers, and scores for a CTC loss."""
    L = keras.layers
    x = keras.Input((16, 8), name="x")
    h = L.Reshape((16, 8, 1))(x)
    h = L.ReLU()(L.BatchNormalization()(L.Conv2D(3, (5, 3), (2, 2), padding="same")(h)))
    h = L.Reshape((8, 12))(h)
    h = L.Bidirectional(L.GRU(4, return_sequences=True, reset_after=True))(h)
    return keras.Model(x, L.Dense(6, activation="softmax")(h))


def text_recognition(keras: Any) -> Any:
    """Columns of an image as steps, and scores for a CTC loss."""
    L = keras.layers
    x = keras.Input((16, 8, 1), name="x")
    h = L.MaxPooling2D(2)(L.Conv2D(4, 3, activation="relu", padding="same")(x))
    h = L.Dense(6, activation="relu")(L.Reshape((8, 16))(h))
    h = L.Bidirectional(L.LSTM(4, return_sequences=True, dropout=0.2))(h)
    return keras.Model(x, L.Dense(5, activation="softmax")(h))


def words_and_characters(keras: Any) -> Any:
    """Named entities from words and the characters of each word."""
    L = keras.layers
    words = _words(keras, 5, "words")
    characters = keras.Input((5, 4), dtype="int32", name="characters")
    c = L.TimeDistributed(L.Embedding(TOKENS, 3))(characters)
    c = L.TimeDistributed(L.LSTM(3))(c)
    h = L.Concatenate()([L.Embedding(TOKENS, 4)(words), c])
    h = L.Bidirectional(L.LSTM(4, return_sequences=True))(L.SpatialDropout1D(0.3)(h))
    return keras.Model([words, characters], L.TimeDistributed(L.Dense(4, activation="softmax"))(h))


def attention_unet(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8, 8, 1), name="x")
    e = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(6, 3, padding="same", activation="relu")(L.MaxPooling2D(2)(e))
    g = L.Conv2DTranspose(4, 2, 2, padding="same")(b)
    gate = L.Activation("relu")(L.Add()([L.Conv2D(3, 1)(e), L.Conv2D(3, 1)(g)]))
    gate = L.Conv2D(1, 1, activation="sigmoid")(gate)
    h = L.Concatenate()([L.Multiply()([e, gate]), g])
    return keras.Model(x, L.Conv2D(2, 1, activation="softmax")(h))


def unet_1d(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((16, 2), name="x")
    a = L.Conv1D(3, 3, padding="same", activation="relu")(x)
    b = L.Conv1D(5, 3, padding="same", activation="relu")(L.MaxPooling1D(2)(a))
    up = L.Conv1D(3, 2, padding="same")(L.UpSampling1D(2)(b))
    return keras.Model(x, L.Conv1D(1, 1, activation="sigmoid")(L.Concatenate()([a, up])))


def lstm_autoencoder(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((6, 3), name="x")
    h = L.RepeatVector(6)(L.LSTM(4, activation="relu")(x))
    return keras.Model(x, L.TimeDistributed(L.Dense(3))(L.LSTM(4, return_sequences=True)(h)))


def variational_autoencoder(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    x = keras.Input((8, 8, 1), name="x")
    h = L.Flatten()(L.Conv2D(3, 3, 2, padding="same", activation="relu")(x))
    z = custom.Sampling()([L.Dense(2)(h), L.Dense(2)(h)])
    h = L.Reshape((4, 4, 3))(L.Dense(48, activation="relu")(z))
    return keras.Model(x, L.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid")(h))


def convolutions_and_lstm(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((16, 3), name="x")
    h = L.Conv1D(5, 3, activation="relu")(L.Conv1D(5, 3, activation="relu")(x))
    h = L.LSTM(4)(L.LSTM(4, return_sequences=True)(L.Dropout(0.5)(h)))
    return keras.Model(x, L.Dense(3, activation="softmax")(h))


def lstm_fcn(keras: Any) -> Any:
    """An LSTM over the transposed series beside convolutions with squeeze and excitation."""
    L = keras.layers
    x = keras.Input((12, 2), name="x")
    a = L.Dropout(0.8)(L.LSTM(4)(L.Masking()(L.Permute((2, 1))(x))))
    b = L.Activation("relu")(L.BatchNormalization()(L.Conv1D(6, 5, padding="same")(x)))
    squeezed = L.Dense(3, activation="relu")(L.GlobalAveragePooling1D()(b))
    b = L.Multiply()([b, L.Reshape((1, 6))(L.Dense(6, activation="sigmoid")(squeezed))])
    h = L.Concatenate()([a, L.GlobalAveragePooling1D()(b)])
    return keras.Model(x, L.Dense(3, activation="softmax")(h))


def inception_time(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((16, 2), name="x")
    h = L.Conv1D(3, 1, use_bias=False)(x)
    parts = [L.Conv1D(3, size, padding="same", use_bias=False)(h) for size in (9, 5, 3)]
    parts.append(L.Conv1D(3, 1)(L.MaxPooling1D(3, 1, padding="same")(x)))
    h = L.Activation("relu")(L.BatchNormalization()(L.Concatenate()(parts)))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(h)))


def residual_network(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = L.Conv2D(4, 3, 2, padding="same", use_bias=False)(x)
    h = L.ReLU()(L.BatchNormalization()(h))
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(h))
    h = L.ReLU()(L.Add()([h, y]))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(h)))


def inverted_residual(keras: Any) -> Any:
    """A block of a mobile network with relu6 and hard_swish."""
    L = keras.layers
    x = keras.Input((8, 8, 4), name="x")
    h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(x)))
    h = L.ZeroPadding2D(1)(h)
    h = L.BatchNormalization()(L.DepthwiseConv2D(3, use_bias=False)(h))
    s = L.GlobalAveragePooling2D(keepdims=True)(h)
    s = L.Conv2D(8, 1, activation="hard_sigmoid")(L.Conv2D(2, 1, activation="relu")(s))
    h = L.Conv2D(4, 1, use_bias=False)(L.Multiply()([h, s]))
    return keras.Model(x, L.Add()([x, h]))


def dense_block(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = x
    for _ in range(3):
        y = L.Conv2D(2, 3, padding="same")(L.Activation("relu")(L.BatchNormalization()(h)))
        h = L.Concatenate()([h, y])
    return keras.Model(x, L.Dense(2)(L.GlobalMaxPooling2D()(L.AveragePooling2D(2)(h))))


def spatial_attention(keras: Any) -> Any:
    """Channel attention, then attention over positions from the mean and maximum."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((8, 8, 4), name="x")
    shared = L.Dense(4)
    channel = L.Add()([shared(L.GlobalAveragePooling2D()(x)), shared(L.GlobalMaxPooling2D()(x))])
    h = x * L.Reshape((1, 1, 4))(L.Activation("sigmoid")(channel))
    both = ops.concatenate(
        [ops.mean(h, axis=-1, keepdims=True), ops.max(h, axis=-1, keepdims=True)], axis=-1
    )
    return keras.Model(x, h * L.Conv2D(1, 7, padding="same", activation="sigmoid")(both))


def mlp_mixer(keras: Any) -> Any:
    L, ops = keras.layers, keras.ops
    x = keras.Input((6, 5), name="x")
    h = ops.transpose(L.LayerNormalization()(x), (0, 2, 1))
    h = ops.transpose(L.Dense(6)(L.Dense(8, activation="gelu")(h)), (0, 2, 1)) + x
    return keras.Model(x, h + L.Dense(5)(L.Dense(8, activation="gelu")(L.LayerNormalization()(h))))


def gated_mlp(keras: Any) -> Any:
    L, ops = keras.layers, keras.ops
    x = keras.Input((6, 5), name="x")
    u, v = ops.split(L.Dense(8, activation="gelu")(L.LayerNormalization()(x)), 2, axis=-1)
    v = ops.transpose(L.Dense(6)(ops.transpose(L.LayerNormalization()(v), (0, 2, 1))), (0, 2, 1))
    return keras.Model(x, x + L.Dense(5)(u * v))


def fourier_mixing(keras: Any) -> Any:
    from . import custom_layers as custom

    x = keras.Input((8, 4), name="x")
    h = keras.layers.LayerNormalization()(x + custom.Fourier()(x))
    return keras.Model(x, keras.layers.Dense(2)(h))


def perceiver(keras: Any) -> Any:
    """A few latent queries attend to many inputs."""
    L = keras.layers
    x = keras.Input((12, 4), name="x")
    latents = L.Reshape((3, 5))(L.Dense(15)(L.GlobalAveragePooling1D()(x)))
    h = L.LayerNormalization()(latents + L.MultiHeadAttention(1, 5)(latents, x))
    return keras.Model(x, L.Dense(2)(L.Flatten()(h)))


def patch_transformer(keras: Any) -> Any:
    """Forecasts from patches of each channel."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((12, 2), name="x")
    mean = ops.mean(x, axis=1, keepdims=True)
    scale = ops.std(x, axis=1, keepdims=True) + 1e-2
    h = ops.reshape(ops.transpose((x - mean) / scale, (0, 2, 1)), (-1, 2, 3, 4))
    h = L.Dense(6)(h)
    h = h + L.MultiHeadAttention(2, 3, attention_axes=2)(h, h)
    h = L.Dense(5)(ops.reshape(h, (-1, 2, 18)))
    return keras.Model(x, ops.transpose(h, (0, 2, 1)) * scale + mean)


def inverted_transformer(keras: Any) -> Any:
    """Attention between the variables of a series."""
    L = keras.layers
    x = keras.Input((12, 4), name="x")
    h = L.Dense(6)(L.Permute((2, 1))(x))
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 3)(h, h))
    return keras.Model(x, L.Permute((2, 1))(L.Dense(5)(h)))


def basis_expansion(keras: Any) -> Any:
    """Blocks that subtract what they explain from the input."""
    L = keras.layers
    x = keras.Input((10,), name="x")
    rest, forecasts = x, []
    for _ in range(2):
        h = L.Dense(8, activation="relu")(L.Dense(8, activation="relu")(rest))
        rest = L.Subtract()([rest, L.Dense(10)(h)])
        forecasts.append(L.Dense(3)(h))
    return keras.Model(x, L.Add()(forecasts))


def skip_recurrent(keras: Any) -> Any:
    """Convolution, recurrent layers, steps of every period, and an autoregressive part."""
    L = keras.layers
    x = keras.Input((12, 3), name="x")
    c = L.Conv1D(4, 3, padding="causal", activation="relu")(x)
    period = L.Reshape((4, 12))(c)
    h = L.Concatenate()([L.GRU(4)(c), L.GRU(3)(period)])
    linear = L.Flatten()(L.Dense(1)(L.Permute((2, 1))(x)))
    return keras.Model(x, L.Add()([L.Dense(3)(h), linear]))


def image_caption(keras: Any) -> Any:
    L = keras.layers
    image, words = keras.Input((8, 8, 3), name="image"), _words(keras, 5, "words")
    features = L.Reshape((9, 4))(L.Conv2D(4, 3, 2, activation="relu")(image))
    h = L.LSTM(4, return_sequences=True)(L.Embedding(TOKENS, 4, mask_zero=True)(words))
    h = L.Add()([h, L.MultiHeadAttention(2, 3)(h, features)])
    return keras.Model([image, words], L.Dense(TOKENS, activation="softmax")(h))


def question_about_image(keras: Any) -> Any:
    L = keras.layers
    image, words = keras.Input((8, 8, 3), name="image"), _words(keras, 5, "words")
    v = L.Dense(6, activation="tanh")(L.Flatten()(L.Conv2D(4, 3, 2)(image)))
    q = L.Dense(6, activation="tanh")(L.LSTM(5)(L.Embedding(TOKENS, 4)(words)))
    return keras.Model([image, words], L.Dense(4, activation="softmax")(L.Multiply()([v, q])))


def recommender(keras: Any) -> Any:
    L = keras.layers
    user, item = keras.Input((1,), name="user"), keras.Input((1,), name="item")
    u = L.Flatten()(L.Embedding(TOKENS, 4)(user))
    i = L.Flatten()(L.Embedding(TOKENS, 4)(item))
    deep = L.Dense(5, activation="relu")(L.Concatenate()([u, i]))
    score = L.Add()([L.Dot(1)([u, i]), L.Dense(1)(deep)])
    return keras.Model([user, item], L.Activation("sigmoid")(score))


def interest_network(keras: Any) -> Any:
    """Attention of a candidate to the items of a history."""
    L, ops = keras.layers, keras.ops
    history, item = _words(keras, 6, "history"), _words(keras, 1, "item")
    embedding = L.Embedding(TOKENS, 4)
    h, candidate = embedding(history), ops.repeat(embedding(item), 6, axis=1)
    pair = L.Concatenate()([h, candidate, h - candidate, h * candidate])
    weights = L.Dense(1)(L.Dense(5, activation="sigmoid")(pair))
    pooled = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), h), axis=1)
    return keras.Model([history, item], L.Dense(1, activation="sigmoid")(pooled))


def eeg_network(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((4, 32, 1), name="x")
    h = L.BatchNormalization()(L.Conv2D(3, (1, 8), padding="same", use_bias=False)(x))
    h = L.DepthwiseConv2D((4, 1), use_bias=False, depth_multiplier=2)(h)
    h = L.AveragePooling2D((1, 4))(L.Activation("elu")(L.BatchNormalization()(h)))
    h = L.SeparableConv2D(4, (1, 4), use_bias=False, padding="same")(h)
    h = L.Dropout(0.5)(L.AveragePooling2D((1, 2))(L.Activation("elu")(L.BatchNormalization()(h))))
    return keras.Model(x, L.Activation("softmax")(L.Dense(3)(L.Flatten()(h))))


def heartbeat_network(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((32, 1), name="x")
    h = L.Conv1D(4, 7, 2, padding="same")(x)
    y = L.Dropout(0.2)(L.ReLU()(L.BatchNormalization()(L.Conv1D(4, 5, padding="same")(h))))
    h = L.MaxPooling1D(2)(L.Add()([h, y]))
    h = L.Bidirectional(L.LSTM(3, return_sequences=True))(h)
    query = L.Dense(6)(h[:, -1:])
    return keras.Model(x, L.Dense(4, activation="softmax")(L.Flatten()(L.Attention()([query, h]))))


def keyword_spotting(keras: Any) -> Any:
    """A recurrent network whose middle state is the query of its attention."""
    L = keras.layers
    x = keras.Input((12, 8), name="x")
    h = L.Reshape((12, 8, 1))(x)
    h = L.BatchNormalization()(L.Conv2D(4, (5, 1), padding="same", activation="relu")(h))
    h = L.Reshape((12, 8))(L.Conv2D(1, (5, 1), padding="same", activation="relu")(h))
    h = L.Bidirectional(L.LSTM(4, return_sequences=True))(h)
    query = L.Dense(8)(h[:, 6])
    weights = L.Softmax(name="weights")(L.Dot(axes=[1, 2])([query, h]))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.Dot(axes=[1, 1])([weights, h])))


def permuted_attention(keras: Any) -> Any:
    """Attention over the steps as a dense layer on the transposed sequence."""
    L = keras.layers
    x = keras.Input((6, 4), name="x")
    h = L.LSTM(5, return_sequences=True)(x)
    weights = L.Dense(6, activation="softmax")(L.Permute((2, 1))(h))
    h = L.Multiply()([h, L.Permute((2, 1))(weights)])
    return keras.Model(x, L.Dense(1, activation="sigmoid")(L.Flatten()(h)))


def repeated_attention(keras: Any) -> Any:
    """Weights from Dense(1, tanh), Flatten, softmax, RepeatVector and Permute."""
    L = keras.layers
    x = keras.Input((6, 4), name="x")
    h = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    weights = L.Activation("softmax")(L.Flatten()(L.Dense(1, activation="tanh")(h)))
    h = L.Multiply()([h, L.Permute((2, 1))(L.RepeatVector(6)(weights))])
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling1D()(h)))


def user_cell(keras: Any) -> Any:
    from . import custom_layers as custom

    x = keras.Input((6, 4), name="x")
    h = keras.layers.RNN(custom.MinimalGatedCell(5), return_sequences=True)(x)
    return keras.Model(x, keras.layers.Dense(2)(h))


def sentiment(keras: Any) -> Any:
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((10,), dtype="int32", name="x"),
            L.Embedding(TOKENS, 5, mask_zero=True),
            L.Bidirectional(L.LSTM(4, return_sequences=True)),
            L.Bidirectional(L.LSTM(3)),
            L.Dense(4, activation="relu"),
            L.Dropout(0.5),
            L.Dense(1, activation="sigmoid"),
        ]
    )


def text_convolutions(keras: Any) -> Any:
    L = keras.layers
    x = _words(keras, 10)
    h = L.Embedding(TOKENS, 5)(x)
    pooled = [L.GlobalMaxPooling1D()(L.Conv1D(3, n, activation="relu")(h)) for n in (2, 3, 4)]
    return keras.Model(x, L.Dense(2, activation="softmax")(L.Concatenate()(pooled)))


def masked_pooling(keras: Any) -> Any:
    L = keras.layers
    x = _words(keras)
    h = L.GlobalAveragePooling1D()(L.Embedding(TOKENS, 5, mask_zero=True)(x))
    return keras.Model(x, L.Dense(2, activation="softmax")(h))


def stacked_forecast(keras: Any) -> Any:
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 3), name="x"),
            L.GRU(6, return_sequences=True),
            L.GRU(4, activation="relu"),
            L.Dense(5, activation="relu"),
            L.Dense(2),
        ]
    )


def package_attention(keras: Any) -> Any:
    """The attention of this project, after an LSTM."""
    from edgeattn.layers import Attention

    x = keras.Input((8, 2), name="x")
    h = keras.layers.LSTM(6, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Dense(1)(Attention(5)(h)))


def masked_input(keras: Any) -> Any:
    """The mask is an input of its own."""
    L = keras.layers
    x, mask = keras.Input((6, 4), name="x"), keras.Input((6,), dtype="bool", name="mask")
    h = L.LSTM(5, return_sequences=True)(x, mask=mask)
    return keras.Model([x, mask], L.Dense(2)(h))


def weights_times_values(keras: Any) -> Any:
    """Without weights of its own."""
    q, v = keras.Input((5, 4), name="q"), keras.Input((6, 4), name="v")
    return keras.Model([q, v], keras.layers.Attention()([q, v]))


def general_attention(keras: Any) -> Any:
    """A decoder whose scores are products with a projection of the encoder's states."""
    L = keras.layers
    source, target = _words(keras, 7, "source"), _words(keras, 5, "target")
    encoded, h = L.GRU(6, return_sequences=True, return_state=True)(L.Embedding(TOKENS, 4)(source))
    decoded = L.GRU(6, return_sequences=True)(L.Embedding(TOKENS, 4)(target), initial_state=h)
    scores = L.Dot(axes=2)([decoded, L.Dense(6, use_bias=False)(encoded)])
    context = L.Dot(axes=[2, 1])([L.Activation("softmax")(scores), encoded])
    h = L.TimeDistributed(L.Dense(6, activation="tanh"))(L.Concatenate()([context, decoded]))
    return keras.Model(
        [source, target], L.TimeDistributed(L.Dense(TOKENS, activation="softmax"))(h)
    )


def relative_positions(keras: Any) -> Any:
    from . import custom_layers as custom

    L = keras.layers
    x = keras.Input((7, 6), name="x")
    h = x + custom.RelativeAttention(6, 2)(L.LayerNormalization()(x))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(h)))


def rotary_heads(keras: Any) -> Any:
    """Rotary positions in the form with interleaved features, and a gated unit."""
    from . import custom_layers as custom

    L = keras.layers
    x = _words(keras)
    h = L.Embedding(TOKENS, 8)(x)
    h = h + custom.InterleavedRotaryAttention(8, 2)(L.RMSNormalization()(h))
    normal = L.RMSNormalization()(h)
    h = h + L.Dense(8)(L.Dense(12, activation="silu")(normal) * L.Dense(12)(normal))
    return keras.Model(x, L.Dense(TOKENS)(h))


def class_token_transformer(keras: Any) -> Any:
    """Patches by a convolution, and a classifier on a learned first position."""
    from . import custom_layers as custom

    L = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = custom.ClassToken()(L.Reshape((4, 6))(L.Conv2D(6, 4, 4)(x)))
    normal = L.LayerNormalization(epsilon=1e-6)(h)
    h = h + L.MultiHeadAttention(2, 3)(normal, normal)
    normal = L.LayerNormalization(epsilon=1e-6)(h)
    h = h + L.Dense(6)(L.Dense(12, activation="gelu")(normal))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.LayerNormalization()(h)[:, 0]))


def gated_convolutions(keras: Any) -> Any:
    """Gated linear units of causal convolutions, with scaled residuals."""
    L, ops = keras.layers, keras.ops
    x = keras.Input((12, 3), name="x")
    h = L.Conv1D(5, 1)(x)
    for rate in (1, 2):
        values, gate = ops.split(
            L.Conv1D(10, 3, padding="causal", dilation_rate=rate)(h), 2, axis=-1
        )
        h = (h + values * ops.sigmoid(gate)) * 0.7071
    return keras.Model(x, L.Conv1D(2, 1)(h))


def sensors_of_several_units(keras: Any) -> Any:
    """A series and fixed features in degrees, Pa and shares, normalized in the model."""
    L = keras.layers
    series, fixed = keras.Input((8, 3), name="series"), keras.Input((3,), name="fixed")
    h, f = (
        L.Normalization(mean=[20.0, 101325.0, 0.5], variance=[25.0, 4e5, 0.01])(x)
        for x in (series, fixed)
    )
    h = L.Concatenate()([L.GRU(6)(L.Conv1D(5, 3, activation="relu")(h)), L.Dense(4)(f)])
    return keras.Model([series, fixed], L.Dense(2)(L.Dense(6, activation="relu")(h)))


WORDS = {"values": TOKENS}
PADDED = {"values": TOKENS, "padding": 0.0}


def noise_suppression_step(keras: Any) -> Any:
    """One frame of a spectrum; the states of all layers are one input and one output."""
    import tensorflow as tf

    L = keras.layers
    spectrum, states = keras.Input((1, 9), name="spectrum"), keras.Input((2, 6, 2), name="states")
    h, new_states = tf.math.log(tf.abs(spectrum) + 0.5), []
    for k in range(2):
        state = [states[:, k, :, 0], states[:, k, :, 1]]
        h, *after = L.LSTM(6, return_sequences=True, return_state=True)(h, initial_state=state)
        new_states.append(tf.stack(after, axis=-1))
    mask = L.Dense(9, activation="sigmoid")(h)
    return keras.Model([spectrum, states], [mask, tf.stack(new_states, axis=1)])


# The layers of the model exist in Keras 3 only, or are the user's.
KERAS_3 = {"tf_keras": False}
CUSTOM = {"tf_keras": False, "custom": True}
REPORTED: tuple[tuple[Any, dict[str, Any]], ...] = (
    (seq2seq_training, WORDS),
    (seq2seq_step, WORDS),
    (seq2seq_encoder, PADDED),
    (text_transformer, WORDS | CUSTOM),
    (series_transformer, {}),
    (vision_transformer, CUSTOM),
    (causal_language_model, WORDS | CUSTOM),
    (rotary_attention, WORDS | CUSTOM),
    (grouped_query_attention, KERAS_3),
    (bert_pooler, WORDS),
    (temporal_convolutions, {}),
    (wavenet, {}),
    (next_frame, {}),
    (frames_to_lstm, {}),
    (time_distributed_model, {}),
    (conditional_random_field, WORDS | CUSTOM),
    (conformer, {}),
    (temporal_fusion, CUSTOM),
    (earthquake_transformer, {}),
    (siamese_lstm, PADDED),
    (siamese_images, {}),
    (hierarchical_attention, WORDS | CUSTOM),
    (masked_sum_attention, PADDED | CUSTOM),
    (local_self_attention, WORDS | CUSTOM),
    (speech_recognition, {}),
    (text_recognition, {}),
    (words_and_characters, WORDS),
    (attention_unet, {}),
    (unet_1d, {}),
    (lstm_autoencoder, {}),
    (variational_autoencoder, CUSTOM),
    (convolutions_and_lstm, {}),
    (lstm_fcn, {}),
    (inception_time, {}),
    (residual_network, {}),
    (inverted_residual, {}),
    (dense_block, {}),
    (spatial_attention, KERAS_3),
    (mlp_mixer, KERAS_3),
    (gated_mlp, KERAS_3),
    (fourier_mixing, CUSTOM),
    (perceiver, {}),
    (patch_transformer, KERAS_3),
    (inverted_transformer, {}),
    (basis_expansion, {}),
    (skip_recurrent, {}),
    (image_caption, PADDED),
    (question_about_image, WORDS),
    (recommender, {"values": "tokens"}),
    (interest_network, WORDS | KERAS_3),
    (eeg_network, {}),
    (heartbeat_network, {}),
    (keyword_spotting, {}),
    (noise_suppression_step, {"keras": False}),
    (permuted_attention, {}),
    (repeated_attention, {}),
    (user_cell, CUSTOM),
    (sentiment, PADDED),
    (text_convolutions, WORDS),
    (masked_pooling, PADDED),
    (stacked_forecast, {}),
    (package_attention, KERAS_3),
    (masked_input, {}),
    (weights_times_values, {}),
    (general_attention, WORDS),
    (relative_positions, CUSTOM),
    (rotary_heads, WORDS | CUSTOM),
    (class_token_transformer, CUSTOM),
    (gated_convolutions, KERAS_3),
    (sensors_of_several_units, {"values": "units"}),
)
CASES = in_group(
    "reported",
    [Case(build.__name__.replace("_", " "), build, **options) for build, options in REPORTED],
)
