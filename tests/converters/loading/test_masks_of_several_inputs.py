"""Classes of Keras 2 with several inputs get a list of masks, or None if no input has one.

A mask is passed to an argument without a default, too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

def pooled(x, mask):
    weights = tf.ones_like(x[..., 0]) if mask is None else tf.cast(mask, "float32")
    return tf.reduce_sum(x * weights[..., None], 1) / (1.0 + tf.reduce_sum(weights, 1)[:, None])

class Pair(layers.Layer):
    def call(self, inputs, mask=None):
        a, b = inputs
        if mask is None:
            return tf.reduce_mean(a, 1) + tf.reduce_mean(b, 1)
        return pooled(a, mask[0]) + pooled(b, mask[1])

class Named(layers.Layer):
    def call(self, inputs, mask=None):
        if mask is None:
            return tf.reduce_mean(inputs["a"], 1) + tf.reduce_mean(inputs["b"], 1)
        return pooled(inputs["a"], mask["a"]) + pooled(inputs["b"], mask["b"])

class Steps(layers.Layer):
    def call(self, inputs, mask=None):
        return inputs[0] - inputs[1]

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return inputs[0][..., 0] > 0.0
        return None

class Required(layers.Layer):
    def call(self, inputs, mask):
        first = inputs if tf.is_tensor(inputs) else inputs[0]
        return pooled(first, mask[0] if isinstance(mask, list) else mask)

class Inside(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pair = Pair()

    def call(self, inputs):
        return self.pair([inputs[0] * 2.0, inputs[1]])

def model(a_is_masked, layer, **names):
    a, b = keras.Input((5, 3), name="a"), keras.Input((5, 3), name="b")
    x = layers.Masking()(a) if a_is_masked else a
    y = layer({"a": x, "b": b} if names else [x, b])
    y = layers.GRU(2)(y) if len(y.shape) == 3 else y
    return keras.Model([a, b], layers.Dense(2)(y))

def no_masks():
    return model(False, Pair())

def one_mask():
    return model(True, Pair())

def names():
    return model(False, Named(), named=True)

def computed():
    return model(False, Steps())

def computed_of_masks():
    return model(True, Steps())

def inside():
    return model(False, Inside())

def required():
    return model(True, lambda x: Required()(x[0]) + Required()(x))
"""
MODELS = ("no_masks", "one_mask", "names", "computed", "computed_of_masks", "inside", "required")


@pytest.mark.parametrize("name", only(MODELS, "no_masks", "required"))
@pytest.mark.parametrize("stored", only(("model", "weights"), "model"))
def test_masks_are_those_of_keras_2(name: str, stored: str, tmp_path: Path) -> None:
    program = run_in_tf_keras(PROGRAM)
    generator = np.random.default_rng(1)
    model = program[name]()
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    inputs = [generator.normal(size=(4, 5, 3)).astype("float32") for _ in range(2)]
    inputs[0][:2, 3:] = 0
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    arguments: dict[str, Any] = {"custom_objects": path}
    if stored == "weights":
        arguments = {"architecture": f"{path}:{name}"}
    (model.save if stored == "model" else model.save_weights)(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), **arguments)
    np.testing.assert_allclose(loaded.model(inputs), model(inputs), rtol=1e-4, atol=1e-5)
