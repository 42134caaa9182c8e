"""Files of Keras 3.0, 3.3, 3.10 and 3.15 (.keras and .h5); WANTED lists the files of each version.

    Python 3.11  pip install tensorflow-cpu==2.16.2 keras==3.0.5 (then 3.3.3)
    Python 3.12  pip install tensorflow-cpu==2.17.1 keras==3.10.0
    Python 3.13  pip install tensorflow-cpu==2.21.0 keras==3.15.1
    python make_keras3.py

With `pip install --no-deps attention==5.0.0` in the environment of 3.10.0 it also saves models with the layer of that package.
"""

import collections
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Model, Sequential, layers, ops

import bank

NAME = "keras-" + keras.__version__
ERA = bank.Era(NAME, keras, tf.__version__)
T, FEATURES, HIDDEN, ANSWERS, WORD_COUNT = 7, 2, 5, 3, 17
X = bank.numbers(51, bank.ROWS, T, FEATURES)
Y = bank.numbers(52, bank.ROWS, T, FEATURES)
WORDS = bank.padded_words(53, bank.ROWS, T, WORD_COUNT, (7, 5, 3, 1, 6, 2, 4) * 2)
CATALOGUE = collections.OrderedDict()


def specimen(*exercises, **options):
    def register(build):
        CATALOGUE[build.__name__] = (build, list(exercises), options)
        return build

    return register


@specimen("Sequential", "batch_shape", "LSTM", "GRU reset_after", "Dropout", "compiled with Adam")
def sequential():
    model = Sequential(
        [
            Input((T, FEATURES)),
            layers.LSTM(HIDDEN, return_sequences=True),
            layers.Dropout(0.2),
            layers.GRU(ANSWERS),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model, X


@specimen("hard_sigmoid of Keras 3 in LSTM, GRU reset_after=False, Dense")
def hard_sigmoid():
    x = Input((T, FEATURES))
    h = layers.LSTM(HIDDEN, return_sequences=True, recurrent_activation="hard_sigmoid")(x)
    h = layers.GRU(ANSWERS, reset_after=False, recurrent_activation="hard_sigmoid")(h)
    return Model(x, layers.Dense(ANSWERS, activation="hard_sigmoid")(h)), X


@specimen("Embedding mask_zero", "right padding", "LSTM", "GlobalAveragePooling1D over a mask")
def masked_words():
    words = Input((T,))
    h = layers.LSTM(HIDDEN, return_sequences=True)(layers.Embedding(WORD_COUNT, FEATURES, mask_zero=True)(words))
    return Model(words, layers.Concatenate()([layers.LSTM(ANSWERS)(h), layers.GlobalAveragePooling1D()(h)])), WORDS


@specimen("Masking", "Bidirectional", "padding at the end, in front and in the middle")
def masking():
    x = Input((T, FEATURES))
    h = layers.Bidirectional(layers.LSTM(HIDDEN))(layers.Masking(mask_value=-1.0)(x))
    data = X.copy()
    data[1, 4:], data[3, :2], data[5, 3] = -1, -1, -1
    return Model(x, layers.Dense(ANSWERS)(h)), data


@specimen(
    "built-in Attention dot and concat",
    "AdditiveAttention",
    "MultiHeadAttention",
    "LayerNormalization",
    "score_mode dot, which Keras 3.15 replaces with a function",
)
def builtin_attention():
    x = Input((T, FEATURES))
    h = layers.GRU(HIDDEN, return_sequences=True)(x)
    a = layers.Attention(use_scale=True)([h, h])
    b = layers.Attention(score_mode="concat")([h, h])
    c = layers.AdditiveAttention()([h, h])
    d = layers.MultiHeadAttention(2, 3)(h, h)
    h = layers.LayerNormalization()(layers.Concatenate()([a, b, c, d]))
    return Model(x, layers.Dense(ANSWERS)(layers.GlobalMaxPooling1D()(h))), X


@specimen(
    "built-in Attention dot",
    "AdditiveAttention",
    "score_mode dot, which Keras 3.15 replaces with a function",
)
def dot_attention():
    x = Input((T, FEATURES))
    h = layers.GRU(HIDDEN, return_sequences=True)(x)
    h = layers.Concatenate()([layers.Attention(use_scale=True)([h, h]), layers.AdditiveAttention()([h, h])])
    return Model(x, layers.Dense(ANSWERS)(layers.GlobalMaxPooling1D()(h))), X


@specimen("x + y in a functional model", "LSTM", "GRU")
def addition():
    x = Input((T, FEATURES))
    return Model(x, layers.Dense(ANSWERS)(layers.LSTM(HIDDEN)(x) + layers.GRU(HIDDEN)(x))), X


@specimen("x + y, x * y and 1 - x in a functional model", "LSTM")
def operators():
    x = Input((T, FEATURES))
    p, q = layers.LSTM(HIDDEN)(x), layers.GRU(HIDDEN)(x)
    return Model(x, layers.Dense(ANSWERS)((p + q) * (1.0 - q) / 2.0 - p)), X


@specimen(
    "keras.ops in a functional model",
    "slice",
    "expand_dims",
    "squeeze",
    "softmax",
    "matmul",
    "sum",
    "transpose",
)
def operations():
    x = Input((T, FEATURES))
    h = layers.LSTM(HIDDEN, return_sequences=True)(x)
    last = h[:, -1, :]
    score = ops.squeeze(ops.matmul(layers.Dense(HIDDEN, use_bias=False)(h), ops.expand_dims(last, -1)), axis=-1)
    weights = ops.softmax(score)
    context = ops.sum(h * ops.expand_dims(weights, 2), axis=1)
    mean = ops.mean(ops.transpose(h, [0, 2, 1]), axis=-1)
    return Model(x, [layers.Dense(ANSWERS)(ops.tanh(ops.concatenate([context, last], axis=-1))), mean]), X


@specimen("nested model", "shared layer", "two inputs", "two outputs", "Add Multiply Dot Concatenate")
def several():
    deep_in = Input((T, FEATURES))
    deep = Model(
        deep_in,
        layers.Conv1D(ANSWERS, 3)(layers.LSTM(HIDDEN, return_sequences=True)(deep_in)),
        name="deep",
    )
    a, b = Input((T, FEATURES), name="left"), Input((T, FEATURES), name="right")
    p, q = deep(a), deep(b)
    joined = layers.Concatenate()([layers.Add()([p, q]), layers.Multiply()([p, q])])
    scores = layers.Flatten()(layers.Dot(axes=(2, 2))([p, q]))
    return Model(
        [a, b],
        [
            layers.Dense(ANSWERS, name="second")(scores),
            layers.Dense(2, name="first")(layers.GlobalMaxPooling1D()(joined)),
        ],
    ), {"left": X, "right": Y}


@specimen("Bidirectional mul ave None", "LSTM", "GRU")
def bidirectional():
    x = Input((T, FEATURES))
    a = layers.Bidirectional(layers.LSTM(ANSWERS), merge_mode="mul")(x)
    b = layers.Bidirectional(layers.GRU(ANSWERS), merge_mode="ave")(x)
    return Model(
        x,
        layers.Subtract()([a, b])
        + layers.Subtract()(list(layers.Bidirectional(layers.GRU(ANSWERS), merge_mode=None)(x))),
    ), X


@specimen(
    "Conv1D causal",
    "BatchNormalization",
    "MaxPooling1D",
    "TimeDistributed",
    "LeakyReLU negative_slope",
    "Permute",
)
def conv():
    x = Input((T, FEATURES))
    h = layers.BatchNormalization()(layers.Conv1D(HIDDEN, 3, padding="causal")(x))
    h = layers.MaxPooling1D(2)(layers.LeakyReLU(negative_slope=0.2)(h))
    h = layers.Permute((2, 1))(layers.TimeDistributed(layers.Dense(ANSWERS))(h))
    return Model(x, layers.Dense(ANSWERS)(layers.Flatten()(h))), X


@specimen("encoder and decoder", "return_state", "initial_state", "two inputs")
def encoder_decoder():
    a, b = Input((T, FEATURES), name="source"), Input((T, FEATURES), name="target")
    _, h, c = layers.LSTM(HIDDEN, return_state=True)(a)
    d = layers.LSTM(HIDDEN, return_sequences=True)(b, initial_state=[h, c])
    return Model([a, b], layers.Dense(ANSWERS)(layers.GRU(HIDDEN, go_backwards=True)(d, initial_state=c))), {
        "source": X,
        "target": Y,
    }


def loss_of_a_paper(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred) * ops.abs(y_true))


@specimen("unknown loss and metric", "one training step", "optimizer state")
def unknown_loss():
    model = Sequential([Input((T, FEATURES)), layers.LSTM(HIDDEN), layers.Dense(ANSWERS)])
    bank.randomise(model, 88)
    model.compile("sgd", loss_of_a_paper, metrics=[loss_of_a_paper])
    model.fit(X, np.ones((bank.ROWS, ANSWERS), "float32"), epochs=1, verbose=0)
    return model, X


@keras.saving.register_keras_serializable("a_package_of_someone")
class TimeAttention(layers.Layer):
    """A common custom attention layer: scores from one weight vector, then a weighted sum over time."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1), name="att_weight")
        self.b = self.add_weight(shape=(shape[1], 1), name="att_bias")

    def call(self, x):
        return ops.sum(x * ops.softmax(ops.tanh(ops.matmul(x, self.w) + self.b), axis=1), axis=1)


@specimen("unknown custom layer class: att_weight, att_bias, softmax over time")
def custom_layer():
    return Sequential(
        [
            Input((T, FEATURES)),
            layers.LSTM(HIDDEN, return_sequences=True),
            TimeAttention(),
            layers.Dense(ANSWERS),
        ]
    ), X


@specimen("weights only", "the architecture is in weights_only.json")
def weights_only():
    return Sequential([Input((T, FEATURES)), layers.GRU(HIDDEN), layers.Dense(ANSWERS)]), X


def package_layer():
    """Return the layer of the package with the __call__ of Layer, because its own fails under Keras 3 when a model is called."""
    import attention

    return type(
        "Attention",
        (attention.Attention,),
        {"__call__": layers.Layer.__call__, "__module__": "attention.attention"},
    )


@specimen("package attention 5.0.0 under Keras 3", "layer class Attention", "luong")
def attention_luong():
    x = Input((T, FEATURES))
    h = layers.LSTM(HIDDEN, return_sequences=True)(x)
    model = Model(x, layers.Dense(2)(package_layer()(ANSWERS)(h)))
    model.predict(X, verbose=0)  # only real numbers make its inner layers get their weights
    return model, X


WANTED = {  # folder -> the .h5 files; then the .keras files
    "keras-3.0.5": ("dot_attention", "sequential operators"),
    "keras-3.3.3": ("sequential dot_attention addition", "masked_words"),
    "keras-3.10.0": ("operations masking attention_luong", "hard_sigmoid attention_luong"),
    "keras-3.15.1": (
        "addition operators hard_sigmoid builtin_attention encoder_decoder custom_layer",
        "sequential several operations conv unknown_loss bidirectional",
    ),
}

for number, name in enumerate(CATALOGUE):
    suffixes = [s for s, names in zip((".h5", ".keras"), WANTED[NAME]) if name in names.split()]
    if name == "weights_only" and NAME in ("keras-3.3.3", "keras-3.15.1"):
        suffixes = [".weights.h5"]
    if not suffixes:
        continue
    build, exercises, options = CATALOGUE[name]
    keras.utils.clear_session()
    model, inputs = build()
    seed = None if name == "unknown_loss" else 3000 + number
    if name == "weights_only":
        ERA.keep(
            model,
            name,
            inputs,
            exercises,
            suffixes,
            seed=seed,
            save=model.save_weights,
            reload=False,
        )
        with open(os.path.join(ERA.folder, name + ".json"), "w") as f:
            f.write(model.to_json())
        continue
    custom = {}
    if name.startswith("attention_"):
        custom = {"Attention": package_layer()}
    ERA.keep(model, name, inputs, exercises, suffixes, seed=seed, custom_objects=custom)
