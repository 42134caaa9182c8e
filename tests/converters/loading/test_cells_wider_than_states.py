"""Cells without ``output_size`` whose output is wider than their state: notes say what is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
import tensorflow as tf
class Cell(tf.keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.state_size = [units, units]
        self.rnn = tf.keras.layers.LSTMCell(units)
    def call(self, x, states, constants):
        h = tf.squeeze(constants, axis=0)
        _, (a, b) = self.rnn(x, states)
        return tf.concat([a, tf.reduce_mean(h, axis=1)], -1), [a, b]
def build():
    a, b = tf.keras.Input((5, 6)), tf.keras.Input((7, 4))
    x = tf.keras.layers.RNN(Cell(8), return_sequences=True)(b, constants=a)
    model = tf.keras.Model([a, b], tf.keras.layers.Dense(5)(x))
    tf.keras.utils.plot_model(model, "model.png")
    return model
"""


@pytest.mark.long
@pytest.mark.compared
def test_the_graph_of_tf_keras_is_used(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(PROGRAM)
    # plot_model needs other packages in tf_keras itself.
    text = PROGRAM.replace('tf.keras.utils.plot_model(model, "model.png")', "")
    text = text.replace("tf.keras", "tf_keras").replace("as tf", "as tf, tf_keras")
    (tmp_path / "for_tf_keras.py").write_text(text)
    names: dict[str, object] = {"__name__": "for_tf_keras"}
    exec(compile(text, str(tmp_path / "for_tf_keras.py"), "exec"), names)
    tf_keras.backend.clear_session()
    model = names["build"]()  # type: ignore[operator]
    model.save_weights(tmp_path / "w.h5")
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(3, *x.shape[1:])).astype("float32") for x in model.inputs]
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path}/prog.py:build")
    names_of_inputs = [tensor.name for tensor in loaded.model.inputs]
    actual = loaded.model(dict(zip(names_of_inputs, inputs, strict=True)))
    actual = next(iter(actual.values())) if isinstance(actual, dict) else actual
    np.testing.assert_allclose(actual, model.predict(inputs, verbose=0), rtol=1e-4, atol=1e-5)
    [note] = [note for note in loaded.notes if "does not run in Keras 3" in note]
    assert "has weights of shape (8, 5), the file contains (14, 5)." in note
    assert "cannot load them" not in note
