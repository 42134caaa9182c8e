"""Valid models in unusual files: wrong suffix, Windows paths, missing attributes.

Python 3.11  pip install tensorflow-cpu==2.15.1;   python make_oddities.py
"""

import ntpath
import os
import shutil

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import tensorflow as tf
from keras import layers
from keras.src.saving import saving_lib

import bank

ERA = bank.Era("oddities", tf.keras, tf.__version__, keras_name="tf.keras", keras_version=keras.__version__)
T, FEATURES, HIDDEN, ANSWERS = 7, 2, 5, 3
X = bank.numbers(91, bank.ROWS, T, FEATURES)


def model():
    keras.backend.clear_session()
    return keras.Sequential(
        [
            layers.Input((T, FEATURES)),
            layers.Bidirectional(layers.LSTM(HIDDEN)),
            layers.Dense(ANSWERS),
        ]
    )


def saved_as(suffix):
    """Return a function that saves in the format of a suffix, whatever the name of the file."""

    def save(path):
        made.save(path + suffix)
        shutil.move(path + suffix, path)

    return save


def strip(path):
    with h5py.File(path, "r+") as f:
        for name in ("keras_version", "backend", "training_config"):
            f.attrs.pop(name, None)
            f["model_weights"].attrs.pop(name, None)


made = model()
ERA.keep(
    made,
    "hdf5_inside",
    X,
    ["HDF5 file named .keras", "Bidirectional", "LSTM"],
    (".keras",),
    901,
    save=saved_as(".h5"),
)
made = model()
ERA.keep(
    made,
    "zip_inside",
    X,
    ["Keras zip named .h5", "Bidirectional", "LSTM"],
    (".h5",),
    902,
    save=saved_as(".keras"),
)
made = model()
ERA.keep(
    made,
    "no_version",
    X,
    ["no keras_version, backend or training_config in the .h5", "Bidirectional", "LSTM"],
    (".h5",),
    903,
    edit=strip,
)

join = saving_lib.tf.io.gfile.join


def save_on_windows(path):
    saving_lib.tf.io.gfile.join = lambda *parts: join(*parts) if os.path.isabs(parts[0]) else ntpath.join(*parts)
    made.save(path)
    saving_lib.tf.io.gfile.join = join


made = model()
ERA.keep(
    made,
    "windows",
    X,
    ["Windows paths inside the weights of a .keras", "Bidirectional", "LSTM"],
    (".keras",),
    904,
    save=save_on_windows,
)
