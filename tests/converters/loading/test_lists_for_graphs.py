"""Subclassed models that only tf_keras runs, and whose call takes a list of several inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# Layers whose cell takes several inputs are none of Keras 3.
PROGRAM = """
import tensorflow as tf


class Cell(tf.keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = self.state_size = units

    def build(self, shapes):
        size = sum(shape[-1] for shape in shapes)
        self.kernel = self.add_weight(shape=(size, self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs, states):
        x = tf.concat([inputs[0], 2 * inputs[1]], 1)
        h = tf.tanh(tf.matmul(x, self.kernel) + tf.matmul(states[0], self.recurrent))
        return h, [h]


class Net(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.rnn = tf.keras.layers.RNN(Cell(4))
        self.out = tf.keras.layers.Dense(3)

    def call(self, inputs):
        TAKEN
        return self.out(tf.concat([self.rnn((past, known)), future], 1))
"""
TAKEN = {
    "unpacked": "past, known, future = inputs",
    "by_number": "past, known, future = inputs[0], inputs[1], inputs[2]",
    "tuple": "(past, known), future = inputs[:2], inputs[-1]",
    "dictionary": 'past, known, future = inputs["past"], inputs["known"], inputs["future"]',
}
G = np.random.default_rng(2)
SAMPLES = {
    "past": G.normal(size=(9, 5, 2)).astype("float32"),
    "known": G.normal(size=(9, 5, 2)).astype("float32"),
    "future": G.normal(size=(9, 4)).astype("float32"),
}


def written(kind: str, folder: Path) -> Path:
    path = folder / "nets.py"
    path.write_text(PROGRAM.replace("TAKEN", TAKEN[kind]))
    return path


def model_of(path: Path, kind: str) -> Any:
    """The model as its program builds it with tf_keras."""
    names: dict[str, Any] = {"__name__": "nets"}
    source = path.read_text().replace("import tensorflow as tf", "import tf_keras")
    source = source.replace("tf.keras", "tf_keras")
    exec(compile("import tensorflow as tf\n" + source, str(path), "exec"), names)
    model = names["Net"]()
    model(given(kind))
    model.set_weights([G.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


def given(kind: str) -> Any:
    return dict(SAMPLES) if kind == "dictionary" else list(SAMPLES.values())


@pytest.mark.parametrize("suffix", only([".h5", ".weights.h5"], ".h5"))
@pytest.mark.parametrize("kind", only(list(TAKEN), "unpacked"))
def test_inputs_are_those_of_the_list(kind: str, suffix: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    model, file = model_of(path, kind), tmp_path / f"w{suffix}"
    model.save_weights(file)
    np.savez(tmp_path / "x.npz", **SAMPLES)
    loaded = load_model(audit_file(file), architecture=f"{path}:Net", samples=tmp_path / "x.npz")
    expected = model(given(kind)).numpy()
    [actual] = loaded.model(SAMPLES, training=False).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    notes = [note for note in loaded.notes if "takes a list" in note]
    if kind == "dictionary":
        assert not notes
    else:
        [note] = notes
        reason = "in which call unpacks them" if kind == "unpacked" else "of their file"
        assert f"in the order {reason}: past, known, future" in note


@pytest.mark.long
def test_names_decide_the_order(tmp_path: Path) -> None:
    """A file of samples in another order has the names that call unpacks."""
    path = written("unpacked", tmp_path)
    model, file = model_of(path, "unpacked"), tmp_path / "w.h5"
    model.save_weights(file)
    np.savez(tmp_path / "x.npz", **dict(reversed(SAMPLES.items())))
    loaded = load_model(audit_file(file), architecture=f"{path}:Net", samples=tmp_path / "x.npz")
    [actual] = loaded.model(SAMPLES, training=False).values()
    expected = model(given("unpacked")).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
