"""Files of Keras 1.2.2 on Python 2.7: Sequential configs that are lists, Merge layers, one array per gate.

pip install keras==1.2.2 tensorflow==1.13.2 "h5py<3" "numpy<1.17" scipy pyyaml six
KERAS_BACKEND=tensorflow python make_keras1.py
"""

from __future__ import print_function

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow
from keras import backend as K
from keras.layers import (
    GRU,
    LSTM,
    Activation,
    AveragePooling1D,
    BatchNormalization,
    Bidirectional,
    Convolution1D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalMaxPooling1D,
    Highway,
    Input,
    Lambda,
    Masking,
    MaxPooling1D,
    Merge,
    Permute,
    RepeatVector,
    Reshape,
    SimpleRNN,
    TimeDistributed,
    merge,
)
from keras.models import Model, Sequential

import bank

ERA = bank.Era("keras-1.2.2", keras, tensorflow.__version__)
T, FEATURES, HIDDEN, ANSWERS, WORD_COUNT = 7, 2, 5, 3, 17
X = bank.numbers(21, bank.ROWS, T, FEATURES)
Y = bank.numbers(22, bank.ROWS, T, FEATURES)
WORDS = bank.padded_words(23, bank.ROWS, T, WORD_COUNT, (7, 5, 3, 1, 6, 2, 4) * 2)


def keep(model, name, seed, inputs, exercises, **options):
    model.compile("rmsprop", "mse", metrics=["mae"])
    ERA.keep(model, name, inputs, exercises, seed=seed, **options)


model = Sequential()
model.add(LSTM(HIDDEN, input_shape=(T, FEATURES), return_sequences=True))
model.add(Dropout(0.3))
model.add(LSTM(ANSWERS))
model.add(Dense(1, activation="hard_sigmoid"))
keep(
    model,
    "lstm_sequential",
    1,
    X,
    ["Sequential config is a list", "LSTM", "split gates", "hard_sigmoid", "Dropout"],
)

model = Sequential()
model.add(Embedding(WORD_COUNT, FEATURES, input_length=T, mask_zero=True))
model.add(GRU(HIDDEN))
model.add(Dense(ANSWERS, activation="softmax"))
keep(
    model,
    "gru_words",
    2,
    WORDS,
    [
        "Sequential config is a list",
        "Embedding mask_zero",
        "right padding",
        "GRU",
        "split gates",
        "hard_sigmoid",
    ],
)

model = Sequential()
model.add(Masking(mask_value=0.0, input_shape=(T, FEATURES)))
model.add(SimpleRNN(HIDDEN, return_sequences=True))
model.add(TimeDistributed(Dense(ANSWERS)))
masked = X.copy()
masked[1, 4:] = 0
masked[3, :2] = 0
keep(model, "masking_rnn", 3, masked, ["Masking", "SimpleRNN", "TimeDistributed"])

model = Sequential()
model.add(Convolution1D(HIDDEN, 3, border_mode="same", activation="relu", input_shape=(T, FEATURES)))
model.add(BatchNormalization())
model.add(MaxPooling1D(pool_length=2))
model.add(Convolution1D(ANSWERS, 2, subsample_length=1))
model.add(Activation("hard_sigmoid"))
model.add(GlobalMaxPooling1D())
model.add(Highway())
model.add(Dense(ANSWERS, W_regularizer="l2"))
keep(
    model,
    "conv",
    4,
    X,
    ["Convolution1D", "BatchNormalization", "MaxPooling1D", "Highway", "hard_sigmoid"],
)

left, right = Sequential(), Sequential()
left.add(LSTM(HIDDEN, input_shape=(T, FEATURES)))
right.add(GRU(HIDDEN, input_shape=(T, FEATURES)))
model = Sequential()
model.add(Merge([left, right], mode="concat", concat_axis=-1))
model.add(Dense(ANSWERS))
keep(
    model,
    "merge_first",
    5,
    {"x_0": X, "x_1": Y},
    ["legacy Merge first in a Sequential", "two inputs"],
)

a, b = Input(shape=(T, FEATURES), name="left"), Input(shape=(T, FEATURES), name="right")
shared = LSTM(HIDDEN, return_sequences=True, name="shared")
p, q = shared(a), shared(b)
added = merge([p, q], mode="sum", name="added")
product = merge([p, q], mode="mul", name="product")
joined = merge([added, product], mode="concat", concat_axis=-1, name="joined")
scores = merge([p, q], mode="dot", dot_axes=(2, 2), name="scores")  # (rows, steps, steps)
angle = merge([p, q], mode="cos", dot_axes=(2, 2), name="angle")
average = merge([p, q], mode="ave", name="average")
greatest = merge([p, q], mode="max", name="greatest")
outputs = [
    GRU(ANSWERS, name="one")(joined),
    GRU(ANSWERS, name="two")(scores),
    GRU(ANSWERS, name="three")(merge([average, greatest], mode="concat", name="both")),
]
keep(
    Model([a, b], outputs),
    "merge_modes",
    6,
    {"left": X, "right": Y},
    ["legacy Merge sum mul concat dot ave max", "shared layer", "two inputs", "three outputs"],
)

inputs = Input(shape=(T, FEATURES))
hidden = LSTM(HIDDEN, return_sequences=True)(inputs)
a = Permute((2, 1))(hidden)
a = Reshape((HIDDEN, T))(a)
a = Dense(T, activation="softmax")(a)
a = Lambda(lambda x: K.mean(x, axis=1), output_shape=lambda s: (s[0], s[2]), name="dim_reduction")(a)
a = RepeatVector(HIDDEN)(a)
weights = Permute((2, 1), name="attention_vec")(a)
out = Dense(ANSWERS)(Flatten()(merge([hidden, weights], name="attention_mul", mode="mul")))
keep(
    Model(inputs, out),
    "attention_over_time",
    7,
    X,
    [
        "attention of the original repository",
        "Permute",
        "RepeatVector",
        "Lambda mean",
        "legacy Merge mul",
        "Python 2.7 bytecode",
    ],
)

inputs = Input(shape=(T, FEATURES))
hidden = LSTM(HIDDEN, return_sequences=True, consume_less="gpu")(inputs)
last = Lambda(lambda x: x[:, -1, :], output_shape=(HIDDEN,), name="last_hidden_state")(hidden)
keep(
    Model(inputs, Dense(ANSWERS)(last)),
    "lambda_last",
    8,
    X,
    ["Lambda last step", "Python 2.7 bytecode", "LSTM fused gates consume_less=gpu"],
)

inputs = Input(shape=(T, FEATURES))
branches = [Bidirectional(GRU(HIDDEN), merge_mode=m, name="mode_" + m)(inputs) for m in ("mul", "ave")]
model = Model(inputs, Dense(ANSWERS)(merge(branches, mode="concat")))
keep(model, "bidirectional", 9, X, ["Bidirectional mul ave", "GRU", "split gates"])

inner_in = Input(shape=(T, FEATURES))
inner = Model(
    inner_in,
    AveragePooling1D(pool_length=7)(LSTM(HIDDEN, return_sequences=True)(inner_in)),
    name="inner",
)
a, b = Input(shape=(T, FEATURES), name="before"), Input(shape=(T, FEATURES), name="after")
out = merge([GlobalMaxPooling1D()(inner(a)), GlobalMaxPooling1D()(inner(b))], mode="concat")
keep(
    Model([a, b], Dense(ANSWERS)(out)),
    "nested_shared",
    10,
    {"before": X, "after": Y},
    ["nested model", "shared model", "two inputs"],
)


def quantile_loss_of_a_paper(y_true, y_pred):
    return K.mean(K.maximum(0.3 * (y_true - y_pred), -0.7 * (y_true - y_pred)))


model = Sequential()
model.add(LSTM(HIDDEN, input_shape=(T, FEATURES), inner_activation="sigmoid"))
model.add(Dense(ANSWERS))
model.compile("sgd", quantile_loss_of_a_paper, metrics=[quantile_loss_of_a_paper])
ERA.keep(model, "unknown_loss", X, ["unknown loss and metric"], seed=11)
model.compile("sgd", "mse")
ERA.keep(
    model,
    "weights_only",
    X,
    ["weights only", "the architecture is in weights_only.json"],
    seed=12,
    save=model.save_weights,
    reload=False,
)
with open(ERA.folder + "/weights_only.json", "w") as f:
    f.write(model.to_json())
