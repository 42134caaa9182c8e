"""Layers with low-rank updates of their weights, whose scale ``lora_alpha`` is not the default."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model


def model_with(name: str, alpha: int) -> keras.Model:
    updated = {
        "Dense": layers.Dense(3, name="updated"),
        "EinsumDense": layers.EinsumDense("abc,cd->abd", (None, 3), name="updated"),
        "Embedding": layers.Embedding(9, 3, name="updated"),
        "Conv1D": layers.Conv1D(3, 2, name="updated"),
        "inside": layers.Dense(3, name="updated"),
    }[name]
    x = keras.Input((6,) if name == "Embedding" else (6, 4))
    steps = layers.TimeDistributed(updated)(x) if name == "inside" else updated(x)
    model = keras.Model(x, layers.GRU(2)(steps))
    updated.enable_lora(2, lora_alpha=alpha)
    return model


@pytest.mark.parametrize("suffix", only((".h5", ".keras"), ".h5"))
@pytest.mark.parametrize("alpha", [8, 2])
@pytest.mark.parametrize(
    "name", only(("Dense", "EinsumDense", "Embedding", "Conv1D", "inside"), "Dense", "Embedding")
)
def test_the_scale_is_that_of_the_file(name: str, alpha: int, suffix: str, tmp_path: Path) -> None:
    model = model_with(name, alpha)
    generator = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    model.save(tmp_path / f"m{suffix}")
    x = generator.normal(size=(5, *model.input_shape[1:])).astype("float32")
    x = np.abs(x * 3).astype("int32") if name == "Embedding" else x
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"))
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)
    noted = any(note.startswith("updated: the update of the weights") for note in loaded.notes)
    assert noted == (alpha == 8 and suffix == ".h5")
