"""One model for every layer of Keras, and for every option that changes its graph."""

from typing import Any

from .case import WORDS, Case, from_layers, in_group

S = (7, 4)  # steps, features
IMAGE = (8, 9, 3)
VOLUME = (4, 5, 6, 2)
FILM = (5, 6, 6, 2)  # steps, rows, columns, channels
TOKENS = 13


def _activations() -> list[Case]:
    names = (
        *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_softmax"),
        *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign"),
        *("swish", "tanh", "celu", "glu", "hard_silu", "hard_tanh", "log_sigmoid", "sparsemax"),
        *("soft_shrink", "hard_shrink", "tanh_shrink", "squareplus", "sparse_plus"),
    )
    return [
        from_layers(f"Dense {name}", S, lambda L, x, name=name: L.Dense(6, activation=name)(x))
        for name in names
    ]


ADVANCED = [
    from_layers("Activation", S, lambda L, x: L.Activation("tanh")(x)),
    from_layers("ELU", S, lambda L, x: L.ELU(0.7)(x)),
    from_layers("LeakyReLU", S, lambda L, x: L.LeakyReLU(0.2)(x)),
    from_layers("PReLU", S, lambda L, x: L.PReLU()(x)),
    from_layers("PReLU shared_axes", S, lambda L, x: L.PReLU(shared_axes=[1])(x)),
    from_layers("ReLU", S, lambda L, x: L.ReLU(1.5, negative_slope=0.1, threshold=0.3)(x)),
    from_layers("ThresholdedReLU", S, lambda L, x: L.ThresholdedReLU(0.4)(x), keras=False),
    from_layers("Softmax over steps", S, lambda L, x: L.Softmax(axis=1)(x)),
]
ATTENTION = [
    from_layers("Attention", S, lambda L, x: L.Attention()([x, x])),
    from_layers("Attention scaled", S, lambda L, x: L.Attention(use_scale=True)([x, x])),
    from_layers("Attention concat", S, lambda L, x: L.Attention(score_mode="concat")([x, x])),
    from_layers("Attention causal", S, lambda L, x: L.Attention()([x, x], use_causal_mask=True)),
    from_layers(
        "Attention with key", S, lambda L, x: L.Attention()([x, L.Dense(4)(x), L.Dense(4)(x)])
    ),
    from_layers(
        "Attention scores",
        S,
        lambda L, x: L.Attention()([x, x], return_attention_scores=True)[0],
    ),
    from_layers("AdditiveAttention", S, lambda L, x: L.AdditiveAttention()([x, x])),
    from_layers(
        "AdditiveAttention unscaled", S, lambda L, x: L.AdditiveAttention(use_scale=False)([x, x])
    ),
    from_layers(
        "Attention masked",
        (7,),
        lambda L, x: _attended(L, L.Embedding(TOKENS, 4, mask_zero=True)(x)),
        dtype="int32",
        values=TOKENS,
        padding=0,
    ),
    from_layers("MultiHeadAttention", S, lambda L, x: L.MultiHeadAttention(2, 3)(x, x)),
    from_layers(
        "MultiHeadAttention value_dim",
        S,
        lambda L, x: L.MultiHeadAttention(2, 3, value_dim=5, use_bias=False, output_shape=6)(x, x),
    ),
    from_layers(
        "MultiHeadAttention causal",
        S,
        lambda L, x: L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
    ),
    from_layers(
        "MultiHeadAttention two axes",
        (3, 5, 4),
        lambda L, x: L.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x),
    ),
    from_layers(
        "MultiHeadAttention cross",
        S,
        lambda L, x: L.MultiHeadAttention(2, 3)(L.Dense(5)(x), L.MaxPooling1D(2)(x)),
    ),
    from_layers(
        "MultiHeadAttention masked",
        (7,),
        lambda L, x: _heads(L, L.Embedding(TOKENS, 4, mask_zero=True)(x)),
        dtype="int32",
        values=TOKENS,
        padding=0,
    ),
    from_layers("GroupQueryAttention", S, lambda L, x: L.GroupQueryAttention(3, 4, 2)(x, x)),
]


def _attended(L: Any, h: Any) -> Any:
    return L.Attention()([h, h])


def _heads(L: Any, h: Any) -> Any:
    return L.MultiHeadAttention(2, 3)(h, h)


CONVOLUTIONS = [
    from_layers("Conv1D", S, lambda L, x: L.Conv1D(5, 3)(x)),
    from_layers("Conv1D same strides", S, lambda L, x: L.Conv1D(5, 3, 2, padding="same")(x)),
    from_layers(
        "Conv1D causal dilated",
        S,
        lambda L, x: L.Conv1D(5, 3, padding="causal", dilation_rate=2)(x),
    ),
    from_layers("Conv1D groups", S, lambda L, x: L.Conv1D(6, 3, groups=2, use_bias=False)(x)),
    from_layers("Conv2D", IMAGE, lambda L, x: L.Conv2D(5, (3, 2), activation="relu")(x)),
    from_layers(
        "Conv2D same strides", IMAGE, lambda L, x: L.Conv2D(5, 3, (2, 3), padding="same")(x)
    ),
    from_layers("Conv2D dilated", IMAGE, lambda L, x: L.Conv2D(5, 3, dilation_rate=(2, 1))(x)),
    from_layers("Conv2D groups", IMAGE, lambda L, x: L.Conv2D(6, 3, groups=3)(x)),
    from_layers("Conv3D", VOLUME, lambda L, x: L.Conv3D(3, 2)(x)),
    from_layers("Conv3D same strides", VOLUME, lambda L, x: L.Conv3D(3, 2, 2, padding="same")(x)),
    from_layers("Conv1DTranspose", S, lambda L, x: L.Conv1DTranspose(5, 3, 2)(x)),
    from_layers(
        "Conv1DTranspose same", S, lambda L, x: L.Conv1DTranspose(5, 3, 2, padding="same")(x)
    ),
    from_layers(
        "Conv1DTranspose kernel less than stride", S, lambda L, x: L.Conv1DTranspose(5, 1, 2)(x)
    ),
    from_layers(
        "Conv1DTranspose after Conv1D",
        (8, 4),
        lambda L, x: L.Conv1DTranspose(4, 5, 2, padding="same")(
            L.Conv1D(8, 5, 2, padding="same", activation="relu")(x)
        ),
    ),
    from_layers("Conv2DTranspose", IMAGE, lambda L, x: L.Conv2DTranspose(5, 3, (2, 1))(x)),
    from_layers(
        "Conv2DTranspose same", IMAGE, lambda L, x: L.Conv2DTranspose(5, 3, 2, padding="same")(x)
    ),
    from_layers(
        "Conv2DTranspose output_padding",
        IMAGE,
        lambda L, x: L.Conv2DTranspose(5, 3, 2, padding="same", output_padding=1)(x),
    ),
    from_layers("Conv3DTranspose", VOLUME, lambda L, x: L.Conv3DTranspose(3, 2, 2)(x)),
    from_layers("DepthwiseConv1D", S, lambda L, x: L.DepthwiseConv1D(3, depth_multiplier=2)(x)),
    from_layers("DepthwiseConv2D", IMAGE, lambda L, x: L.DepthwiseConv2D(3, padding="same")(x)),
    from_layers(
        "DepthwiseConv2D multiplier",
        IMAGE,
        lambda L, x: L.DepthwiseConv2D(3, 2, depth_multiplier=2)(x),
    ),
    from_layers("SeparableConv1D", S, lambda L, x: L.SeparableConv1D(5, 3, padding="same")(x)),
    from_layers("SeparableConv2D", IMAGE, lambda L, x: L.SeparableConv2D(5, 3)(x)),
    from_layers("LocallyConnected1D", S, lambda L, x: L.LocallyConnected1D(5, 3)(x), keras=False),
    from_layers(
        "LocallyConnected2D", IMAGE, lambda L, x: L.LocallyConnected2D(2, 3)(x), keras=False
    ),
]
CORE = [
    from_layers("Dense of a vector", (5,), lambda L, x: L.Dense(3, use_bias=False)(x)),
    from_layers("Dense of four axes", (2, 3, 5), lambda L, x: L.Dense(4)(x)),
    from_layers(
        "EinsumDense",
        S,
        lambda L, x: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e")(x),
    ),
    from_layers(
        "EinsumDense ellipsis",
        (2, 7, 4),
        lambda L, x: L.EinsumDense("...x,xy->...y", 5, activation="tanh")(x),
    ),
    from_layers(
        "Embedding", (7,), lambda L, x: L.Embedding(TOKENS, 4)(x), dtype="int32", values=TOKENS
    ),
    from_layers(
        "Embedding of floats", (7,), lambda L, x: L.Embedding(TOKENS, 4)(x), values="tokens"
    ),
    from_layers(
        "ReversibleEmbedding",
        (7,),
        lambda L, x: _reversed(L.ReversibleEmbedding(TOKENS, 4, tie_weights=True), x),
        dtype="int32",
        values=TOKENS,
    ),
    from_layers("Identity", S, lambda L, x: L.Identity()(x)),
    from_layers("Masking", S, lambda L, x: L.LSTM(3)(L.Masking(-1.0)(x)), padding=-1.0),
]


def _reversed(layer: Any, x: Any) -> Any:
    return layer(layer(x), reverse=True)


MERGING = [
    from_layers(
        name, S, lambda L, x, name=name: getattr(L, name)()([x, L.Dense(4)(x), L.Dense(4)(x)])
    )
    for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply")
] + [
    from_layers("Subtract", S, lambda L, x: L.Subtract()([x, L.Dense(4)(x)])),
    from_layers("Add broadcast", S, lambda L, x: L.Add()([x, L.Dense(1)(x)])),
    from_layers("Concatenate steps", S, lambda L, x: L.Concatenate(axis=1)([x, L.Dense(4)(x)])),
    from_layers("Dot", S, lambda L, x: L.Dot(axes=(2, 2))([x, L.Dense(4)(x)])),
    from_layers(
        "Dot normalized", S, lambda L, x: L.Dot(axes=1, normalize=True)([x, L.Dense(3)(x)])
    ),
]
NORMALIZATION = [
    from_layers("BatchNormalization", IMAGE, lambda L, x: L.BatchNormalization()(x)),
    from_layers("BatchNormalization axis", IMAGE, lambda L, x: L.BatchNormalization(axis=1)(x)),
    from_layers(
        "BatchNormalization folded",
        IMAGE,
        lambda L, x: L.BatchNormalization(scale=False)(L.Conv2D(4, 3)(x)),
    ),
    from_layers(
        "BatchNormalization without center", S, lambda L, x: L.BatchNormalization(center=False)(x)
    ),
    from_layers("GroupNormalization", IMAGE, lambda L, x: L.GroupNormalization(3)(x)),
    from_layers("GroupNormalization of two", S, lambda L, x: L.GroupNormalization(2)(x)),
    from_layers("LayerNormalization", S, lambda L, x: L.LayerNormalization()(x)),
    from_layers("LayerNormalization axes", S, lambda L, x: L.LayerNormalization(axis=[1, 2])(x)),
    from_layers("LayerNormalization of steps", S, lambda L, x: L.LayerNormalization(axis=1)(x)),
    from_layers("RMSNormalization", S, lambda L, x: L.RMSNormalization()(x)),
    from_layers("SpectralNormalization", S, lambda L, x: L.SpectralNormalization(L.Dense(5))(x)),
    from_layers("UnitNormalization", S, lambda L, x: L.UnitNormalization()(x)),
]
POOLING = [
    *(
        from_layers(
            f"{kind}Pooling{rank}D",
            shape,
            lambda L, x, n=f"{kind}Pooling{rank}D": getattr(L, n)(2)(x),
        )
        for kind in ("Average", "Max")
        for rank, shape in ((1, S), (2, IMAGE), (3, VOLUME))
    ),
    *(
        from_layers(
            f"{kind}Pooling{rank}D same strides",
            shape,
            lambda L, x, n=f"{kind}Pooling{rank}D": getattr(L, n)(3, 2, padding="same")(x),
        )
        for kind in ("Average", "Max")
        for rank, shape in ((1, S), (2, IMAGE))
    ),
    *(
        from_layers(
            f"Global{kind}Pooling{rank}D",
            shape,
            lambda L, x, n=f"Global{kind}Pooling{rank}D": getattr(L, n)()(x),
        )
        for kind in ("Average", "Max")
        for rank, shape in ((1, S), (2, IMAGE), (3, VOLUME))
    ),
    from_layers(
        "GlobalAveragePooling2D keepdims",
        IMAGE,
        lambda L, x: L.GlobalAveragePooling2D(keepdims=True)(x),
    ),
    from_layers(
        "GlobalAveragePooling1D masked",
        (7,),
        lambda L, x: L.GlobalAveragePooling1D()(L.Embedding(TOKENS, 4, mask_zero=True)(x)),
        dtype="int32",
        values=TOKENS,
        padding=0,
    ),
    *(
        from_layers(
            f"Adaptive{kind}Pooling{rank}D",
            shape,
            lambda L, x, n=f"Adaptive{kind}Pooling{rank}D": getattr(L, n)(3)(x),
        )
        for kind in ("Average", "Max")
        for rank, shape in ((1, S), (2, IMAGE), (3, VOLUME))
    ),
]
RESHAPING = [
    from_layers("Cropping1D", S, lambda L, x: L.Cropping1D((1, 2))(x)),
    from_layers("Cropping2D", IMAGE, lambda L, x: L.Cropping2D(((1, 0), (2, 1)))(x)),
    from_layers("Cropping3D", VOLUME, lambda L, x: L.Cropping3D(1)(x)),
    from_layers("Flatten", IMAGE, lambda L, x: L.Dense(2)(L.Flatten()(x))),
    from_layers("Permute", IMAGE, lambda L, x: L.Permute((3, 1, 2))(x)),
    from_layers("RepeatVector", (5,), lambda L, x: L.RepeatVector(3)(x)),
    from_layers("Reshape", S, lambda L, x: L.Reshape((2, -1))(x)),
    from_layers("UpSampling1D", S, lambda L, x: L.UpSampling1D(3)(x)),
    *(
        from_layers(
            f"UpSampling2D {mode}",
            IMAGE,
            lambda L, x, mode=mode: L.UpSampling2D((2, 3), interpolation=mode)(x),
        )
        for mode in ("nearest", "bilinear", "bicubic", "lanczos3")
    ),
    from_layers("UpSampling3D", VOLUME, lambda L, x: L.UpSampling3D(2)(x)),
    from_layers("ZeroPadding1D", S, lambda L, x: L.ZeroPadding1D((1, 2))(x)),
    from_layers("ZeroPadding2D", IMAGE, lambda L, x: L.ZeroPadding2D(((1, 0), (2, 1)))(x)),
    from_layers("ZeroPadding3D", VOLUME, lambda L, x: L.ZeroPadding3D(1)(x)),
]


def _recurrent(kind: str) -> list[Case]:
    options: dict[str, dict[str, Any]] = {
        "": {},
        " sequences": {"return_sequences": True},
        " backwards": {"go_backwards": True, "return_sequences": True},
        " unrolled": {"unroll": True},
        " without bias": {"use_bias": False},
        " relu": {"activation": "relu"},
    }
    if kind != "SimpleRNN":
        options[" hard_sigmoid"] = {"recurrent_activation": "hard_sigmoid"}
    if kind == "GRU":
        options[" reset before"] = {"reset_after": False}
    cases = [
        from_layers(
            kind + text, S, lambda L, x, settings=settings: getattr(L, kind)(5, **settings)(x)
        )
        for text, settings in options.items()
    ]
    cases += [
        from_layers(f"{kind} states", S, lambda L, x: getattr(L, kind)(5, return_state=True)(x)),
        from_layers(
            f"{kind} initial states",
            S,
            lambda L, x: getattr(L, kind)(5)(
                x, initial_state=getattr(L, kind)(5, return_state=True)(x)[1:]
            ),
        ),
        from_layers(
            f"{kind} masked",
            (7,),
            lambda L, x: getattr(L, kind)(5, return_sequences=True)(
                L.Embedding(TOKENS, 4, mask_zero=True)(x)
            ),
            dtype="int32",
            values=TOKENS,
            padding=0,
        ),
        from_layers(
            f"Bidirectional {kind}",
            S,
            lambda L, x: L.Bidirectional(getattr(L, kind)(5, return_sequences=True))(x),
        ),
    ]
    return cases


RECURRENT = [
    *(case for kind in ("LSTM", "GRU", "SimpleRNN") for case in _recurrent(kind)),
    *(
        from_layers(
            f"Bidirectional {mode}",
            S,
            lambda L, x, mode=mode: L.Bidirectional(L.LSTM(3), merge_mode=mode)(x),
        )
        for mode in ("sum", "mul", "ave", None)
    ),
    from_layers(
        "Bidirectional of two layers",
        S,
        lambda L, x: L.Bidirectional(
            L.GRU(3), backward_layer=L.GRU(3, go_backwards=True, name="back")
        )(x),
    ),
    from_layers("RNN LSTMCell", S, lambda L, x: L.RNN(L.LSTMCell(5))(x)),
    from_layers("RNN GRUCell", S, lambda L, x: L.RNN(L.GRUCell(5), return_sequences=True)(x)),
    from_layers("RNN SimpleRNNCell", S, lambda L, x: L.RNN(L.SimpleRNNCell(5))(x)),
    from_layers(
        "StackedRNNCells",
        S,
        lambda L, x: L.RNN(L.StackedRNNCells([L.LSTMCell(5), L.GRUCell(3)]))(x),
    ),
    from_layers("ConvLSTM1D", (5, 6, 2), lambda L, x: L.ConvLSTM1D(3, 3)(x)),
    from_layers("ConvLSTM2D", FILM, lambda L, x: L.ConvLSTM2D(3, 3, padding="same")(x)),
    from_layers(
        "ConvLSTM2D sequences", FILM, lambda L, x: L.ConvLSTM2D(3, 2, return_sequences=True)(x)
    ),
    from_layers("ConvLSTM3D", (2, 3, 4, 4, 2), lambda L, x: L.ConvLSTM3D(2, 2)(x)),
    from_layers("TimeDistributed Dense", FILM, lambda L, x: L.TimeDistributed(L.Dense(3))(x)),
    from_layers("TimeDistributed Conv2D", FILM, lambda L, x: L.TimeDistributed(L.Conv2D(3, 3))(x)),
    from_layers("TimeDistributed LSTM", (3, 7, 4), lambda L, x: L.TimeDistributed(L.LSTM(3))(x)),
    from_layers("LSTM of a free length", (None, 4), lambda L, x: L.LSTM(5)(x), time_steps=6),
    from_layers("LSTM dropout", S, lambda L, x: L.LSTM(5, dropout=0.2, recurrent_dropout=0.2)(x)),
]
REGULARIZATION = [
    from_layers(
        kind, S, lambda L, x, kind=kind, values=values: L.Dense(3)(getattr(L, kind)(*values)(x))
    )
    for kind, values in {
        "Dropout": (0.5,),
        "SpatialDropout1D": (0.5,),
        "GaussianDropout": (0.5,),
        "GaussianNoise": (0.5,),
        "AlphaDropout": (0.5,),
        "ActivityRegularization": (0.1, 0.1),
    }.items()
] + [
    from_layers("SpatialDropout2D", IMAGE, lambda L, x: L.Dense(2)(L.SpatialDropout2D(0.5)(x))),
    from_layers("SpatialDropout3D", VOLUME, lambda L, x: L.Dense(2)(L.SpatialDropout3D(0.5)(x))),
]


def _normalization(L: Any, invert: bool) -> Any:
    return L.Normalization(mean=[0.5, 1.0, -1.0, 2.0], variance=[1.0, 4.0, 0.5, 2.0], invert=invert)


PREPROCESSING = [
    from_layers("Normalization", S, lambda L, x: _normalization(L, False)(x)),
    from_layers("Normalization inverted", S, lambda L, x: _normalization(L, True)(x)),
    from_layers("Rescaling", IMAGE, lambda L, x: L.Rescaling(1 / 127.5, -1.0)(x), values="pixels"),
    from_layers("Resizing", IMAGE, lambda L, x: L.Resizing(4, 5)(x), values="pixels"),
    from_layers(
        "Resizing nearest", IMAGE, lambda L, x: L.Resizing(12, 5, "nearest")(x), values="pixels"
    ),
    from_layers("CenterCrop", IMAGE, lambda L, x: L.CenterCrop(4, 5)(x), values="pixels"),
    *(
        from_layers(
            f"CategoryEncoding {mode}",
            (4,),
            lambda L, x, mode=mode: L.Dense(2)(L.CategoryEncoding(6, output_mode=mode)(x)),
            dtype="int32",
            values=6,
        )
        for mode in ("multi_hot", "count")
    ),
    from_layers(
        "CategoryEncoding one_hot",
        (1,),
        lambda L, x: L.Dense(2)(L.CategoryEncoding(6, output_mode="one_hot")(x)),
        dtype="int32",
        values=6,
        # The model has six different samples, none of which is left for the reference.
        schemes=("float32", "float16", "dynamic_int8"),
    ),
    from_layers(
        "Discretization",
        (4,),
        lambda L, x: L.Embedding(4, 3)(L.Discretization([-0.5, 0.0, 0.7])(x)),
    ),
    from_layers(
        "Hashing",
        (4,),
        lambda L, x: L.Embedding(5, 3)(L.Hashing(5, name="look")(x)),
        dtype="int64",
        values=50,
        first_layers=("look",),
    ),
    from_layers(
        "IntegerLookup",
        (4,),
        lambda L, x: L.Embedding(6, 3)(L.IntegerLookup(vocabulary=[2, 5, 7, 9], name="look")(x)),
        dtype="int64",
        values=10,
        first_layers=("look",),
    ),
    from_layers(
        "StringLookup",
        (4,),
        lambda L, x: L.Embedding(9, 3)(L.StringLookup(vocabulary=list(WORDS[:6]), name="look")(x)),
        dtype="string",
        first_layers=("look",),
    ),
    from_layers(
        "TextVectorization",
        (1,),
        lambda L, x: L.LSTM(3)(
            L.Embedding(9, 3)(
                L.TextVectorization(
                    output_sequence_length=4, vocabulary=list(WORDS[:6]), name="look"
                )(x)
            )
        ),
        dtype="string",
        values="phrases",
        first_layers=("look",),
    ),
    from_layers(
        "MelSpectrogram",
        (320,),
        lambda L, x: L.Flatten()(
            L.MelSpectrogram(
                fft_length=64, sequence_stride=32, sampling_rate=1000, num_mel_bins=5, min_freq=20
            )(x)
        ),
    ),
    from_layers(
        "STFTSpectrogram",
        (160, 1),
        lambda L, x: L.Dense(2)(
            L.STFTSpectrogram("magnitude", frame_length=32, frame_step=16, fft_length=32)(x)
        ),
    ),
    *(
        from_layers(
            f"Random{kind}",
            IMAGE,
            lambda L, x, kind=kind, values=values: L.Conv2D(2, 3)(
                getattr(L, f"Random{kind}")(*values)(x)
            ),
        )
        for kind, values in {
            "Flip": (),
            "Rotation": (0.1,),
            "Zoom": (0.1,),
            "Translation": (0.1, 0.1),
            "Contrast": (0.1,),
            "Brightness": (0.1,),
            "Crop": (6, 6),
            "Shear": (0.1,),
            "Perspective": (),
            "Hue": (0.1,),
            "Saturation": (0.1,),
            "Sharpness": (0.1,),
            "ElasticTransform": (),
            "Erasing": (),
            "GaussianBlur": (),
            "Height": (0.1,),
        }.items()
    ),
    from_layers("Solarization", IMAGE, lambda L, x: L.Solarization()(x), values="pixels"),
    from_layers("AutoContrast", IMAGE, lambda L, x: L.AutoContrast()(x), values="pixels"),
]


def _nested(keras: Any) -> Any:
    inner_x = keras.Input(S)
    inner = keras.Model(inner_x, keras.layers.LSTM(5, return_sequences=True)(inner_x))
    x = keras.Input(S, name="x")
    return keras.Model(x, keras.layers.Dense(2)(inner(inner(keras.layers.Dense(4)(x))[..., :4])))


def _shared(keras: Any) -> Any:
    left, right = keras.Input(S, name="left"), keras.Input(S, name="right")
    encoder = keras.layers.GRU(5)
    return keras.Model([left, right], keras.layers.Concatenate()([encoder(left), encoder(right)]))


def _two_outputs(keras: Any) -> Any:
    x = keras.Input(S, name="x")
    h = keras.layers.LSTM(5)(x)
    return keras.Model(
        x, [keras.layers.Dense(2, name="zeta")(h), keras.layers.Dense(2, name="alpha")(h)]
    )


def _dictionary(keras: Any) -> Any:
    x = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
    h = keras.layers.Concatenate()([x["a"], x["b"]])
    return keras.Model(x, {"one": keras.layers.Dense(2)(h), "two": keras.layers.Dense(3)(h)})


def _sequential(keras: Any) -> Any:
    return keras.Sequential(
        [keras.Input(S, name="x"), keras.layers.LSTM(5), keras.Sequential([keras.layers.Dense(2)])]
    )


STRUCTURE = [
    Case("nested model called twice", _nested),
    Case("shared layer, two inputs", _shared),
    Case("two outputs", _two_outputs),
    Case("dictionaries of inputs and outputs", _dictionary),
    Case("Sequential in Sequential", _sequential),
    from_layers(
        "mixed precision",
        S,
        lambda L, x: L.Dense(3, dtype="mixed_float16")(x),
        precision="float16",
    ),
]
CASES = in_group(
    "layers",
    [
        *CORE,
        *ADVANCED,
        *ATTENTION,
        *CONVOLUTIONS,
        *MERGING,
        *NORMALIZATION,
        *POOLING,
        *RESHAPING,
        *RECURRENT,
        *REGULARIZATION,
        *PREPROCESSING,
        *STRUCTURE,
        *_activations(),
    ],
)
