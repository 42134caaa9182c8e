"""Results of layers that merge inputs, in programs with weights of Keras 2, have its masks."""

from pathlib import Path

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
from tensorflow import keras
from tensorflow.keras import layers

def model(scale):
    a = keras.Input((7,), dtype="int32")
    b = keras.Input((7,), dtype="int32")
    x, y = (
        layers.Embedding(12, 4, mask_zero=True, name="x")(a),
        layers.Embedding(13, 4, mask_zero=True, name="y")(b),
    )
    z = layers.Embedding(14, 4, name="z")(b)
    merged = [
        layers.Concatenate()([x, z]),
        layers.Concatenate(axis=1)([x, y]),
        layers.Add()([x, y]),
        layers.Maximum()([x, z]),
        layers.Multiply()([z, y]),
        layers.Average()([x, layers.Subtract()([y, z])]),
    ]
    pooled = [layers.GlobalAveragePooling1D()(scale(tensor)) for tensor in merged]
    return keras.Model([a, b], [*pooled, layers.GRU(3)(merged[3], initial_state=pooled[3][:, :3])])

def of_keras():
    return model(lambda x: x)

class Scale(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return 2.0 * x

def with_a_class():
    return model(Scale())
"""
NAMES = ("of_keras", "with_a_class")


@pytest.mark.parametrize("name", only(NAMES, "of_keras"))
def test_masks_of_merged_inputs(name: str, tmp_path: Path) -> None:
    program = run_in_tf_keras(PROGRAM)
    generator = np.random.default_rng(1)
    model = program[name]()
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "program.py").write_text(PROGRAM)
    tokens = generator.integers(1, 12, size=(2, 5, 7)).astype("int32")
    for row, (first, second) in enumerate(((7, 7), (7, 3), (3, 7), (2, 5), (4, 1))):
        tokens[0, row, first:] = tokens[1, row, second:] = 0
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path}/program.py:{name}")
    for actual, expected in zip(loaded.model(list(tokens)), model(list(tokens)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
