"""Files with CuDNNLSTM and CuDNNGRU layers of Keras 2.2.4, created without a GPU.

    Python 3.6   pip install keras==2.2.4 tensorflow==1.13.2 "h5py<3" "numpy<1.17" "protobuf<3.18";   python make_cudnn.py

Without their CudnnRNN operation the layers can be built and saved on a CPU, but not run. The outputs are therefore those of the
same model with LSTM (recurrent_activation="sigmoid") and GRU (the same, reset_after=True) layers. Their weights are converted
as in keras/engine/saving.py, _convert_rnn_weights:

    input kernels, gate by gate (i f c o; z r h):  kernel.T.reshape(kernel.shape, order="C")
    recurrent kernels, gate by gate:               kernel.T
    LSTM bias (4 units,) -> (8 units,):            two halves whose sum is the bias of the layer
    GRU bias (2, 3 units) -> (6 units,):           flattened, input bias first

Keras would split the bias into equal halves; here they differ, so that a loader that doubles one half fails the test. At the
end Keras itself loads the CuDNN file into the LSTM or GRU model, which must compute the same outputs.
"""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import bank

ERA = bank.Era("cudnn", keras, tf.__version__)
T, FEATURES, HIDDEN, ANSWERS = 7, 2, 5, 3
X = bank.numbers(81, bank.ROWS, T, FEATURES)


def gatewise(function, kernel, gates):
    return np.hstack([function(k) for k in np.hsplit(kernel, gates)])


def to_cudnn(weights, random):
    kernel, recurrent, bias = weights
    gates = kernel.shape[1] // recurrent.shape[0]
    if gates == 4:
        half = random.uniform(-1, 1, bias.shape).astype("float32")
        bias = np.concatenate([bias - half, half])
    return [
        gatewise(lambda k: k.T.reshape(k.shape, order="C"), kernel, gates),
        gatewise(lambda k: k.T, recurrent, gates),
        bias.reshape(-1),
    ]


def no_operation(layer, inputs, initial_state):
    """Replaces the CudnnRNN operation, which TensorFlow without a GPU cannot add to a graph."""
    output = keras.backend.dot(inputs, keras.backend.zeros((inputs.shape[2].value, layer.units)))
    return (output if layer.return_sequences else output[:, -1]), initial_state


layers.CuDNNLSTM._process_batch = layers.CuDNNGRU._process_batch = no_operation


def lstm(cudnn, units, **options):
    return (
        layers.CuDNNLSTM(units, **options) if cudnn else layers.LSTM(units, recurrent_activation="sigmoid", **options)
    )


def gru(cudnn, units, **options):
    return (
        layers.CuDNNGRU(units, **options)
        if cudnn
        else layers.GRU(units, recurrent_activation="sigmoid", reset_after=True, **options)
    )


def build(kind, cudnn):
    x = layers.Input(shape=(T, FEATURES))
    if kind == "lstm":
        h = lstm(cudnn, ANSWERS)(lstm(cudnn, HIDDEN, return_sequences=True)(x))
    elif kind == "gru":
        h = gru(cudnn, ANSWERS, go_backwards=True)(gru(cudnn, HIDDEN, return_sequences=True)(x))
    elif kind == "bidirectional_lstm":
        h = layers.Bidirectional(lstm(cudnn, HIDDEN))(x)
    else:
        h = layers.Bidirectional(gru(cudnn, HIDDEN), merge_mode="sum")(x)
    return keras.models.Model(x, layers.Dense(ANSWERS)(h))


for number, kind in enumerate(["lstm", "gru", "bidirectional_lstm", "bidirectional_gru"]):
    plain = bank.randomise(build(kind, False), 800 + number)
    fast = build(kind, True)
    random = np.random.RandomState(900 + number)
    for here, there in zip(plain.layers, fast.layers):
        values = here.get_weights()
        if len(values) >= 3:
            values = sum((to_cudnn(values[i : i + 3], random) for i in range(0, len(values), 3)), [])
        there.set_weights(values)
    truth = plain.predict(X)
    ERA.keep(
        fast,
        kind,
        X,
        ["CuDNN" + kind[-4:].strip("_").upper(), "Keras 2.2.4 layout"] + (["Bidirectional"] if "bi" in kind else []),
        outputs=[truth],
        reload=False,
    )
    again = build(kind, False)
    again.load_weights(os.path.join(ERA.folder, kind + ".h5"))
    assert np.abs(again.predict(X) - truth).max() < 1e-6, "Keras' own conversion disagrees"
    print("Keras converts %s back: same numbers" % kind)
