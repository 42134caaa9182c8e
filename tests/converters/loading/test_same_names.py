"""Classes of the user that have the name of a layer of Keras, in files without modules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.same_names import STORED

OWN = """
import keras
from keras import ops


class Attention(keras.layers.Layer):
    # Without weights, and without the factor of Keras' use_scale.
    def call(self, inputs):
        query, value = inputs
        scores = ops.matmul(query, ops.transpose(value, (0, 2, 1))) / 2.0
        return ops.matmul(ops.softmax(scores), value)


class LayerNormalization(keras.layers.Layer):
    # Over all axes, with weights of the same names and shapes.
    def build(self, shape):
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        deviation = ops.std(x, axis=(1, 2), keepdims=True)
        return self.gamma * (x - mean) / (deviation + 1e-3) + self.beta


class MultiHeadAttention(keras.layers.Layer):
    def __init__(self, heads=2, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, x):
        return x * self.heads

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


class Named(keras.layers.Layer):
    def call(self, x):
        return tf.nn.relu(x) + np.float32(1)
"""
X = np.random.default_rng(4).normal(size=(3, 5, 4)).astype("float32")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "classes_of_same_names.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("classes_of_same_names")
    del sys.modules["classes_of_same_names"]


def model_of(own: Any, name: str) -> Any:
    x = keras.Input((5, 4), name="x")
    h = keras.layers.Dense(4)(x)
    layer = getattr(own, name)(name="own")
    return keras.Model(x, layer([h, x] if name == "Attention" else h))


@pytest.mark.parametrize("name", ["Attention", "LayerNormalization", "MultiHeadAttention"])
def test_the_file_needs_the_class(own: Any, name: str, tmp_path: Path) -> None:
    """Keras loads the first two with its own layers, and computes something else."""
    model, path = model_of(own, name), tmp_path / "m.h5"
    model.save(path)
    if name != "MultiHeadAttention":
        of_keras = keras.models.load_model(path, compile=False)
        assert not np.allclose(of_keras(X), model(X), atol=0.1)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(path))
    [stored, *_] = STORED[name]
    assert f"needs the class {name!r}, which is not that of Keras" in caught.value.message
    assert f"was saved without {stored}" in caught.value.message
    assert "--custom-objects FILE.py" in str(caught.value.hint)
    own_file = tmp_path / "classes_of_same_names.py"
    loaded = load_model(audit_file(path), custom_objects=own_file).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)


ARGUMENTS = {
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 3},
    "GroupQueryAttention": {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1},
}


@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("name", STORED)
def test_keras_stores_the_arguments(name: str, package: Any) -> None:
    """Those of Keras 2 of other versions were read in their sources."""
    cls = getattr(package.layers, name, None)
    if cls is None:
        assert package is tf_keras
        return
    arguments: dict[str, Any] = ARGUMENTS.get(name, {})
    wrapped = [package.layers.Dense(2)] if name == "SpectralNormalization" else []
    assert set(STORED[name]) <= set(cls(*wrapped, **arguments).get_config())


@pytest.mark.parametrize("name", only(["tf", "np"], "tf"))
def test_names_that_the_file_does_not_define(own: Any, name: str, tmp_path: Path) -> None:
    """A class that was copied without the imports of its program needs no other change."""
    imports = {"tf": "import tensorflow as tf", "np": "import numpy as np"}
    others = "".join(f"{line}\n" for key, line in imports.items() if key != name)
    vars(own).update(tf=__import__("tensorflow"), np=np)
    model_of(own, "Named").save(tmp_path / "m.keras")
    (tmp_path / "copied.py").write_text(others + OWN)
    with pytest.raises(UnsupportedModelError, match=f"name '{name}' is not defined") as caught:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "copied.py")
    expected = f"copied.py does not define '{name}'. Add to it: {imports[name]}"
    assert caught.value.hint == expected
