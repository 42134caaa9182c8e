"""Files of Keras 2.0 to tf_keras; WANTED lists the files of each version.

Python 3.6   pip install keras==2.0.9 (2.1.6, 2.2.4) tensorflow==1.13.2 "h5py<3" "numpy<1.17" "protobuf<3.18" scipy pyyaml
             python make_keras2.py keras
Python 3.7   pip install keras==2.3.1 tensorflow==1.15.5 "h5py<3" "numpy<1.19" "protobuf<3.20" scipy pyyaml
             python make_keras2.py keras;  python make_keras2.py tf.keras
Python 3.8   pip install tensorflow-cpu==2.3.4 "h5py<3" "protobuf<3.20";   python make_keras2.py tf.keras
Python 3.9   pip install tensorflow-cpu==2.8.4 "numpy<1.24" "protobuf<3.20" "h5py<3.10";   python make_keras2.py tf.keras
Python 3.11  pip install tensorflow-cpu==2.15.1;   python make_keras2.py tf.keras
Python 3.11  pip install tensorflow-cpu==2.16.2 tf_keras==2.16.0;   python make_keras2.py tf_keras
Python 3.13  pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0;   python make_keras2.py tf_keras
"""

import collections
import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import bank

WHICH = sys.argv[1]
if WHICH == "keras":
    import keras

    VERSION = keras.__version__
    NAME = "keras-" + VERSION
elif WHICH == "tf_keras":
    import tf_keras as keras

    VERSION = keras.__version__
    NAME = "tf_keras-" + VERSION
else:
    keras = tf.keras
    VERSION = getattr(keras, "__version__", None) or __import__("keras").__version__
    NAME = "tf" + ".".join(tf.__version__.split(".")[:2])
K, layers = keras.backend, keras.layers
Input, Model, Sequential = layers.Input, keras.models.Model, keras.models.Sequential
ERA = bank.Era(NAME, keras, tf.__version__, keras_name=WHICH, keras_version=VERSION)

T, FEATURES, HIDDEN, ANSWERS, WORD_COUNT = 7, 2, 5, 3, 17
X = bank.numbers(31, bank.ROWS, T, FEATURES)
Y = bank.numbers(32, bank.ROWS, T, FEATURES)
WORDS = bank.padded_words(33, bank.ROWS, T, WORD_COUNT, (7, 5, 3, 1, 6, 2, 4) * 2)
CATALOGUE = collections.OrderedDict()


def specimen(*exercises, **options):
    def register(build):
        CATALOGUE[build.__name__] = (build, list(exercises), options)
        return build

    return register


def sequence():
    return Input(shape=(T, FEATURES))


@specimen(
    "Sequential",
    "LSTM with the default recurrent_activation of its version",
    "Dropout",
    "compiled with Adam",
)
def lstm_sequential():
    model = Sequential()
    model.add(
        layers.LSTM(
            HIDDEN,
            input_shape=(T, FEATURES),
            return_sequences=True,
            dropout=0.2,
            recurrent_dropout=0.1,
        )
    )
    model.add(layers.Dropout(0.3))
    model.add(layers.LSTM(ANSWERS))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model, X


@specimen("hard_sigmoid in LSTM, GRU, Dense, Activation", "Sequential")
def hard_sigmoid():
    model = Sequential()
    model.add(
        layers.LSTM(
            HIDDEN,
            input_shape=(T, FEATURES),
            return_sequences=True,
            recurrent_activation="hard_sigmoid",
        )
    )
    model.add(layers.GRU(ANSWERS, return_sequences=True, recurrent_activation="hard_sigmoid"))
    model.add(layers.TimeDistributed(layers.Dense(HIDDEN, activation="hard_sigmoid")))
    model.add(layers.SimpleRNN(HIDDEN, activation="hard_sigmoid"))
    model.add(layers.Dense(ANSWERS))
    model.add(layers.Activation("hard_sigmoid"))
    return model, X


@specimen("GRU with the default reset_after of its version", "batch_input_shape")
def gru_default():
    model = Sequential()
    model.add(layers.GRU(HIDDEN, batch_input_shape=(None, T, FEATURES)))
    model.add(layers.Dense(ANSWERS, activation="softmax"))
    return model, X


@specimen("GRU reset_after=True and False", "stateful=False fixed batch")
def gru_both():
    x = Input(batch_shape=(bank.ROWS, T, FEATURES))
    h = layers.GRU(HIDDEN, reset_after=True, return_sequences=True, recurrent_activation="sigmoid")(x)
    return Model(x, layers.GRU(ANSWERS, reset_after=False, recurrent_activation="hard_sigmoid")(h)), X


@specimen(
    "Embedding mask_zero",
    "right padding",
    "LSTM",
    "mask of GlobalAveragePooling1D",
)
def masked_words():
    words = Input(shape=(T,))
    h = layers.Embedding(WORD_COUNT, FEATURES, mask_zero=True)(words)
    h = layers.LSTM(HIDDEN, return_sequences=True)(h)
    last = layers.LSTM(ANSWERS)(h)
    if WHICH == "keras" and VERSION < "2.2":  # no pooling over masks then
        return Model(words, last), WORDS
    return Model(words, layers.Concatenate()([last, layers.GlobalAveragePooling1D()(h)])), WORDS


@specimen("Masking", "padding at the end, in front and in the middle", "LSTM", "Bidirectional")
def masking():
    x = sequence()
    h = layers.Masking(mask_value=-1.0)(x)
    h = layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True))(h)
    data = X.copy()
    data[1, 4:], data[3, :2], data[5, 3] = -1, -1, -1
    return Model(x, layers.LSTM(ANSWERS)(h)), data


@specimen("Bidirectional sum mul ave concat None", "GRU", "LSTM")
def bidirectional():
    x = sequence()
    both = [layers.Bidirectional(layers.LSTM(2), merge_mode=m)(x) for m in ("sum", "mul")]
    both += [layers.Bidirectional(layers.GRU(2), merge_mode=m)(x) for m in ("ave", "concat")]
    apart = layers.Bidirectional(layers.LSTM(2), merge_mode=None)(x)
    return Model(
        x,
        [
            layers.Concatenate()(both),
            layers.Subtract()(list(apart)) if hasattr(layers, "Subtract") else layers.Add()(list(apart)),
        ],
    ), X


@specimen(
    "Conv1D same causal dilated",
    "BatchNormalization",
    "MaxPooling1D",
    "AveragePooling1D",
    "GlobalMaxPooling1D",
    "SeparableConv1D",
    "ZeroPadding1D",
    "LeakyReLU",
    "PReLU",
    "ELU",
)
def conv():
    x = sequence()
    h = layers.Conv1D(HIDDEN, 3, padding="same", activation="relu")(x)
    h = layers.BatchNormalization()(h)
    h = layers.MaxPooling1D(2, padding="same")(h)
    h = layers.Conv1D(ANSWERS, 2, padding="causal", dilation_rate=2)(layers.ZeroPadding1D((1, 2))(h))
    h = layers.ELU(alpha=0.7)(layers.PReLU(shared_axes=[1])(layers.LeakyReLU(alpha=0.2)(h)))
    pooled = layers.AveragePooling1D(2)(h)
    return Model(x, layers.Concatenate()([layers.GlobalMaxPooling1D()(h), layers.Flatten()(pooled)])), X


@specimen("Add Multiply Average Maximum Concatenate Dot", "shared layer", "two inputs", "three outputs")
def merges():
    a, b = Input(shape=(T, FEATURES), name="left"), Input(shape=(T, FEATURES), name="right")
    shared = layers.LSTM(HIDDEN, return_sequences=True, name="shared")
    p, q = shared(a), shared(b)
    joined = layers.Concatenate()([layers.Add()([p, q]), layers.Multiply()([p, q])])
    scores = layers.Dot(axes=(2, 2), normalize=True)([p, q])
    other = layers.Concatenate()([layers.Average()([p, q]), layers.Maximum()([p, q])])
    outputs = [
        layers.Dense(2, name="third")(layers.GlobalMaxPooling1D()(joined)),
        layers.GRU(ANSWERS, name="first")(scores),
        layers.Dense(1, name="second")(layers.Flatten()(other)),
    ]
    return Model([a, b], outputs), {"left": X, "right": Y}


def nest(inner_alone):
    inner = Sequential(name="inner")
    inner.add(layers.LSTM(HIDDEN, input_shape=(T, FEATURES), return_sequences=True))
    inner.add(layers.Conv1D(ANSWERS, 3))
    deep_in = sequence()
    deep = Model(deep_in, layers.GlobalMaxPooling1D()(inner(deep_in)), name="deep")
    a, b = Input(shape=(T, FEATURES), name="before"), Input(shape=(T, FEATURES), name="after")
    parts = [deep(a), deep(b)] + ([layers.Flatten()(inner(b))] if inner_alone else [])
    return Model([a, b], layers.Dense(ANSWERS)(layers.Concatenate()(parts))), {
        "before": X,
        "after": Y,
    }


@specimen("Sequential in a functional model in a functional model", "shared model", "two inputs")
def nested_shared():
    return nest(inner_alone=False)


@specimen("a model used alone and inside another model", "cannot be loaded by its version", "two inputs")
def nested_unreadable():
    return nest(inner_alone=True)


@specimen(
    "attention of the original repository over time",
    "Permute",
    "RepeatVector",
    "Lambda mean",
    "Multiply",
)
def attention_over_time():
    x = sequence()
    hidden = layers.LSTM(HIDDEN, return_sequences=True)(x)
    a = layers.Permute((2, 1))(hidden)
    a = layers.Dense(T, activation="softmax")(a)
    a = layers.Lambda(lambda x: K.mean(x, axis=1), name="dim_reduction")(a)
    a = layers.RepeatVector(HIDDEN)(a)
    weights = layers.Permute((2, 1), name="attention_vec")(a)
    context = layers.Multiply(name="attention_mul")([hidden, weights])
    return Model(x, layers.Dense(ANSWERS)(layers.Flatten()(context))), X


@specimen(
    "attention over features",
    "Dense softmax",
    "Multiply",
    "Lambda sum",
    "Flatten",
    "RepeatVector",
    "Permute",
)
def attention_dense():
    x = sequence()
    hidden = layers.Bidirectional(layers.GRU(HIDDEN, return_sequences=True))(x)
    score = layers.Flatten()(layers.TimeDistributed(layers.Dense(1, activation="tanh"))(hidden))
    weights = layers.Activation("softmax", name="attention")(score)
    weights = layers.Permute((2, 1))(layers.RepeatVector(2 * HIDDEN)(weights))
    context = layers.Lambda(lambda x: K.sum(x, axis=1), name="weighted_sum")(layers.Multiply()([hidden, weights]))
    return Model(x, layers.Dense(ANSWERS)(context)), X


@specimen("encoder and decoder", "return_state", "initial_state", "LSTM", "GRU", "two inputs")
def encoder_decoder():
    a, b = Input(shape=(T, FEATURES), name="source"), Input(shape=(T, FEATURES), name="target")
    _, h, c = layers.LSTM(HIDDEN, return_state=True)(a)
    d = layers.LSTM(HIDDEN, return_sequences=True)(b, initial_state=[h, c])
    g = layers.GRU(HIDDEN, go_backwards=True)(d, initial_state=c)
    return Model([a, b], layers.Dense(ANSWERS)(g)), {"source": X, "target": Y}


@specimen("layer names with slashes")
def slashes():
    x = Input(shape=(T, FEATURES), name="in")
    h = layers.LSTM(HIDDEN, return_sequences=True, name="encoder/lstm")(x)
    h = layers.LSTM(ANSWERS, name="encoder/lstm/second")(h)
    return Model(x, layers.Dense(ANSWERS, name="head/dense")(h)), X


def focal_loss_of_a_paper(y_true, y_pred):
    return K.mean(K.square(y_true - y_pred) * K.abs(y_true))


def r_squared(y_true, y_pred):
    return 1 - K.sum(K.square(y_true - y_pred)) / K.sum(K.square(y_true - K.mean(y_true)))


@specimen("unknown loss and metric")
def unknown_loss():
    x = sequence()
    model = Model(x, layers.Dense(ANSWERS)(layers.LSTM(HIDDEN)(x)))
    model.compile("adam", focal_loss_of_a_paper, metrics=["mae", r_squared])
    return model, X


@specimen("weights only", "the architecture is in weights_only.json", weights=True)
def weights_only():
    x = sequence()
    return Model(x, layers.Dense(ANSWERS)(layers.GRU(HIDDEN)(x))), X


@specimen("one training step", "optimizer state")
def trained():
    x = sequence()
    model = Model(x, layers.Dense(1)(layers.LSTM(HIDDEN)(x)))
    bank.randomise(model, 77)
    model.compile("rmsprop", "mse")
    model.fit(X, np.ones((bank.ROWS, 1), "float32"), epochs=1, verbose=0)
    return model, X


@specimen(
    "raw TensorFlow operations in a functional model",
    "slice",
    "matmul",
    "softmax",
    "expand_dims",
    "reduce_sum",
    "x * y",
    "x + y",
    "1 - x",
    "transpose",
    "concat",
)
def raw_operations():
    x = sequence()
    h = layers.LSTM(HIDDEN, return_sequences=True)(x)
    last = h[:, -1, :]
    score = tf.squeeze(tf.matmul(layers.Dense(HIDDEN, use_bias=False)(h), tf.expand_dims(last, -1)), axis=-1)
    weights = tf.nn.softmax(score, name="weights")
    context = tf.reduce_sum(h * tf.expand_dims(weights, 2), axis=1)
    both = tf.concat([context + last, 1.0 - last], axis=-1)
    mean = tf.reduce_mean(tf.transpose(h, [0, 2, 1]), axis=-1, keepdims=True)
    return Model(x, [layers.Dense(ANSWERS)(tf.tanh(both) / 2.0), mean]), X


@specimen(
    "built-in Attention",
    "AdditiveAttention",
    "LayerNormalization",
    "Embedding mask_zero",
    "MultiHeadAttention",
)
def builtin_attention():
    words = Input(shape=(T,))
    h = layers.Embedding(WORD_COUNT, FEATURES, mask_zero=True)(words)
    h = layers.LSTM(HIDDEN, return_sequences=True)(h)
    a = layers.Attention(use_scale=True)([h, h])
    b = layers.AdditiveAttention()([h, h])
    h = layers.LayerNormalization()(layers.Concatenate()([a, b]))
    if hasattr(layers, "MultiHeadAttention"):
        h = layers.MultiHeadAttention(2, 3, dropout=0.1)(h, h)
    return Model(words, layers.Dense(ANSWERS)(layers.GlobalMaxPooling1D()(h))), WORDS


@specimen("RNN of stacked cells", "LSTMCell", "GRUCell", "unroll", "time_major in the config")
def cells():
    x = sequence()
    h = layers.RNN([layers.LSTMCell(HIDDEN), layers.GRUCell(ANSWERS)], return_sequences=True)(x)
    return Model(x, layers.LSTM(HIDDEN, unroll=True, implementation=1)(h)), X


@specimen("SavedModel folder")
def saved_folder():
    model = Sequential()
    model.add(layers.Dense(ANSWERS, input_shape=(HIDDEN,), activation="tanh"))
    return model, bank.numbers(34, bank.ROWS, HIDDEN)


WANTED = {  # folder -> the .h5 files; then the .keras files
    "keras-2.0.9": ("lstm_sequential gru_default hard_sigmoid masked_words weights_only", ""),
    "keras-2.1.6": ("gru_both attention_over_time", ""),
    "keras-2.2.4": (
        "lstm_sequential masking bidirectional conv merges nested_shared attention_dense encoder_decoder "
        "unknown_loss slashes",
        "",
    ),
    "keras-2.3.1": ("hard_sigmoid masked_words", ""),
    "tf1.15": ("lstm_sequential gru_default attention_dense builtin_attention", ""),
    "tf2.3": ("gru_default raw_operations", ""),
    "tf2.8": ("hard_sigmoid gru_default raw_operations encoder_decoder", ""),
    "tf2.15": (
        "nested_shared nested_unreadable cells unknown_loss weights_only",
        "lstm_sequential nested_shared builtin_attention",
    ),
    "tf_keras-2.16.0": ("", "lstm_sequential"),
    "tf_keras-2.21.0": ("masked_words", "hard_sigmoid nested_shared"),
}

for number, name in enumerate(CATALOGUE):
    suffixes = [s for s, names in zip((".h5", ".keras"), WANTED[NAME]) if name in names.split()]
    if name == "saved_folder" and NAME == "tf2.15":
        suffixes = [""]
    if not suffixes:
        continue
    build, exercises, options = CATALOGUE[name]
    K.clear_session()
    model, inputs = build()
    seed = None if name == "trained" else 1000 + number
    if options.get("weights"):
        ERA.keep(model, name, inputs, exercises, seed=seed, save=model.save_weights, reload=False)
        with open(os.path.join(ERA.folder, name + ".json"), "w") as f:
            f.write(model.to_json())
    else:
        ERA.keep(model, name, inputs, exercises, suffixes, seed=seed)
