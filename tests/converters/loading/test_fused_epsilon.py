"""The least epsilon of fused batch normalization in models of TensorFlow before 2.12.

Expected values are worked out in NumPy: (x - mean) / sqrt(variance + epsilon) * gamma + beta.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model

GENERATOR = np.random.default_rng(13)
IMAGES = GENERATOR.normal(size=(2, 4, 5, 3)).astype("float32")
LEAST = 1.001e-5
SMALL, USUAL = (1e-6, 1e-4, 2e-3), (0.2, 1.0, 3.0)


def model_of(
    epsilon: float, variance: Any, shape: tuple[int, ...] = (4, 5, 3), **named: Any
) -> Any:
    x = tf_keras.Input(shape)
    layer = layers.BatchNormalization(epsilon=epsilon, name="b")
    model = tf_keras.Model(x, layer(x))
    model.set_weights([*(GENERATOR.normal(size=3) for _ in range(3)), np.array(variance)])
    return model


def normalized(model: Any, epsilon: float) -> Any:
    gamma, beta, mean, variance = model.get_weights()
    return (IMAGES - mean) / np.sqrt(variance + epsilon) * gamma + beta


def set_header(path: Path, version: str, backend: str) -> Any:
    with h5py.File(path, "a") as file:
        for group in (file, file.get("model_weights", file)):
            group.attrs.update(keras_version=version, backend=backend)
    return audit_file(path)


def load(
    model: Any, folder: Path, version: str, backend: str = "tensorflow", axis: int = -1
) -> LoadedModel:
    """Load a file with ``axis`` as Keras stores it; tf_keras stores ``[3]``."""
    model.save(folder / "m.h5")
    if not version.endswith("-tf"):
        with h5py.File(folder / "m.h5", "a") as file:
            text = str(file.attrs["model_config"])
            file.attrs["model_config"] = text.replace('"axis": [3]', f'"axis": {axis}')
    return load_model(set_header(folder / "m.h5", version, backend))


def check(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", ["2.2.4", "2.3.1", "2.1.6-tf", "2.2.4-tf", "2.4.0", "2.11.0"])
def test_files(version: str, tmp_path: Path) -> None:
    model = model_of(1e-6, SMALL)
    loaded = load(model, tmp_path, version)
    check(loaded.model(IMAGES), normalized(model, LEAST))
    assert loaded.notes[0].startswith("b: computes with an epsilon of 1.001e-5, not 1e-06")
    assert any("only because it does not make the changes" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("version", "backend"),
    [
        ("2.1.6", "tensorflow"),
        ("2.12.0", "tensorflow"),
        ("2.15.0", "tensorflow"),
        ("2.2.4", "theano"),
        ("2.2.0", "tensorflow"),
    ],
)
def test_files_of_other_versions(version: str, backend: str, tmp_path: Path) -> None:
    """In Keras 2.2.0, only layers with axis=3 are fused."""
    model = model_of(1e-6, SMALL)
    loaded = load(model, tmp_path, version, backend)
    check(loaded.model(IMAGES), normalized(model, 1e-6))
    assert not any("epsilon" in note for note in loaded.notes)


def test_axis_of_keras_2_2_0(tmp_path: Path) -> None:
    model = model_of(1e-6, SMALL)
    check(load(model, tmp_path, "2.2.0", axis=3).model(IMAGES), normalized(model, LEAST))


@pytest.mark.parametrize(
    ("epsilon", "variance"), [(1e-6, USUAL), (1e-5, (1e-4, 1, 2)), (1e-3, SMALL)]
)
def test_differences_that_do_not_matter(
    epsilon: float, variance: tuple[float, ...], tmp_path: Path
) -> None:
    model = model_of(epsilon, variance)
    loaded = load(model, tmp_path, "2.2.4")
    check(loaded.model(IMAGES), normalized(model, epsilon))
    assert loaded.notes == ()


def test_sequences(tmp_path: Path) -> None:
    model = model_of(1e-6, SMALL, (5, 3))
    loaded = load(model, tmp_path, "2.2.4")
    check(loaded.model(IMAGES[:, 0]), normalized(model, 1e-6)[:, 0])
    assert loaded.notes == ()


PROGRAM = """
import keras
from keras.layers import BatchNormalization, Input, Layer


class Doubled(Layer):
    def call(self, x):
        return x + x


def build():
    x = Input((4, 5, 3))
    return keras.models.Model(x, Doubled()(BatchNormalization(epsilon=1e-6, name="b")(x)))
"""


@pytest.mark.compared
def test_programs(tmp_path: Path) -> None:
    model = model_of(1e-6, SMALL)
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "own.py").write_text(PROGRAM)
    file = set_header(tmp_path / "w.h5", "2.2.4", "tensorflow")
    loaded = load_model(file, architecture=f"{tmp_path / 'own.py'}:build")
    check(loaded.model(IMAGES), 2 * normalized(model, LEAST))
    assert any(note.startswith("b: computes with an epsilon") for note in loaded.notes)
