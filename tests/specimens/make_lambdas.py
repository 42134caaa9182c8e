"""Lambda layers saved by each Python version; a file contains the bytecode of the Python that saved it.

    Python 2.7   pip install keras==2.2.4 tensorflow==1.13.2 "h5py<3" "numpy<1.17" pyyaml;   python make_lambdas.py keras
    Python 3.6   pip install keras==2.2.4 tensorflow==1.13.2 "h5py<3" "numpy<1.17";          python make_lambdas.py keras
    Python 3.7   pip install tensorflow==1.15.5 "h5py<3" "numpy<1.19" "protobuf<3.20";       python make_lambdas.py tf.keras
    Python 3.8   pip install tensorflow-cpu==2.3.4 "h5py<3" "protobuf<3.20";                 python make_lambdas.py tf.keras
    Python 3.9   pip install tensorflow-cpu==2.8.4 "numpy<1.24" "protobuf<3.20";             python make_lambdas.py tf.keras
    Python 3.10  pip install tensorflow-cpu==2.11.1 "numpy<1.24" "h5py<3.10";                python make_lambdas.py tf.keras
    Python 3.11  pip install tensorflow-cpu==2.15.1;                                         python make_lambdas.py tf.keras
    Python 3.12  pip install tensorflow-cpu==2.17.1 tf_keras==2.17.0 keras==3.10.0;          python make_lambdas.py tf_keras keras
    Python 3.13  pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 keras==3.15.1;          python make_lambdas.py tf_keras keras

Every Python version saves `last`; 3.6, 3.8, 3.11 and 3.13 also save other common functions. The files of Keras 3 are named
keras3: they use keras.ops, and are saved as .keras and .h5.
"""

from __future__ import print_function

import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import bank

PYTHON = "%d.%d" % sys.version_info[:2]
T, FEATURES, ANSWERS = 7, 5, 3
X = bank.numbers(71, bank.ROWS, T, FEATURES)


def common(layers, Input, Model):
    """Yield a model with one Lambda, and one with many: mean, sum, expand_dims, squeeze, stack, products, softmax."""
    x = Input(shape=(T, FEATURES))
    last = layers.Lambda(lambda x: x[:, -1, :], name="last_hidden_state")(x)
    yield "last", Model(x, layers.Dense(ANSWERS)(last)), ["Lambda last step"]
    if PYTHON not in ("3.6", "3.8", "3.11", "3.13"):
        return
    x = Input(shape=(T, FEATURES))
    mean = layers.Lambda(lambda t: K.mean(t, axis=1), name="average")(x)
    total = layers.Lambda(lambda x: K.sum(x, axis=1), output_shape=lambda s: (s[0], s[2]), name="total")(x)
    first = layers.Lambda(lambda x: x[:, 0], name="first")(x)
    wide = layers.Lambda(lambda x: K.expand_dims(x, axis=-1), name="wide")(layers.Dense(ANSWERS)(mean))
    thin = layers.Lambda(lambda x: K.squeeze(x, -1), name="thin")(wide)
    stacked = layers.Lambda(lambda x: K.stack([x, x], axis=1), name="stacked")(first)
    product = layers.Lambda(lambda x: x[0] * x[1], name="product")([total, first])
    soft = layers.Lambda(lambda x: K.softmax(x), name="soft")(product)
    scaled = layers.Lambda(lambda x, by: x * by, arguments={"by": 0.3}, name="scaled")(total)
    reverse = layers.Lambda(lambda x: K.reverse(x, axes=1), name="reverse")(stacked)
    flipped = layers.Lambda(lambda x: x[:, ::-1, :], name="flipped")(x)
    out = [thin, layers.Flatten()(reverse), soft, scaled, layers.Flatten()(flipped)]
    yield (
        "common",
        Model(x, layers.Concatenate()(out)),
        ["Lambda mean sum first expand_dims squeeze stack product softmax reverse, with arguments and output_shape"],
    )


def of_keras_3(layers, Input, Model):
    x = Input(shape=(T, FEATURES))
    last = layers.Lambda(lambda x: x[:, -1, :], name="last_hidden_state")(x)
    yield "last", Model(x, layers.Dense(ANSWERS)(last)), ["Lambda last step"]
    x = Input(shape=(T, FEATURES))
    total = layers.Lambda(lambda x: ops.sum(x, axis=1), output_shape=(FEATURES,), name="total")(x)
    thin = layers.Lambda(lambda x: ops.squeeze(x, -1), output_shape=(ANSWERS,), name="thin")(
        layers.Lambda(lambda x: ops.expand_dims(x, axis=-1), output_shape=(ANSWERS, 1), name="wide")(
            layers.Dense(ANSWERS)(total)
        )
    )
    yield "common", Model(x, thin), ["Lambda sum expand_dims squeeze of keras.ops"]


for which in sys.argv[1:]:
    if which == "tf.keras":
        keras = tf.keras
        version = getattr(keras, "__version__", None) or __import__("keras").__version__
    else:
        keras = __import__(which)
        version = keras.__version__
    three = version.startswith("3")
    era = bank.Era("lambdas", keras, tf.__version__, keras_name=which, keras_version=version)
    layers, Input, Model = keras.layers, keras.layers.Input, keras.models.Model
    K, ops = (
        keras.backend,
        getattr(keras, "ops", None),
    )  # globals, as in most scripts: a closure cannot be saved
    models = (of_keras_3 if three else common)(layers, Input, Model)
    for number, (name, model, exercises) in enumerate(models):
        custom = {"ops": keras.ops} if three else {"K": keras.backend}
        era.keep(
            model,
            "py%s_%s%s" % (PYTHON, "keras3_" if three else "", name),
            X,
            exercises + ["bytecode of Python " + PYTHON],
            (".keras",) if three and name == "common" else (".h5",),
            seed=700 + number,
            custom_objects=custom,
        )
