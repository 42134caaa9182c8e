"""Models that use the PyPI package `attention`, with several TensorFlow versions.

Run once per line, each in a separate environment; the folder is named after the versions of the package and TensorFlow:

    Python 3.9   pip install --no-deps attention==5.0.0; pip install tensorflow-cpu==2.8.4 "numpy<1.24" "protobuf<3.20" "h5py<3.10"
    Python 3.10  pip install --no-deps attention==5.0.0; pip install tensorflow-cpu==2.11.1 "numpy<1.24" "h5py<3.10"
    Python 3.11  pip install --no-deps attention==5.0.0; pip install tensorflow-cpu==2.13.1
    Python 3.11  pip install --no-deps attention==5.0.0; pip install tensorflow-cpu==2.15.1

    python make_attention.py 5.0.0

Then run with attention==4.1, 4.0, 3.0 and 2.2 in the environment of 2.8.4, with 4.1 in that of 2.15.1, and with 5.0.0 and
KERAS_ATTENTION_DEBUG=1 in both. WANTED lists the files of each run.

The .npz files also contain `attention` of shape (samples, steps), the attention map that the package computed.
"""

import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import keras as same_keras
import tensorflow as tf

import attention as package
import bank

tf.get_logger().setLevel("ERROR")
keras = tf.keras
layers, Model, Sequential = keras.layers, keras.Model, keras.Sequential

T, FEATURES, HIDDEN, UNITS, ANSWERS, WORD_COUNT = 7, 2, 5, 3, 11, 17
VERSION = sys.argv[1]
DEBUG = os.environ.get("KERAS_ATTENTION_DEBUG") == "1"
SERIES = ".".join(tf.__version__.split(".")[:2])
ERA = bank.Era(
    "attention-%s%s-tf%s" % (VERSION, "-debug" if DEBUG else "", SERIES),
    keras,
    tf.__version__,
    keras_name="tf.keras",
    keras_version=same_keras.__version__,
)
IS_LAYER = VERSION in ("4.1", "5.0.0") and not DEBUG
HAS_SCORE = VERSION.startswith("5")
SCORES = ("luong", "bahdanau") if HAS_SCORE else ("luong",)
WANTED = {  # folder -> the .h5 files; then those that are also saved as .keras
    "5.0.0-tf2.8": (
        "luong_functional luong_masked luong_sequential luong_bidirectional bahdanau_functional "
        "bahdanau_masked bahdanau_sequential bahdanau_gru_trained two_outputs",
        "",
    ),
    "5.0.0-tf2.11": ("luong_functional", ""),
    "5.0.0-tf2.13": ("", "bahdanau_functional"),
    "5.0.0-tf2.15": (
        "luong_masked bahdanau_bidirectional bahdanau_sequential luong_gru_trained two_attentions",
        "luong_sequential bahdanau_masked two_outputs",
    ),
    "4.1-tf2.8": ("luong_sequential", ""),
    "4.1-tf2.15": ("", "luong_masked"),
    "4.0-tf2.8": ("luong_functional", ""),
    "3.0-tf2.8": ("luong_masked", ""),
    "2.2-tf2.8": ("luong_functional", ""),
    "5.0.0-debug-tf2.8": ("luong_functional bahdanau_masked", ""),
    "5.0.0-debug-tf2.15": ("", "bahdanau_masked"),
}[ERA.name[len("attention-") :]]
ABOUT = ["package attention " + VERSION] + (["layer class Attention"] if IS_LAYER else ["expanded graph", "Lambda"])


def attention(score="luong", name=None):
    if VERSION == "2.2":
        return package.attention_3d_block
    if VERSION in ("3.0", "4.0"):  # 128 units, whatever is asked
        return package.Attention()
    options = {"score": score} if HAS_SCORE else {}
    return (
        package.Attention(UNITS, **options) if DEBUG or name is None else package.Attention(UNITS, name=name, **options)
    )


def inside(model, inputs):
    """Return the attention maps that the model computes for these inputs, in the order of the graph."""
    maps = []
    for layer in model.layers:
        if IS_LAYER and isinstance(layer, package.Attention):
            hidden = Model(model.inputs, layer.input).predict(inputs, verbose=0)
            which = "softmax_normalizer" if HAS_SCORE else "attention_weight"
            softmax = getattr(layer, which)
            object.__setattr__(
                layer,
                which,
                lambda s, softmax=softmax: maps.append(np.array(softmax(s))) or maps[-1],
            )
            again = np.array(layer.call(tf.constant(hidden)))
            object.__setattr__(layer, which, softmax)
            seen = Model(model.inputs, layer.output).predict(inputs, verbose=0)
            assert np.abs(again - seen).max() < 1e-5, "the map is not the one that the model used"
        elif layer.name.startswith("attention_weight"):
            maps.append(Model(model.inputs, layer.output).predict(inputs, verbose=0))
    assert maps
    return {"attention": maps[0]} if len(maps) == 1 else {"attention_%d" % i: m for i, m in enumerate(maps)}


def keep(model, name, seed, inputs, exercises, train=None, loss="mse"):
    suffixes = [s for s, names in zip((".h5", ".keras"), WANTED) if name in names.split()]
    if not suffixes:
        return
    bank.randomise(model, seed)
    model.compile(optimizer=train or "adam", loss=loss, metrics=["mae"])
    if train:
        shapes = [tuple(t.shape[1:]) for t in model.outputs]
        targets = [bank.numbers(seed + 1, bank.ROWS, *shape) for shape in shapes]
        model.fit(inputs, targets if len(targets) > 1 else targets[0], epochs=1, verbose=0)
    custom = {"Attention": package.Attention} if IS_LAYER else None
    ERA.keep(
        model,
        name,
        inputs,
        ABOUT + exercises,
        suffixes,
        extra=inside(model, inputs),
        custom_objects=custom,
    )


def functional(score, recurrent, inputs, seed_layer=None):
    x = inputs if seed_layer is None else seed_layer(inputs)
    x = attention(score)(recurrent(x))
    return Model(inputs, layers.Dense(ANSWERS)(x))


X = bank.numbers(11, bank.ROWS, T, FEATURES)
WORDS = bank.padded_words(12, bank.ROWS, T, WORD_COUNT, (7, 5, 3, 1, 6, 2, 4) * 2)


def plain_specimens():
    for score in SCORES:
        seed = 100 if score == "luong" else 200
        keras.backend.clear_session()
        inputs = layers.Input((T, FEATURES))
        keep(
            functional(score, layers.LSTM(HIDDEN, return_sequences=True), inputs),
            score + "_functional",
            seed,
            X,
            ["functional", "LSTM", score],
        )
        keras.backend.clear_session()
        words = layers.Input((T,))
        model = functional(
            score,
            layers.LSTM(HIDDEN, return_sequences=True),
            words,
            layers.Embedding(WORD_COUNT, FEATURES, mask_zero=True),
        )
        keep(
            model,
            score + "_masked",
            seed + 1,
            WORDS,
            ["Embedding mask_zero", "right padding", "LSTM", score],
        )


def more_specimens():
    for score in SCORES:
        seed = 110 if score == "luong" else 210
        if IS_LAYER:
            keras.backend.clear_session()
            model = Sequential(
                [
                    layers.Input((T, FEATURES)),
                    layers.LSTM(HIDDEN, return_sequences=True),
                    attention(score),
                    layers.Dropout(0.2),
                    layers.Dense(1, activation="sigmoid"),
                ]
            )
            keep(
                model,
                score + "_sequential",
                seed,
                X,
                ["Sequential", "LSTM", "Dropout", score],
                loss="binary_crossentropy",
            )
        keras.backend.clear_session()
        model = functional(
            score,
            layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True)),
            layers.Input((T, FEATURES)),
        )
        keep(model, score + "_bidirectional", seed + 1, X, ["Bidirectional", "LSTM", score])
        keras.backend.clear_session()
        model = functional(score, layers.GRU(HIDDEN, return_sequences=True), layers.Input((T, FEATURES)))
        keep(
            model,
            score + "_gru_trained",
            seed + 2,
            X,
            ["GRU reset_after", "optimizer state", score],
            train="adam" if score == "luong" else keras.optimizers.SGD(0.01, momentum=0.9),
        )
    if IS_LAYER:
        keras.backend.clear_session()
        a = layers.Input((T, FEATURES))
        hidden = layers.LSTM(HIDDEN, return_sequences=True)(a)
        scores = SCORES if HAS_SCORE else ("luong", "luong")
        b = layers.Concatenate()([attention(scores[0])(hidden), attention(scores[1])(hidden)])
        keep(
            Model(a, layers.Dense(ANSWERS)(b)),
            "two_attentions",
            300,
            X,
            ["functional", "two Attention layers"],
        )
        keras.backend.clear_session()
        a = layers.Input((T, FEATURES))
        hidden = layers.LSTM(HIDDEN, return_sequences=True)(a)
        b = attention(SCORES[-1], name="focus")(hidden)
        keep(
            Model(a, [layers.Dense(ANSWERS, name="answer")(b), layers.Dense(1, name="score")(b)]),
            "two_outputs",
            301,
            X,
            ["functional", "two outputs", "named Attention layer"],
        )


plain_specimens()
if VERSION in ("4.1", "5.0.0"):
    more_specimens()
