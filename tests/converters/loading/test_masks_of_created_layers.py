"""Layers of Keras that a ``call`` of the user creates use and pass on masks as in Keras 2.

The model does not contain them, so they cannot be replaced. The results are those of tf_keras.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

SHARED = layers.Average()
RESULTS = {
    "Add": lambda x, y, z: layers.Add()([x, z]),
    "Add of two masks": lambda x, y, z: layers.Add()([x, y]),
    "add": lambda x, y, z: layers.add([z, y]),
    "shared": lambda x, y, z: SHARED([x, z]),
    "Subtract": lambda x, y, z: layers.Subtract()([x, y]),
    "Multiply": lambda x, y, z: layers.Multiply()([x, y]),
    "Maximum": lambda x, y, z: layers.Maximum()([x, y, z]),
    "minimum": lambda x, y, z: layers.minimum([x, y]),
    "subclass": lambda x, y, z: Product()([x, y]),
    "Concatenate": lambda x, y, z: layers.Concatenate()([x, y]),
    "Concatenate of steps": lambda x, y, z: layers.Concatenate(1)([x, y]),
    "Identity": lambda x, y, z: layers.Identity()(x),
    "Rescaling": lambda x, y, z: layers.Rescaling(2.0)(x),
    "Softmax": lambda x, y, z: x * layers.Softmax()(x[..., 0], mask=x[..., 1] > 0.3)[..., None],
}

class Product(layers.Multiply):
    pass

class Results(layers.Layer):
    def __init__(self, names, **kwargs):
        super().__init__(**kwargs)
        self.names = names
        self.x = layers.Embedding(9, 4, mask_zero=True)
        self.y = layers.Embedding(9, 4, mask_zero=True)
        self.z = layers.Embedding(9, 4)
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, ids):
        x, y, z = self.x(ids), self.y(ids[:, ::-1]), self.z(ids)
        results = [RESULTS[name](x, y, z) for name in self.names]
        # All steps: also the values where a mask is.
        return tf.concat([self.pool(r) - tf.reduce_mean(r * r, 1) for r in results], -1)

    def get_config(self):
        return {**super().get_config(), "names": self.names}

class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.results = Results(list(RESULTS))
        self.gru = layers.GRU(4)

    def call(self, ids):
        r = self.results
        merged = layers.Add()([r.x(ids), r.z(ids) * 0.5])
        return layers.Concatenate()([r(ids), self.gru(merged)])

def functional():
    ids = keras.Input((7,), dtype="int32")
    return keras.Model(ids, layers.Dense(3)(Results(list(RESULTS))(ids)))
"""
# Of each row, the steps that are no padding; some are so in the row and in its reverse.
STEPS = (slice(0, 7), slice(0, 5), slice(0, 4), slice(2, 7))


def ids() -> np.ndarray:
    generator = np.random.default_rng(3)
    values = np.zeros((len(STEPS), 7), "int32")
    for row, steps in enumerate(STEPS):
        values[row, steps] = generator.integers(1, 9, size=steps.stop - steps.start)
    return values


@pytest.mark.long
@pytest.mark.parametrize(
    "case", ["Model w.h5", "functional w.h5", "functional m.h5", "functional m.keras"]
)
def test_layers_that_a_call_creates(case: str, tmp_path: Path) -> None:
    build, name = case.split()
    model = run_in_tf_keras(PROGRAM)[build]()
    inputs = ids()
    model(inputs)
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    (model.save_weights if name == "w.h5" else model.save)(tmp_path / name)
    program = tmp_path / "own.py"
    program.write_text(PROGRAM)
    file = audit_file(tmp_path / name)
    if name == "w.h5":
        samples = tmp_path / "samples.npz"
        np.savez(samples, ids=inputs)
        loaded = load_model(file, architecture=f"{program}:{build}", samples=samples)
    else:
        loaded = load_model(file, custom_objects=program)
    expected = model(inputs).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(loaded.model(inputs), expected, rtol=1e-4, atol=1e-5)
    predicted = loaded.model.predict(inputs, verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
