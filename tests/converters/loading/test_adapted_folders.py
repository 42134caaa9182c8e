"""Folders of tf_keras with adapted ``Normalization`` layers contain the step of ``adapt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(0).normal(3, 2, (40, 5, 3)).astype("float32")


class Net(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.scale = tf_keras.layers.Normalization()
        self.steps = tf_keras.layers.Dense(4)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.steps(self.scale(x))


def subclassed() -> Net:
    model = Net()
    model.scale.adapt(X, batch_size=8)
    model(X[:2])
    return model


def functional() -> tf_keras.Model:
    scale = tf_keras.layers.Normalization()
    scale.adapt(X)
    return tf_keras.Sequential([tf_keras.Input((5, 3)), scale, tf_keras.layers.Dense(4)])


@pytest.mark.parametrize("build", [subclassed, functional])
def test_models_of_adapted_layers(build, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = build()
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "folder")
    loaded = load_model(audit_file(tmp_path / "folder"), time_steps=5)
    actual = loaded.model(X)
    actual = next(iter(actual.values())) if isinstance(actual, dict) else actual
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-5, atol=1e-6)
    assert not any("Refused" in note for note in loaded.notes)


def test_iterators_that_a_graph_creates_are_refused(tmp_path: Path) -> None:
    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            total = tf.zeros([3])
            for row in tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])):
                total += row
            return {"y": x + total}

    module = Reader()
    tf.saved_model.save(module, str(tmp_path / "folder"), signatures=module.__call__)
    with pytest.raises(UnsafeModelError):
        load_model(audit_file(tmp_path / "folder"))
