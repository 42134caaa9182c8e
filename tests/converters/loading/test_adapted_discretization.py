"""``Discretization`` layers of Keras 2 that got their boundaries from ``adapt``."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only
from tf_keras import layers

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

GENERATOR = np.random.default_rng(5)
DATA = GENERATOR.normal(size=(300, 1)).astype("float32")
# Also those below and above all boundaries, and not a number.
X = np.float32([[-9], [0.5], [-0.5], [9], [np.nan], [0]])
PROGRAM = """
import tensorflow as tf
from tensorflow.keras import layers


def build(data=None, *modes):
    def bins(count, name):
        layer = layers.Discretization(num_bins=count, name=name)
        return layer if data is None else layer.adapt(data) or layer

    def vector(x, layer):
        return layers.Flatten()(layers.Embedding(layer.num_bins, 3)(layer(x)))

    x, inner = tf.keras.Input((1,)), tf.keras.Input((1,))
    nested = tf.keras.Model(inner, vector(inner, bins(4, "inside")), name="nested")
    parts = [vector(x, bins(7, "a")), nested(x)]
    for mode in modes:
        layer = layers.Discretization(num_bins=5, output_mode=mode, name=mode)
        layer.adapt(data)
        parts.append(layer(x))
    return tf.keras.Model(x, layers.Dense(3)(layers.Concatenate()(parts)))
"""


def adapted(*modes: str) -> Any:
    """The model with boundaries; tf_keras adds the size of vectors when it calls the layer."""
    tf_keras.backend.clear_session()
    names: dict[str, Any] = {"tf": types.SimpleNamespace(keras=tf_keras), "layers": layers}
    exec(PROGRAM.replace("import tensorflow as tf", "").replace("from tensorflow", "#"), names)
    model = names["build"](DATA, *modes)
    for variable in model.trainable_variables:
        variable.assign(GENERATOR.normal(size=variable.shape))
    return model


@pytest.mark.parametrize("kind", ["m.h5", *only(["m.keras", "folder", "w.h5"])])
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    model = adapted(*([] if kind.startswith("w.") else ["one_hot", "multi_hot"]))
    path = tmp_path / kind
    if kind.startswith("w."):
        model.save_weights(path)
    else:
        model.save(path, **({"save_format": "tf"} if kind == "folder" else {}))
    (tmp_path / "prog.py").write_text(PROGRAM)
    architecture = f"{tmp_path / 'prog.py'}:build" if kind.startswith("w.") else None
    loaded = load_model(audit_file(path), architecture=architecture)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bins", [2, 48, 49])
def test_number_of_buckets(bins: int, tmp_path: Path) -> None:
    """49 * (1 / 49) is less than 1, so tf_keras has 49 boundaries for 49 buckets."""
    layer = layers.Discretization(num_bins=bins, output_mode="one_hot", name="bins")
    layer.adapt(DATA)
    x = tf_keras.Input((1,))
    model = tf_keras.Model(x, layers.Dense(3)(layer(x)))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["int", "one_hot"])
def test_fewer_boundaries_than_declared(mode: str, tmp_path: Path) -> None:
    """After ``adapt`` with few values; one-hot vectors then have another size than declared."""
    layer = layers.Discretization(num_bins=20, output_mode=mode, name="bins")
    layer.adapt(DATA[:6])
    x = tf_keras.Input((1,))
    y = layers.Flatten()(layers.Embedding(20, 2)(layer(x))) if mode == "int" else layer(x)
    model = tf_keras.Model(x, y)
    model.save(tmp_path / "m.h5")
    if mode == "one_hot":
        with pytest.raises(UnsupportedModelError, match="'bins' has weights of shape"):
            load_model(audit_file(tmp_path / "m.h5"))
        return
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    values = np.nan_to_num(X)
    np.testing.assert_allclose(loaded.model(values), model(values), rtol=1e-5, atol=1e-6)
